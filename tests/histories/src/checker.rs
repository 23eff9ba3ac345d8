//! Judges a history. It knows nothing of how it came about.

mod counts;
mod report;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

pub use self::counts::Counts;
use crate::history::{Answer, Fault, History, Place, Promise, Request, Span};

/// Clocks are read in whole milliseconds, by several processes.
const CLOCK_GRAIN: i64 = 5;

/// How far other servers' clocks may be ahead after a store forgot: `StartRule::Strict`'s default.
const SERVER_SKEW: i64 = 5_000;

/// How long a service may take to work again, on a machine that is busy.
const RECOVERY: i64 = 30_000;

/// Of a hundred requests while all is up so many may find their store too slow, on a busy machine.
const SLOW_PERCENT: usize = 5;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A token works once.
    Once,
    /// A token that was dated well and not used before is not refused (401), whatever is broken.
    GoodIsNotRefused,
    /// While nothing is broken, nothing is 503.
    CalmIsAvailable,
    /// While its server is up, a request is answered.
    Answered,
    /// A token that is dated badly is 401, whatever is broken.
    BadDateIsRefused,
    /// While no nonce can be stored, no token works.
    NoStoreNoAccess,
    /// The answers are 200, 401 and 503.
    KnownAnswer,
    /// What was mended works again by itself.
    Recovers,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Indices of [`History::requests`].
    pub requests: Vec<usize>,
    /// Indices of [`History::faults`].
    pub faults: Vec<usize>,
}

impl Violation {
    fn of(rule: Rule, requests: impl Into<Vec<usize>>) -> Self {
        Self { rule, requests: requests.into(), faults: Vec::new() }
    }

    /// The part of the history that matters.
    #[must_use]
    pub fn in_context<'a>(&'a self, history: &'a History) -> impl fmt::Display + 'a {
        report::InContext { violation: self, history }
    }
}

/// All that does not hold.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let checker = Checker::new(history);
    let mut violations = Vec::new();
    for requests in &checker.by_token {
        checker.once(requests, &mut violations);
        checker.refusals(requests, &mut violations);
    }
    let mut slow = Vec::new();
    for (number, request) in history.requests.iter().enumerate() {
        let mut violation = |rule| violations.push(Violation::of(rule, [number]));
        match request.answer {
            Answer::Status(200 | 401) => {}
            Answer::Status(503) if !checker.is_calm(request) => {}
            Answer::Status(503) if request.span.to - request.span.from >= history.patience => {
                slow.push(number)
            }
            Answer::Status(503) => violation(Rule::CalmIsAvailable),
            Answer::Status(_) => violation(Rule::KnownAnswer),
            Answer::Nothing if checker.may_be_down(request) => {}
            Answer::Nothing => violation(Rule::Answered),
        }
        let is_good = request.answer == Answer::Status(200);
        if checker.is_outside(request) && (is_good || request.answer == Answer::Status(503)) {
            violation(Rule::BadDateIsRefused);
        }
        if is_good && blackouts(history).any(|blackout| blackout.covers(request.span)) {
            violation(Rule::NoStoreNoAccess);
        }
    }
    let calm = history.requests.iter().filter(|request| checker.is_calm(request)).count();
    if slow.len() * 100 > calm * SLOW_PERCENT {
        violations.push(Violation::of(Rule::CalmIsAvailable, slow));
    }
    violations.extend(recoveries(history));
    violations
}

fn blackouts(history: &History) -> impl Iterator<Item = Span> {
    history.faults.iter().filter_map(|fault| fault.blackout)
}

/// Episodes after which service took too long to resume.
fn recoveries(history: &History) -> impl Iterator<Item = Violation> {
    let aheads = || history.clocks.iter().map(|set| set.ahead);
    let spread = aheads().max().unwrap_or_default() - aheads().min().unwrap_or_default();
    let rule = history.tolerance + SERVER_SKEW + spread;
    let mut episodes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, fault) in history.faults.iter().enumerate() {
        episodes.entry(fault.episode).or_default().push(number);
    }
    let is_late = move |numbers: &Vec<usize>| {
        let faults = || numbers.iter().map(|number| &history.faults[*number]);
        let limit = RECOVERY + if faults().any(|fault| fault.forgets) { rule } else { 0 };
        faults().any(|fault| recovery_of(history, fault).is_none_or(|took| took > limit))
    };
    let late = episodes.into_values().filter(is_late);
    late.map(|faults| Violation { rule: Rule::Recovers, requests: Vec::new(), faults })
}

/// How long it took from the last mending of a fault's episode until all worked.
fn recovery_of(history: &History, fault: &Fault) -> Option<i64> {
    let same = history.faults.iter().filter(|other| other.episode == fault.episode);
    let mended = same.map(|other| other.span.to).max()?;
    Some(fault.settled? - mended)
}

/// A history, with its requests by their tokens.
struct Checker<'a> {
    history: &'a History,
    by_token: Vec<Vec<usize>>,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let mut by_token = vec![Vec::new(); history.tokens.len()];
        for (number, request) in history.requests.iter().enumerate() {
            by_token[request.token].push(number);
        }
        Self { history, by_token }
    }

    /// Of the uses of one token at most one is accepted.
    fn once(&self, requests: &[usize], violations: &mut Vec<Violation>) {
        let mut accepted: Vec<usize> =
            requests.iter().copied().filter(|number| self.answer(*number) == Answer::Status(200)).collect();
        accepted.sort_by_key(|number| self.request(*number).span.from);
        for pair in accepted.windows(2) {
            if !self.is_left_open(pair[0], pair[1]) {
                violations.push(Violation::of(Rule::Once, pair));
            }
        }
    }

    /// Whether the promise leaves it open that both were accepted.
    fn is_left_open(&self, earlier: usize, later: usize) -> bool {
        let (earlier, later) = (self.request(earlier), self.request(later));
        let time = self.history.tokens[later.token].time;
        self.history.promise == Promise::OncePerStart
            && self.history.starts.iter().any(|start| {
                // At the earliest its memory began when it was started.
                let began = self.history.clock_of(start.server, start.span).from;
                start.server == later.server
                    && start.span.to >= earlier.span.from
                    && start.span.from <= later.span.to
                    && time >= began.div_euclid(1000)
            })
    }

    /// A refusal of a token that is dated well has its cause: another use that may have counted.
    fn refusals(&self, requests: &[usize], violations: &mut Vec<Violation>) {
        for &number in requests {
            let request = self.request(number);
            if request.answer != Answer::Status(401) || !self.is_inside(request) {
                continue;
            }
            let is_used = requests.iter().any(|&other| {
                let used = self.request(other);
                other != number && used.span.from <= request.span.to && self.may_have_counted(used)
            });
            if !is_used {
                violations.push(Violation::of(Rule::GoodIsNotRefused, [number]));
            }
        }
    }

    fn may_have_counted(&self, request: &Request) -> bool {
        match request.answer {
            Answer::Status(401) => !self.is_inside(request) && !self.is_outside(request),
            _ => !self.is_outside(request),
        }
    }

    /// Whether all that the request needs was up, from before it was sent until it was answered: no
    /// fault was going on or not yet settled, and what was used before one cannot be meant.
    fn is_calm(&self, request: &Request) -> bool {
        let time = self.history.tokens[request.token].time;
        let is_disturbed = |fault: &Fault| {
            let concerns = fault.disturbs_all || fault.place == Place::Server(request.server);
            let until = fault.settled.unwrap_or(i64::MAX);
            let disturbed = Span { from: fault.span.from, to: until }.overlaps(request.span);
            let may_be_forgotten =
                fault.forgets && fault.span.from <= request.span.to && time < fault.good_from;
            concerns && (disturbed || may_be_forgotten)
        };
        !self.history.faults.iter().any(is_disturbed) && !self.is_stalled(request)
    }

    /// Whether the server may have waited in vain for its store.
    fn is_slow(&self, request: &Request) -> bool {
        let took = request.span.to - request.span.from;
        request.answer == Answer::Status(503) && took >= self.history.patience
    }

    fn is_stalled(&self, request: &Request) -> bool {
        self.history.stalls.iter().any(|stall| stall.overlaps(request.span))
    }

    /// Whether its server was broken.
    fn may_be_down(&self, request: &Request) -> bool {
        let is_down =
            |fault: &Fault| fault.place == Place::Server(request.server) && fault.span.overlaps(request.span);
        self.history.faults.iter().any(is_down)
    }

    /// Whether the date is in the window, whenever the server looked.
    fn is_inside(&self, request: &Request) -> bool {
        let (clock, date) = self.clock_and_date(request);
        let tolerance = self.history.tolerance - CLOCK_GRAIN;
        clock.to - date <= tolerance && date - clock.from <= tolerance
    }

    /// Whether the date is out of the window, whenever the server looked.
    fn is_outside(&self, request: &Request) -> bool {
        let (clock, date) = self.clock_and_date(request);
        let tolerance = self.history.tolerance + CLOCK_GRAIN;
        clock.from - date > tolerance || date - clock.to > tolerance
    }

    fn clock_and_date(&self, request: &Request) -> (Span, i64) {
        let clock = self.history.clock_of(request.server, request.span);
        (clock, self.history.tokens[request.token].time * 1000)
    }

    fn request(&self, number: usize) -> &Request {
        &self.history.requests[number]
    }

    fn answer(&self, number: usize) -> Answer {
        self.request(number).answer
    }
}
