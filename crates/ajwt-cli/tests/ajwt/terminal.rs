//! What is asked for and shown on a terminal: a pseudo-terminal, of which the test is the person.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_core::PrivateKey;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::support::{AJWT, Folder};

const PASSPHRASE: &str = "correct horse";

/// What is told where nobody can be asked.
const TERMINAL_OF_ANOTHER: &str = "ajwt: the terminal belongs to another program, so that no passphrase can be asked \
    for: give --passphrase-file\r\n";

/// A kind of terminal on which lines can be cleared: on others no progress is shown.
const TERM: &str = "xterm";

/// The program on a terminal of its own.
struct Terminal {
    keyboard: File,
    /// Keeps its modes when the program has ended.
    held: Option<File>,
    /// All that was shown.
    screen: Arc<Mutex<Vec<u8>>>,
    /// Up to where it was waited for.
    seen: usize,
    program: Child,
}

impl Terminal {
    fn start(folder: &Folder, words: &str) -> Self {
        Self::of(folder, [AJWT].into_iter().chain(words.split(' ')))
    }

    /// Of another program, which is given with its arguments.
    fn of<'a>(folder: &Folder, program: impl IntoIterator<Item = &'a str>) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let theirs = || OpenOptions::new().read(true).write(true).open(name).expect("it opens");
        // In a session of its own, whose terminal it is, and where signals count that are ignored here.
        let mut command = folder.command("setsid");
        command.args(["--ctty", "env", "--default-signal=HUP,INT,TERM"]);
        command.args(program).env("TERM", TERM);
        let program = command.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().expect("it runs");
        drop(command);
        let held = Some(theirs());

        let keyboard = File::from(ours);
        let mut shown = keyboard.try_clone().expect("a terminal");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            // Until the last who has the terminal open closes it.
            while let Ok(count @ 1..) = shown.read(&mut bytes) {
                copy.lock().expect("a lock").extend(&bytes[..count]);
            }
        });
        Self { keyboard, held, screen, seen: 0, program }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("a lock")).into_owned()
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..1200 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("there is no {what}: {:?}", self.screen());
    }

    /// Waits until this is asked and what is typed is not shown, and types the answer.
    #[track_caller]
    fn answer(&mut self, question: &str, answer: &str) {
        self.wait_for(question);
        self.enter(&format!("{answer}\n"));
    }

    /// Waits until this is asked and what is typed is not shown.
    #[track_caller]
    fn wait_for(&mut self, question: &str) {
        self.wait(question, || self.screen()[self.seen..].contains(question));
        self.seen = self.screen().len();
        self.wait("silence", || !self.modes().contains(LocalModes::ECHO));
    }

    fn enter(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.keyboard).expect("modes").local_modes
    }

    /// Ends the program by a signal, or by Ctrl-C, and expects the modes of a new terminal; the exit code, or the number
    /// of the signal that has ended it.
    #[track_caller]
    fn interrupt(&mut self, signal: Option<&str>) -> (Option<i32>, Option<i32>) {
        match signal {
            Some(name) => {
                let id = self.program.id().to_string();
                assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
            }
            None => self.enter("\u{3}"),
        }
        self.end_with_modes()
    }

    /// Waits for the end, and expects the modes of a new terminal; the exit code, or the number of the signal that has
    /// ended it.
    #[track_caller]
    fn end_with_modes(&mut self) -> (Option<i32>, Option<i32>) {
        let status = self.program.wait().expect("its end");
        let modes = self.modes();
        let due = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.contains(due), "{modes:?}: {:?}", self.screen());
        (status.code(), status.signal())
    }

    /// Waits for the end; how it ended and what was shown in all.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.program.wait().expect("its end");
        drop(self.held.take());
        // What was written last has then been read.
        let reader = Arc::clone(&self.screen);
        self.wait("end of the screen", || Arc::strong_count(&reader) == 2);
        (status, self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn a_new_key_is_encrypted_with_what_is_typed_twice_and_never_shown() {
    let folder = Folder::new();
    let mut terminal = Terminal::start(&folder, "keygen -o new.key");
    terminal.answer("passphrase of the new key (empty for none): ", PASSPHRASE);
    terminal.answer("the same again: ", PASSPHRASE);
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains("horse"), "{shown:?}");
    let key = PrivateKey::from_pem(folder.read("new.key"), Some(PASSPHRASE.as_bytes())).expect("the key");
    assert!(shown.contains(key.public_key().fingerprint().as_str()), "{shown:?}");

    let mut terminal = Terminal::start(&folder, "token --username billing --key new.key");
    terminal.answer("passphrase of new.key: ", PASSPHRASE);
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.contains("\neyJ") && !shown.contains("horse"), "{shown:?}");

    let mut terminal = Terminal::start(&folder, "token --username billing --key new.key");
    terminal.answer("passphrase of new.key: ", "incorrect horse");
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("the password is wrong") && !shown.contains("horse"), "{shown:?}");
}

#[test]
fn what_is_typed_differently_makes_no_key() {
    let folder = Folder::new();
    let mut terminal = Terminal::start(&folder, "keygen -o new.key");
    terminal.answer("passphrase of the new key (empty for none): ", PASSPHRASE);
    terminal.answer("the same again: ", "correct house");
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("ajwt: the passphrases differ; no key was made"), "{shown:?}");
    assert!(!shown.contains("correct"), "{shown:?}");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn an_empty_passphrase_is_none() {
    let folder = Folder::new();
    let mut terminal = Terminal::start(&folder, "keygen -o new.key");
    terminal.answer("passphrase of the new key (empty for none): ", "");
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.contains("the private key new.key is not encrypted"), "{shown:?}");
    PrivateKey::from_pem(folder.read("new.key"), None).expect("a key");
}

/// Else nothing that is typed in the shell afterwards would be shown. A shell whose loop it runs in is told of the
/// signal by the way in which it ends: with an exit code the loop would go on.
#[test]
fn a_signal_at_a_question_leaves_the_terminal_as_it_was() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    for (signal, number) in [(None, 2), (Some("-INT"), 2), (Some("-TERM"), 15), (Some("-HUP"), 1)] {
        let mut terminal = Terminal::start(&folder, "token --username billing --key new.key");
        terminal.wait_for("passphrase of new.key: ");
        assert_eq!(terminal.interrupt(signal), (None, Some(number)), "{signal:?}");
    }
}

/// No signal that it sends itself ends the first process of a container. A shell has these codes for the signals.
#[test]
fn a_signal_at_a_question_ends_the_first_process_of_a_container() {
    // From within, as a signal from outside would reach the program that waits for the container. Of what `sh` starts
    // before it becomes the program, nothing outlives the container.
    const SIGNAL_WHEN_ASKED: &str = r#"(until [ -e asked ]; do sleep 0.1; done; kill -TERM 1) &
        exec "$0" token --username billing --key new.key"#;

    let first = ["unshare", "--pid", "--kill-child", "--mount-proc"];
    let first_as_user = [&first[..], &["--map-root-user"]].concat();
    let may_run = |unshare: &[&str]| {
        let output = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
        output.expect("unshare, of util-linux").status.success()
    };
    let ways = [first.as_slice(), first_as_user.as_slice()];
    let unshare = ways.into_iter().find(|unshare| may_run(unshare));
    let unshare = unshare.expect("unshare needs root, in a container with CAP_SYS_ADMIN");
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    let start = |program: &[&str]| {
        let mut terminal = Terminal::of(&folder, unshare.iter().chain(program).copied());
        terminal.wait_for("passphrase of new.key: ");
        terminal
    };
    let mut terminal = start(&[AJWT, "token", "--username", "billing", "--key", "new.key"]);
    assert_eq!(terminal.interrupt(None), (Some(130), None));
    let mut terminal = start(&["sh", "-c", SIGNAL_WHEN_ASKED, AJWT]);
    folder.write("asked", "");
    assert_eq!(terminal.end_with_modes(), (Some(143), None));
}

/// It is stopped as at any other time.
#[test]
fn a_gateway_that_asks_can_be_stopped() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    for signal in [None, Some("-INT"), Some("-TERM")] {
        let gateway = "gateway --listen 127.0.0.1:0 --keys . --nonce memory --publish-key new.key";
        let mut terminal = Terminal::start(&folder, gateway);
        terminal.wait_for("passphrase of new.key: ");
        assert_eq!(terminal.interrupt(signal), (Some(0), None), "{signal:?}");
    }
}

#[test]
fn no_answer_is_not_taken_for_no_terminal() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    let mut terminal = Terminal::start(&folder, "token --username billing --key new.key");
    terminal.wait_for("passphrase of new.key: ");
    // Ctrl-D.
    terminal.enter("\u{4}");
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    let told = "ajwt: no passphrase was given on the terminal: unexpected end of file";
    assert!(shown.contains(told), "{shown:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_give_instead() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    for words in ["key show new.key", "token --username billing --key new.key"] {
        // In a session of its own, which has none, wherever the test runs.
        let output = folder.command("setsid").arg(AJWT).args(words.split(' ')).output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{words}: {told}");
        assert!(told.starts_with("ajwt: the key is encrypted, and there is no terminal"), "{told}");
        assert!(told.contains("give --passphrase-file"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// Whoever changes the modes of the terminal from there is stopped.
#[test]
fn a_question_in_the_background_can_be_ended() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    // In a group of its own, as timeout makes it. The shell stays in front.
    let end = |seconds: u8, words: &str| {
        let script = format!("timeout -k 20 {seconds} \"$0\" {words}; exit $?");
        let (status, shown) = Terminal::of(&folder, ["sh", "-c", &script, AJWT]).end();
        (status.code(), shown)
    };
    for words in ["key show new.key", "token --username billing --key new.key", "keygen -o other.key"] {
        // That of timeout where SIGTERM was enough.
        assert_eq!(end(1, words), (Some(124), String::new()), "{words}");
    }
    // It hears signals, and would be stopped before it does.
    let gateway = "gateway --listen 127.0.0.1:0 --keys . --nonce memory --publish-key new.key";
    assert_eq!(end(60, gateway), (Some(1), TERMINAL_OF_ANOTHER.to_owned()));
}

/// The system stops nothing there, for it could not be brought to the front again.
#[test]
fn a_question_in_a_group_that_nobody_looks_after_says_what_to_give_instead() {
    // In a group of its own, as timeout makes it, whose parent has ended when it goes on.
    const ORPHANED: &str = r#"
        (timeout 60 sh -c '
            until [ -e orphaned ]; do sleep 0.1; done
            "$0" token --username billing --key new.key
            echo $? >ended
            mv ended code' "$0" &)
        : >orphaned
        timeout 60 sh -c 'until [ -e code ]; do sleep 0.1; done'
        exit "$(cat code)""#;

    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    let (status, shown) = Terminal::of(&folder, ["sh", "-c", ORPHANED, AJWT]).end();
    assert_eq!((status.code(), shown.as_str()), (Some(1), TERMINAL_OF_ANOTHER));
}

/// Those of the terminal while it was in the background are those in which a shell reads its own lines.
#[test]
fn a_question_that_comes_to_the_front_leaves_the_modes_that_it_finds_there() {
    // With jobs, as a shell that is typed in has them: each in a group of its own.
    const BACK_AND_FRONT: &str = r#"stty -icanon -echo
        "$0" token --username billing --key new.key &
        timeout 60 sh -c 'until grep -q "^State:.T" "/proc/$0/status"; do sleep 0.1; done' $!
        stty icanon echo
        fg"#;

    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    folder.good("keygen -o new.key --passphrase-file passphrase");
    let mut terminal = Terminal::of(&folder, ["sh", "-mc", BACK_AND_FRONT, AJWT]);
    terminal.answer("passphrase of new.key: ", PASSPHRASE);
    assert_eq!(terminal.end_with_modes(), (Some(0), None), "{:?}", terminal.screen());
}

#[test]
fn making_a_large_key_shows_that_it_goes_on() {
    let folder = Folder::new();
    folder.write_secret("passphrase", PASSPHRASE);
    let keygen =
        |bits: u16| format!("keygen --type rsa --bits {bits} --passphrase-file passphrase -o {bits}.key");
    let progress = "looking for two large primes";
    // Of a size that takes its time. It is not waited for.
    let terminal = Terminal::start(&folder, &keygen(8192));
    terminal.wait("progress", || terminal.screen().contains(progress));
    drop(terminal);

    let (code, told) = without_a_terminal(&folder, &keygen(4096));
    assert_eq!((code, told.as_str()), (Some(0), ""));
}

#[test]
fn an_import_shows_how_far_it_is() {
    let folder = Folder::with_database();
    let keys = (0..30).map(|_| {
        let key = PrivateKey::generate_ed25519().expect("a key");
        key.public_key().to_openssh("") + "\n"
    });
    folder.write("keys", keys.collect::<String>());
    let import = "key import billing --authorized-keys keys --database-url sqlite://ajwt.db";
    let (status, shown) = Terminal::start(&folder, import).end();
    assert!(status.success(), "{shown}");
    assert!(shown.contains(" 1/30") && shown.contains("ajwt: added 30 of 30 keys\r\n"), "{shown:?}");

    // They are there by now, and gone through all the same.
    let (code, told) = without_a_terminal(&folder, import);
    let due = "ajwt: added 0 of 30 keys; the user has the others already\n";
    assert_eq!((code, told.as_str()), (Some(0), due));
}

/// How a command ends whose standard error is none, in an environment that comes from one; and what it tells.
fn without_a_terminal(folder: &Folder, words: &str) -> (Option<i32>, String) {
    let output = folder.command(AJWT).args(words.split(' ')).env("TERM", TERM).output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}
