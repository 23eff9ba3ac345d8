//! How much a history holds.

use std::{collections::BTreeMap, fmt};

use super::Checker;
use crate::history::{Answer, History, Purpose, Span};

/// For so many milliseconds without a store one request in them is due: a fifth of what a driver sends or
/// less, for a machine that is busy.
const BLACKOUT_PER_REQUEST: i64 = 250;

/// How much there is in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different tokens.
    pub tokens: usize,
    /// Requests.
    pub requests: usize,
    /// Requests answered with 200.
    pub accepted: usize,
    /// Requests answered with 401.
    pub refused: usize,
    /// Requests answered with 503.
    pub unavailable: usize,
    /// Requests without an answer.
    pub unanswered: usize,
    /// First uses of tokens that are dated well, while all was up.
    pub calm_first: usize,
    /// Requests while all was up.
    pub calm: usize,
    /// Of these, those answered with 503 since the store was too slow.
    pub calm_slow: usize,
    /// Uses of a token that was sent before.
    pub again: usize,
    /// Uses after one whose outcome is not known: 503, or no answer.
    pub after_unknown: usize,
    /// Uses of a token that is dated badly.
    pub outside: usize,
    /// Requests that began and ended while no nonce could be stored, the badly dated left out.
    pub in_blackout: usize,
    /// How often no nonce could be stored for a while.
    pub blackouts: usize,
    /// How long requests could begin, in all of these whiles, that a server gives up before the end, in
    /// milliseconds.
    pub blackout_time: i64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// The longest that one kind of fault took from its mending until all worked, in milliseconds.
    pub slowest_recovery: BTreeMap<&'static str, i64>,
    /// How long this machine ran too little, in milliseconds.
    pub stalled: i64,
}

impl Counts {
    /// Counts.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let checker = Checker::new(history);
        let mut counts =
            Self { tokens: history.tokens.len(), requests: history.requests.len(), ..Self::default() };
        for request in &history.requests {
            *match request.answer {
                Answer::Status(200) => &mut counts.accepted,
                Answer::Status(401) => &mut counts.refused,
                Answer::Status(_) => &mut counts.unavailable,
                Answer::Nothing => &mut counts.unanswered,
            } += 1;
            let (is_calm, is_outside) = (checker.is_calm(request), checker.is_outside(request));
            counts.calm += usize::from(is_calm);
            counts.calm_slow += usize::from(is_calm && checker.is_slow(request));
            let is_first = request.purpose == Purpose::First && checker.is_inside(request);
            counts.calm_first += usize::from(is_calm && is_first);
            counts.again += usize::from(request.purpose == Purpose::Again);
            counts.outside += usize::from(is_outside);
            let in_blackout = super::blackouts(history).any(|blackout| blackout.covers(request.span));
            counts.in_blackout += usize::from(in_blackout && !is_outside);
            let of_same = || checker.by_token[request.token].iter().map(|number| checker.request(*number));
            let is_unknown = |answer| !matches!(answer, Answer::Status(200 | 401));
            counts.after_unknown += usize::from(
                of_same().any(|other| other.span.to < request.span.from && is_unknown(other.answer)),
            );
        }
        for blackout in super::blackouts(history) {
            counts.blackouts += 1;
            counts.blackout_time += time_in(history, blackout);
        }
        for fault in &history.faults {
            *counts.faults.entry(fault.kind).or_default() += 1;
            let took = super::recovery_of(history, fault).unwrap_or(i64::MAX);
            let slowest = counts.slowest_recovery.entry(fault.kind).or_default();
            *slowest = took.max(*slowest);
        }
        counts.stalled = history.stalls.iter().map(|stall| stall.to - stall.from).sum();
        counts
    }

    /// What there is too little of for a check to say much: a check of nothing finds nothing.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let faults = self.faults.values().sum();
        // Where nothing can be stored each request that is dated well is 503.
        let blacked_out = if self.blackouts == 0 {
            0
        } else {
            usize::try_from(self.blackout_time / BLACKOUT_PER_REQUEST).unwrap_or_default().max(1)
        };
        [
            ("faults", faults, 5),
            ("first uses while all was up", self.calm_first, 50),
            ("uses of used tokens", self.again, 100),
            ("badly dated", self.outside, 20),
            ("acceptances", self.accepted, 50),
            ("uses after an unknown outcome", self.after_unknown, 20),
            ("requests while no nonce could be stored", self.in_blackout, blacked_out),
            ("unavailable", self.unavailable, blacked_out),
        ]
        .into_iter()
        .find(|(_, count, due)| count < due)
        .map(|(what, count, due)| format!("{count} {what}, not {due}"))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, requests, accepted, refused, unavailable, unanswered, .. } = self;
        writeln!(
            f,
            "{tokens} tokens, {requests} requests: {accepted} accepted (200), {refused} refused (401),"
        )?;
        writeln!(f, "  {unavailable} unavailable (503), {unanswered} without an answer")?;
        let Self { calm, calm_first, calm_slow, again, after_unknown, outside, in_blackout, .. } = self;
        writeln!(f, "while all was up: {calm} requests, {calm_first} of them first uses of good tokens;")?;
        writeln!(f, "  {calm_slow} found their store too slow")?;
        writeln!(f, "{again} uses of used tokens, {after_unknown} after an unknown outcome;")?;
        writeln!(f, "  {outside} badly dated, {in_blackout} while no nonce could be stored")?;
        for (kind, count) in &self.faults {
            let recovery = self.slowest_recovery.get(kind).copied().unwrap_or_default();
            writeln!(f, "{count} x {kind}, all worked at most {recovery} ms after")?;
        }
        write!(f, "this machine stalled for {} ms", self.stalled)
    }
}

/// Without what this machine slept of it, and what a server waits for its store.
fn time_in(history: &History, blackout: Span) -> i64 {
    let slept: i64 = history
        .stalls
        .iter()
        .map(|stall| (stall.to.min(blackout.to) - stall.from.max(blackout.from)).max(0))
        .sum();
    (blackout.to - blackout.from - history.patience - slept).max(0)
}
