//! Services over real sockets: one worker on one core, the load on another.

mod load;
mod server;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use ajwt_core::PrivateKey;

pub(crate) use self::{
    load::{Load, pin_to_the_second_core},
    server::serve,
};
use crate::{
    callers::{NAME, header, keys},
    measure::ROUNDS,
    report::Report,
};

const REQUESTS: usize = 20_000;

/// The first argument of a process that serves.
pub(crate) const SERVE: &str = "serve";

/// A service in a process of its own, pinned to the first core, killed when dropped.
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    port: u16,
    _stdout: BufReader<ChildStdout>,
}

pub(crate) fn run(report: &mut Report) {
    for (name, private, _) in keys().into_iter().take(2) {
        let mut services: Vec<_> =
            server::VARIANTS.iter().map(|variant| Service::start(variant, &private)).collect();
        crate::callers::wait_for_the_next_second();
        let mut figures: Vec<(Vec<f64>, Vec<f64>)> = services.iter().map(|_| Default::default()).collect();
        for _ in 0..ROUNDS {
            // Each service remembers nonces of its own.
            let load = Load::new((0..REQUESTS).map(|_| header(NAME, &private)).collect());
            for (service, (rate, cpu)) in services.iter_mut().zip(&mut figures) {
                if service.name == "calibration" {
                    // What a check takes changes with what else the machine does.
                    *service = Service::start(service.name, &private);
                }
                let before = cpu_of(service.child.id());
                rate.push(load.run(service.port));
                cpu.push((cpu_of(service.child.id()) - before) / REQUESTS as f64);
            }
        }
        let of = |wanted: &str| {
            let at = services.iter().position(|service| service.name == wanted).expect("a variant");
            &figures[at]
        };
        for (ours, peers) in server::COMPARED {
            for peer in *peers {
                let what = format!("{name}: {ours}");
                report.beside(&format!("{what}, requests"), "/s", &of(ours).0, peer, &of(peer).0);
                report.beside(&format!("{what}, CPU a request"), "ns", &of(ours).1, peer, &of(peer).1);
            }
        }
        let layer: Vec<_> =
            (0..ROUNDS).map(|round| of("axum + ajwt").1[round] - of("axum + bare check").1[round]).collect();
        report.alone(&format!("{name}: the axum layer without the check, CPU"), "ns", &layer);
    }
}

impl Service {
    pub(crate) fn start(variant: &'static str, key: &PrivateKey) -> Self {
        let program = std::env::current_exe().expect("this program");
        let pem = key.public_key().to_pem();
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .args([SERVE, variant, &pem])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("taskset does not start ({error}): apt-get install util-linux"));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{variant} says {line:?}"));
        Self { name: variant, child, port, _stdout: stdout }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds that all threads of a process have run.
fn cpu_of(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("Linux");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .sum()
}
