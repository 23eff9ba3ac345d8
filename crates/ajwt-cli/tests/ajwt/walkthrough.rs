//! Runs the commands of a page of documentation, word for word.

use std::{
    fs::File,
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{AJWT, Folder};

/// A code block of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub(crate) language: &'a str,
    /// What stands after the language: the name of a file.
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// The code blocks of a page, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    const FENCE: &str = "```";
    let mut blocks = Vec::new();
    let mut begun: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in page.split_inclusive('\n') {
        let fence = line.trim().strip_prefix(FENCE);
        let end = at + line.len();
        begun = match (begun, fence) {
            (None, Some(info)) => Some((info, end)),
            (Some((info, start)), Some(_)) => {
                let (language, name) = info.split_once(' ').unwrap_or((info, ""));
                blocks.push(Block { language, name, text: &page[start..at] });
                None
            }
            (begun, None) => begun,
        };
        at = end;
    }
    assert!(begun.is_none(), "a block without an end");
    blocks
}

/// Commands in a folder, with `ajwt` on the path.
pub(crate) struct Shell<'a> {
    folder: &'a Folder,
    programs: String,
    replaced: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    exports: String,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(folder: &'a Folder) -> Self {
        std::fs::create_dir(folder.path("bin")).expect("a folder");
        symlink(AJWT, folder.path("bin/ajwt")).expect("a link");
        let programs = folder.path("bin").display().to_string();
        Self { folder, programs, replaced: Vec::new(), variables: Vec::new(), exports: String::new() }
    }

    /// Looks for programs in this folder too, and first.
    pub(crate) fn with_programs(mut self, folder: &Path) -> Self {
        self.programs = format!("{}:{}", folder.display(), self.programs);
        self
    }

    /// Puts something of this test in the place of what the page says: a port, a URL.
    pub(crate) fn with(mut self, documented: &str, here: impl ToString) -> Self {
        self.replaced.push((documented.to_owned(), here.to_string()));
        self
    }

    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A text of the page, as it is here.
    pub(crate) fn here(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (documented, here)| text.replace(documented, here))
    }

    fn command(&self, script: &str) -> Command {
        let mut command = self.folder.command("sh");
        let path = std::env::var("PATH").expect("a path");
        command.env("PATH", format!("{}:{path}", self.programs)).envs(self.variables.iter().cloned());
        command.args(["-euc", &format!("{}{}", self.exports, self.here(script))]);
        command
    }

    /// Runs commands; what they printed. What they export is exported to those that follow.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> String {
        let output = self.command(script).stderr(Stdio::piped()).output().expect("it runs");
        let [printed, told] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        assert!(output.status.success(), "{script}: {}\n{printed}{told}", output.status);
        let exports = script.split_inclusive('\n').filter(|line| line.starts_with("export "));
        let exports = self.here(&exports.collect::<String>());
        self.exports.push_str(&exports);
        printed
    }

    /// Runs commands of which the last is a server, and waits until it answers on this port.
    #[track_caller]
    pub(crate) fn serve(&mut self, script: &str, port: u16) -> Server {
        // The shell becomes the server, so that ending the one ends the other.
        let (before, server) = script.trim_end().rsplit_once('\n').unwrap_or(("", script.trim_end()));
        let setup = format!("{before}\n");
        self.run(&setup);
        let log = self.folder.path(&format!("{port}.log"));
        let file = File::create(&log).expect("a log");
        let mut command = self.command(&format!("exec {server}"));
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        let mut server = Server(command.spawn().expect("it runs"));
        for _ in 0..2400 {
            let ended = server.0.try_wait().expect("its state");
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "{script} ended: {}", log());
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{script} does not answer on port {port}");
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compares what was printed with what the page shows; two dots stand for the rest of a line.
#[track_caller]
pub(crate) fn assert_printed(printed: &str, shown: &str) {
    let (printed_lines, shown_lines): (Vec<_>, Vec<_>) = (printed.lines().collect(), shown.lines().collect());
    let agrees = |(printed, shown): (&&str, &&str)| match shown.strip_suffix("..") {
        Some(start) => printed.starts_with(start),
        None => printed == shown,
    };
    let agree =
        printed_lines.len() == shown_lines.len() && printed_lines.iter().zip(&shown_lines).all(agrees);
    assert!(agree, "printed is\n{printed}\nand the page shows\n{shown}");
}
