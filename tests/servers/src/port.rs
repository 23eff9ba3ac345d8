//! Ports of the loopback interface.

use std::{
    net::{TcpListener, UdpSocket},
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// Below those that the system gives to connections by itself.
const PORTS: Range<u16> = 10_000..22_000;

/// That of a Redis server's cluster bus is its own and this.
const TO_BUS: u16 = 10_000;

/// A port that nobody has, nor the one by 10000 above it, and that no other test gets while this process lives: not
/// before its server has it either, nor while that is down.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes that follow on each other begin at different ones.
    let begin = usize::try_from(std::process::id() % 1000).expect("small") * 12 + usize::from(*next);
    for (tried, port) in PORTS.cycle().skip(begin).take(PORTS.len()).enumerate() {
        if reserve(port) {
            *next += u16::try_from(tried).expect("fewer than there are ports") + 1;
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

fn reserve(port: u16) -> bool {
    static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let Some(reservation) = reservation(port) else { return false };
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).extend(reservation);
    true
}

/// UDP's ports are others than TCP's, and no server of ours uses any: whoever has one of these has the port of that
/// number.
fn reservation(port: u16) -> Option<[UdpSocket; 2]> {
    let [port, bus] = [port, port + TO_BUS].map(|port| {
        let reserved = UdpSocket::bind(("127.0.0.1", port)).ok()?;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(reserved)
    });
    Some([port?, bus?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: Vec<_> = (0..50).map(|_| free_port()).collect();
        let mut all: Vec<_> = ports.iter().flat_map(|port| [*port, port + TO_BUS]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100);
        for port in ports {
            assert!(!reserve(port), "{port}");
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        let port = PORTS.rev().find(|port| reservation(*port).is_some()).expect("a free port");
        for port_or_bus in [port, port + TO_BUS] {
            let taken = TcpListener::bind(("127.0.0.1", port_or_bus)).expect("free");
            assert!(reservation(port).is_none(), "{port_or_bus} is taken");
            drop(taken);
            assert!(reservation(port).is_some(), "{port_or_bus} is free again");
        }
    }
}
