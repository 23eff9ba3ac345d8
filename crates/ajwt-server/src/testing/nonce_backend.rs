use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use tokio::{sync::Barrier, task::JoinSet};

use super::{Findings, with_sources};
use crate::{Clock, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, SystemClock};

const TOLERANCE: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(1);

/// Margins by which entries live 3 s, 3.7 s and 9.5 s: each what its own use says.
const MARGINS: [Duration; 3] = [MARGIN, Duration::from_millis(1700), Duration::from_millis(7500)];

/// How long before the end of its lifetime an entry is looked for.
const JUST_BELOW: Duration = Duration::from_millis(100);

/// How far ahead of the clock the suite's tokens are dated: beyond what a start rule refuses.
const AHEAD: i64 = 60;

/// As [`AHEAD`], for entries that live on when the date of their token has passed.
const LITTLE_AHEAD: i64 = 7;

const RACE_TASKS: usize = 64;
const RACE_ROUNDS: usize = 200;

/// A use as the engine makes it of a verified token.
#[must_use]
pub fn nonce_use(
    username: &str,
    time: i64,
    nonce: &str,
    now: Timestamp,
    tolerance: Duration,
    margin: Duration,
) -> NonceUse {
    NonceUse::new(NonceKey::of_claims(username, time, nonce), time, now, tolerance, margin)
}

/// What every [`NonceBackend`] must do: one use is `Fresh` and all others `Replayed`, whatever
/// their number and however close; keys are independent; an entry lives its lifetime; closing it ends
/// none of that, since another authenticator may share it.
///
/// The suite's tokens are dated ahead of the operating system's clock, so that a backend that was just
/// started knows them under each [`StartRule`](crate::StartRule) with a server skew of at most 5 s. It takes
/// ten seconds and more, and needs room for some 500 live entries. Run it on a runtime of several
/// threads, or nothing happens at once. What a backend does that has forgotten, or whose store fails, is not in
/// it: that takes the store itself.
///
/// # Panics
/// With what the backend did wrong.
pub async fn nonce_backend(backend: Arc<dyn NonceBackend>) {
    let mut findings = Findings::default();
    let run = Run::new();
    first_use_is_fresh(&*backend, &run, &mut findings).await;
    keys_are_independent(&*backend, &run, &mut findings).await;
    one_of_many_tasks_is_fresh(&backend, &run, &mut findings).await;
    an_entry_lives_its_lifetime(&backend, &run, &mut findings).await;
    closing_ends_nothing(&*backend, &run, &mut findings).await;
    findings.finish("nonce_backend");
}

/// Nonces that no other run of the suite has.
#[derive(Clone)]
pub(super) struct Run {
    clock: SystemClock,
    seed: u64,
    time: i64,
}

impl Run {
    fn new() -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);

        let clock = SystemClock::new();
        let mut random = [0; 8];
        // Without random bytes the process and the time still tell runs apart.
        let _ = getrandom::fill(&mut random);
        let seed =
            u64::from_be_bytes(random) ^ RUNS.fetch_add(1, Ordering::Relaxed) ^ u64::from(std::process::id());
        Self { time: clock.now().as_secs() + AHEAD, clock, seed }
    }

    /// The run that another process began.
    pub(super) fn joined(seed: u64, time: i64) -> Self {
        Self { clock: SystemClock::new(), seed, time }
    }

    pub(super) fn seed_and_time() -> (u64, i64) {
        let run = Self::new();
        (run.seed, run.time)
    }

    fn of(&self, username: &str, time_offset: i64, nonce: &str) -> NonceUse {
        let nonce = format!("{:016x}{nonce}", self.seed);
        nonce_use(username, self.time + time_offset, &nonce, self.clock.now(), TOLERANCE, MARGIN)
    }
}

fn told(answer: &Result<NonceOutcome, NonceError>) -> String {
    match answer {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => format!("an error ({})", with_sources(error)),
    }
}

async fn expect(
    backend: &dyn NonceBackend,
    nonce: &NonceUse,
    due: NonceOutcome,
    what: &str,
    findings: &mut Findings,
) {
    let answer = backend.consume(nonce).await;
    findings.check(matches!(&answer, Ok(outcome) if *outcome == due), || {
        format!("{what} is {}, not {due:?}", told(&answer))
    });
}

async fn first_use_is_fresh(backend: &dyn NonceBackend, run: &Run, findings: &mut Findings) {
    expect(backend, &run.of("u", 0, "once"), NonceOutcome::Fresh, "a first use", findings).await;
    for what in ["a second use", "a third use"] {
        expect(backend, &run.of("u", 0, "once"), NonceOutcome::Replayed, what, findings).await;
    }
}

async fn closing_ends_nothing(backend: &dyn NonceBackend, run: &Run, findings: &mut Findings) {
    expect(backend, &run.of("u", 0, "before"), NonceOutcome::Fresh, "a first use", findings).await;
    backend.close().await;
    for (nonce, due, what) in [
        ("before", NonceOutcome::Replayed, "once closed, a second use"),
        ("after", NonceOutcome::Fresh, "once closed, a first use"),
        ("after", NonceOutcome::Replayed, "once closed, a second use of a new one"),
    ] {
        expect(backend, &run.of("u", 0, nonce), due, what, findings).await;
    }
}

async fn keys_are_independent(backend: &dyn NonceBackend, run: &Run, findings: &mut Findings) {
    let longest = "x".repeat(200);
    let keys = [
        ("u", 0, "one"),
        ("v", 0, "one"),
        ("U", 0, "one"),
        ("u ", 0, "one"),
        ("u", 1, "one"),
        ("u", -1, "one"),
        ("u", 0, "two"),
        ("u", 0, "ONE"),
        ("u", 0, "one "),
        ("u", 0, ""),
        ("zo\u{eb}", 0, "one"),
        ("zoe\u{308}", 0, "one"),
        ("u", 0, "\u{1f600}'\"\\%_\0;--"),
        ("u", 0, &longest),
    ];
    for due in [NonceOutcome::Fresh, NonceOutcome::Replayed] {
        for (username, offset, nonce) in keys {
            let what = format!("a use by {username:?}, {offset:+} s, nonce ..{nonce:?}");
            expect(backend, &run.of(username, offset, nonce), due, &what, findings).await;
        }
    }
}

async fn one_of_many_tasks_is_fresh(backend: &Arc<dyn NonceBackend>, run: &Run, findings: &mut Findings) {
    for round in 0..RACE_ROUNDS {
        let answers = race(backend, run, &format!("race {round}"), RACE_TASKS).await;
        let fresh = answers.iter().filter(|answer| matches!(answer, Ok(NonceOutcome::Fresh))).count();
        findings.check(fresh == 1, || {
            format!("round {round}: of {RACE_TASKS} simultaneous uses {fresh} are Fresh, not 1")
        });
        if let Some(error) = answers.iter().find(|answer| answer.is_err()) {
            findings.add(format!("round {round}: one of {RACE_TASKS} simultaneous uses is {}", told(error)));
        }
    }
}

/// Uses of one nonce by this many tasks at once.
pub(super) async fn race(
    backend: &Arc<dyn NonceBackend>,
    run: &Run,
    nonce: &str,
    tasks: usize,
) -> Vec<Result<NonceOutcome, NonceError>> {
    let start = Arc::new(Barrier::new(tasks));
    let mut uses = JoinSet::new();
    for _ in 0..tasks {
        let (backend, start, nonce) = (Arc::clone(backend), Arc::clone(&start), run.of("u", 0, nonce));
        uses.spawn(async move {
            start.wait().await;
            backend.consume(&nonce).await
        });
    }
    uses.join_all().await
}

/// Entries made at different moments, each looked for several times and just before its end.
async fn an_entry_lives_its_lifetime(backend: &Arc<dyn NonceBackend>, run: &Run, findings: &mut Findings) {
    let mut entries = JoinSet::new();
    for number in 0..16_u32 {
        let (backend, run) = (Arc::clone(backend), run.clone());
        entries.spawn(async move {
            tokio::time::sleep(Duration::from_millis(137) * number).await;
            entry_lives(&*backend, &run, number).await
        });
    }
    for finding in entries.join_all().await.into_iter().flatten() {
        findings.add(finding);
    }
}

async fn entry_lives(backend: &dyn NonceBackend, run: &Run, number: u32) -> Option<String> {
    let margin = MARGINS.iter().copied().cycle().nth(usize::try_from(number).ok()?)?;
    let lifetime = (TOLERANCE * 2).saturating_add(margin);
    // A machine that stalls shows nothing: then anew.
    for attempt in 0..5 {
        let nonce = format!("{:016x}lives {number} {attempt}", run.seed);
        let time = run.clock.now().as_secs() + LITTLE_AHEAD;
        let used = || nonce_use("u", time, &nonce, run.clock.now(), TOLERANCE, margin);
        let begun = run.clock.monotonic();
        let first = backend.consume(&used()).await;
        if !matches!(first, Ok(NonceOutcome::Fresh)) {
            return Some(format!("lifetime: the first use is {}, not Fresh", told(&first)));
        }
        for age in [lifetime / 3, lifetime / 3 * 2, lifetime.saturating_sub(JUST_BELOW)] {
            tokio::time::sleep((begun + age).saturating_sub(run.clock.monotonic())).await;
            let answer = backend.consume(&used()).await;
            let answered = run.clock.monotonic().saturating_sub(begun);
            if matches!(answer, Ok(NonceOutcome::Replayed)) {
                continue;
            }
            if answered < lifetime {
                return Some(format!(
                    "an entry is to live for {lifetime:?}; {answered:?} after its use it is {}",
                    told(&answer)
                ));
            }
            break;
        }
        if run.clock.monotonic().saturating_sub(begun) < lifetime {
            return None;
        }
    }
    Some("lifetime: the backend or the machine is too slow to tell".to_owned())
}
