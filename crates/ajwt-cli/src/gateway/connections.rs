//! Connections: how they are taken, and when they end.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// How long a connection may be silent before its other side is asked whether it is still there: the host of a
/// proxy that lost power closes none.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Before the next connection is taken where there is no room for one: no file, or no memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Files that connections leave to everything else: key sets, of which 144 may be fetched at once, the connections to the
/// stores (of Redis, 32 to each of a few primaries), the folder of keys.
const OTHER_FILES: u64 = 256;

/// More than any proxy keeps open, whatever the process may open.
const MAX_CONNECTIONS: usize = 10_000;

/// Between two times at which the log says that there is no room for connections.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Answers requests until `stop` is ready, and finishes those that run then.
///
/// A connection on which no whole head of a request comes within `idle_timeout` is closed, as is one whose other side
/// takes nothing of an answer for that long. `axum::serve` sets no such limit, and hyper-util's server of both versions
/// of HTTP can set none on the bytes by which it tells them apart. While there is no `room`, connections wait to be
/// taken.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut room: Room,
    idle_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    // Here, so that it is not done for each request.
    let router: Router = router.with_state(());
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    // It counts from the connection's start, and anew from each answer.
    http.timer(TokioTimer::new()).header_read_timeout(idle_timeout);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let (connection, place) = tokio::select! {
            accepted = accept(&listener, &mut room) => accepted,
            () = &mut stop => break,
        };
        end_when_gone(&connection, idle_timeout);
        let connection = http.serve_connection(TokioIo::new(connection), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection was broken off");
            }
            // Its file is closed by now.
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// How many connections there may be at once. Each is a file of the process, and without a file for them the folder of
/// keys cannot be read, nor a store be asked.
pub(super) struct Room {
    places: Arc<Semaphore>,
    len: usize,
    /// When the log said last that there is none.
    told: Option<Instant>,
}

impl Room {
    /// As much as the files that this process may open have.
    pub(super) fn of_process() -> Self {
        #[cfg(unix)]
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        #[cfg(not(unix))]
        let files = None;
        Self::new(connections_of(files))
    }

    fn new(len: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(len)), len, told: None }
    }

    /// A place for a connection, until it is dropped. Waits while there is none.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        if self.is_to_be_told() {
            tracing::warn!(
                open = self.len,
                "there is no room for more connections; others wait until one ends"
            );
        }
        // `None` would be of a semaphore that is closed, which this one never is.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Whether the log has not said for a while that there is no room; it is now taken to say so.
    fn is_to_be_told(&mut self) -> bool {
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }
}

/// How many connections a process may hold that may open so many files; `None`: any number.
fn connections_of(files: Option<u64>) -> usize {
    let Some(files) = files else { return MAX_CONNECTIONS };
    let connections = files.saturating_sub(OTHER_FILES).max(files / 2);
    usize::try_from(connections).unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS)
}

/// The next connection, however long there is none, or no room for it.
async fn accept(listener: &TcpListener, room: &mut Room) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let place = room.place().await;
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return (connection, place),
            // It was given up before it was taken, which must not hold up the others.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken; trying again in a second");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it says nothing of the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The kernel closes the connection when its other side has gone without a word, and, on Linux, when it takes none of
/// what is sent to it: hyper waits for that without a limit.
fn end_when_gone(connection: &TcpStream, idle_timeout: Duration) {
    let socket = SockRef::from(connection);
    let set = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    #[cfg(target_os = "linux")]
    let set = set.and_then(|()| socket.set_tcp_user_timeout(Some(idle_timeout)));
    #[cfg(not(target_os = "linux"))]
    let _ = idle_timeout;
    if let Err(error) = set {
        tracing::debug!(%error, "a connection has no limits by the kernel");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        for (files, connections) in [
            (Some(0), 1),
            (Some(64), 32),
            (Some(511), 255),
            (Some(600), 344),
            (Some(1024), 768),
            (Some(1_048_576), MAX_CONNECTIONS),
            (None, MAX_CONNECTIONS),
        ] {
            assert_eq!(connections_of(files), connections, "{files:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_no_room_is_told_once_a_minute() {
        let mut room = Room::new(1);
        let mut told = 0;
        for _ in 0..150 {
            told += u32::from(room.is_to_be_told());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, 3);
    }
}
