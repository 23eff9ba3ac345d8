//! The Python library on Django and gunicorn, beside ours with users in SQLite, on one core each.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ajwt_core::PublicKey;
use ajwt_test_servers::port::free_port;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    callers::{NAME, header, keys, wait_for_the_next_second},
    http::{Load, Service},
    measure::ROUNDS,
    report::Report,
};

const PACKAGES: [&str; 3] = ["asymmetric_jwt_auth==1.3.0", "Django>=5.2,<5.3", "gunicorn==23.0.0"];

/// Django answers some hundred requests a second.
const REQUESTS: usize = 1000;
const OUR_REQUESTS: usize = 20_000;

pub(crate) fn run(report: &mut Report) {
    let python = python();
    for (name, private, _) in keys().into_iter().take(2) {
        let django = Django::start(&python, private.public_key());
        let ours = Service::start("axum + ajwt, SQLite", &private);
        wait_for_the_next_second();
        let headers = |count: usize| (0..count).map(|_| header(NAME, &private)).collect();
        let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            our_rates.push(Load::new(headers(OUR_REQUESTS)).run(ours.port()));
            their_rates.push(Load::new(headers(REQUESTS)).run(django.port));
        }
        let what = format!("{name}: axum + ajwt, users in SQLite, requests");
        report.beside(&what, "/s", &our_rates, "the Python library on Django and gunicorn", &their_rates);
    }
}

/// One worker of gunicorn, killed when dropped.
struct Django {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Django {
    fn start(python: &Path, key: &PublicKey) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("django.db");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let set_up = format!("import service; service.set_up({NAME:?}, {:?})", key.to_pem());
        let run = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(&source).env("AJWT_BENCH_DATABASE", &database);
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let done = run(&python.display().to_string()).args(["-c", &set_up]).status().expect("Python");
        assert!(done.success(), "Django could not be set up");
        let port = free_port();
        let child = run("taskset")
            .args(["-c", "0"])
            .arg(python.with_file_name("gunicorn"))
            // With threads of its own a worker keeps connections open.
            .args(["--workers", "1", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "30"])
            .args(["--bind", &format!("127.0.0.1:{port}"), "service:application"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset");
        let django = Self { child, port, _folder: folder };
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", django.port)).is_ok() {
                return django;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("gunicorn does not answer");
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        // Its worker ends with it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The interpreter of an environment of our own, below target/.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-venv");
    let python = target.join("bin/python");
    if !target.join("bin/gunicorn").exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).status();
            assert!(done.is_ok_and(|done| done.success()), "{program:?} {arguments:?} failed");
        };
        run(Path::new("python3"), &["-m", "venv", &target.display().to_string()]);
        let mut install = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        install.extend(PACKAGES);
        run(&python, &install);
    }
    python
}
