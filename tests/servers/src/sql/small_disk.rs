//! A disk of a server's own, to be filled up.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Of a disk that is to be filled.
const SMALL_DISK_MIB: usize = 400;

/// A file system that only the processes see which enter its namespace. It ends with the last of them, so
/// that a test that is killed leaves none behind.
#[derive(Debug)]
pub(super) struct SmallDisk {
    pub(super) path: PathBuf,
    /// Keeps it, until its input ends.
    holder: Child,
}

impl SmallDisk {
    pub(super) fn mount(path: &Path, user: Option<(u32, u32)>) -> Self {
        fs::create_dir(path).expect("a folder");
        let (user, group) = user.unwrap_or_default();
        let mount = format!(
            "mount -t tmpfs -o size={SMALL_DISK_MIB}m,mode=0700,uid={user},gid={group} tmpfs '{}' \
             && echo mounted && exec cat",
            path.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &mount]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("run");
        let mut line = String::new();
        let output = holder.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("read");
        assert_eq!(line, "mounted\n", "a disk of a server's own needs root, and mount");
        Self { path: path.to_owned(), holder }
    }

    /// A command that enters its namespace, and lacks what to run there.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--mount");
        command
    }

    /// The file that takes the room, by way of a process that sees it.
    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.path.strip_prefix("/").expect("an absolute path")).join("filler")
    }

    pub(super) fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).expect("created");
        let filled = io::copy(&mut io::repeat(0), &mut filler).expect_err("no disk is endless");
        assert_eq!(filled.kind(), io::ErrorKind::StorageFull);
    }

    pub(super) fn make_room(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It ends with its input.
        let _ = self.holder.wait();
    }
}
