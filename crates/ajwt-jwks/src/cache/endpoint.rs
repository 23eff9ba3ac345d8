use std::time::Duration;

use tokio::sync::watch;

use super::{
    Asker,
    key_set::{KeySet, MAX_AGE, TrustedKeys, is_trusted},
    snapshot::SetSnapshot,
};
use crate::{
    FetchError, JwksResponse, Validators,
    shown_url::shown_url,
    sync::{Arc, Mutex, lock},
};

/// Between two fetches of a URL, at least.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// When a set is refreshed whose endpoint does not say.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);

/// The longest that an endpoint may say.
const MAX_REFRESH_AFTER: Duration = Duration::from_secs(30 * 60);

/// So long after a set was sent the next fetch asks for it whole. It comes within the hour, as one that is due
/// then, but not for all in the same second.
const SENT_AGAIN_AFTER: Duration = Duration::from_secs(54 * 60);

/// The longest pause after failures.
const MAX_BACK_OFF: Duration = Duration::from_secs(5 * 60);

/// Between two reports on entries of a set that are not used: an endpoint may change them with each fetch.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// A trusted URL and what is known of it. Times are of the monotonic clock.
pub(crate) struct Endpoint {
    pub(super) url: Box<str>,
    /// Without query and userinfo.
    pub(super) shown_url: Box<str>,
    /// Whoever holds it may lock the cache's map; whoever holds the map does not wait for it.
    state: Mutex<State>,
    attempts: watch::Sender<u64>,
}

struct Current {
    set: Arc<KeySet>,
    /// When the last fetch that succeeded began.
    succeeded_at: Duration,
    /// When the last one began that the set was sent to. Others were told that it is the same.
    sent_at: Duration,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    progress: Progress,
    /// Whether the set is asked for whole, as somebody needs what may have been added to it.
    is_asked_for_whole: bool,
    /// When the last fetch began.
    began_at: Option<Duration>,
    /// When the next is due by the timer.
    due_at: Duration,
    /// When the first request came that waits for the first fetch; once the cool-down has passed, anew.
    waited_from: Option<Duration>,
    /// In a row.
    failures: u32,
    last_error: Option<Arc<FetchError>>,
    /// Whether other entries are not used than when they were reported.
    has_new_skips: bool,
    skips_reported_at: Option<Duration>,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// There is none.
    #[default]
    None,
    /// It waits for others of its kind.
    Waiting,
    Begun,
}

/// What a demand for a fetch comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// The caller begins it.
    Begin,
    /// One waits for others of its kind.
    Waiting,
    /// One has begun.
    UnderWay,
    /// The timer will, once the cool-down is over.
    Later,
}

/// How the last fetches went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// There was none.
    New,
    /// The last one succeeded, or the one before it, whose set is trusted still: one failure says little.
    Well,
    Failing,
}

/// What a fetch came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is a set. `is_modified`: it was sent, if perhaps the same as before; else it is the one from
    /// before (304). `reports_skips`: its entries that are not used are to be reported.
    Succeeded {
        set: Arc<KeySet>,
        is_modified: bool,
        reports_skips: bool,
    },
    Failed {
        error: Arc<FetchError>,
        last: LastSet,
    },
}

/// The set that is there when a fetch has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastSet {
    /// No fetch of this URL succeeded since it is known.
    Missing,
    /// It is used until it is an hour old.
    Trusted,
    /// Its keys are refused.
    TooOld,
}

impl Endpoint {
    /// Due at once.
    pub(super) fn new(url: &str, now: Duration) -> Self {
        let state = State { due_at: now, ..State::default() };
        Self {
            url: url.into(),
            shown_url: shown_url(url),
            state: Mutex::new(state),
            attempts: watch::Sender::new(0),
        }
    }

    /// Whether a fetch is under way. Does not wait: whoever holds the state may be about to begin one.
    pub(super) fn is_busy(&self) -> bool {
        self.state.try_lock().map_or(true, |state| state.progress != Progress::None)
    }

    /// Whether there is a set that is trusted. `None`: no fetch has ended yet.
    pub(super) fn has_set(&self, now: Duration) -> Option<bool> {
        let ended = *self.attempts.borrow() > 0;
        ended.then(|| lock(&self.state).has_set(now))
    }

    /// Changes with each fetch that ends from now on.
    pub(super) fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// Somebody needs the set as it is now.
    pub(super) fn demand(&self, now: Duration, asker: Asker) -> Demand {
        let mut state = lock(&self.state);
        // A request misses a key: who answers that nothing has changed may not know of it.
        state.is_asked_for_whole |= matches!(asker, Asker::Request);
        match state.progress {
            Progress::None => {}
            Progress::Waiting => return Demand::Waiting,
            Progress::Begun => return Demand::UnderWay,
        }
        let allowed_at = state.began_at.map(|began_at| began_at.saturating_add(COOL_DOWN));
        match allowed_at.filter(|allowed_at| now < *allowed_at) {
            None => {
                state.progress = Progress::Waiting;
                Demand::Begin
            }
            Some(allowed_at) => {
                state.due_at = state.due_at.min(allowed_at);
                Demand::Later
            }
        }
    }

    /// Whether a request that comes now waits for the first fetch, which may stand behind others for minutes.
    /// The first such request does, and so do those that come within the `deadline` after it. No other does until
    /// [`COOL_DOWN`] has passed since it came, whether the fetch has begun by then or not: the next one is a
    /// first again.
    pub(super) fn lets_wait(&self, now: Duration, deadline: Duration) -> bool {
        let mut state = lock(&self.state);
        match state.waited_from.map(|from| now.saturating_sub(from)) {
            Some(passed) if passed < COOL_DOWN => passed < deadline,
            _ => {
                state.waited_from = Some(now);
                true
            }
        }
    }

    /// Whether a fetch is due by the timer. If so, it is taken to be under way.
    pub(super) fn take_due(&self, now: Duration) -> bool {
        let mut state = lock(&self.state);
        let is_due = state.progress == Progress::None && state.due_at <= now;
        if is_due {
            state.progress = Progress::Waiting;
        }
        is_due
    }

    /// The fetch need not wait any more: it begins as soon as it runs.
    pub(super) fn take_turn(&self) {
        lock(&self.state).progress = Progress::Begun;
    }

    pub(super) fn health(&self, now: Duration) -> Health {
        let state = lock(&self.state);
        match state.failures {
            0 if state.current.is_none() => Health::New,
            0 => Health::Well,
            1 if state.has_set(now) => Health::Well,
            _ => Health::Failing,
        }
    }

    /// The fetch begins: what to ask with. By no validators the set is sent whole, as it is to be where a key is
    /// missed, and once an hour. For a server's validators may not change with the set, as those of files of equal
    /// length whose times are fixed: by them a key that was removed would be trusted for ever.
    pub(super) fn begin(&self, now: Duration) -> Validators {
        let mut state = lock(&self.state);
        state.progress = Progress::Begun;
        state.began_at = Some(now);
        let is_recent = |current: &&Current| now.saturating_sub(current.sent_at) < SENT_AGAIN_AFTER;
        let known = state.current.as_ref().filter(is_recent).filter(|_| !state.is_asked_for_whole);
        known.map(|current| current.set.validators.clone()).unwrap_or_default()
    }

    /// The fetch has ended. `jitter` is within 0 and 1; `publish` shows requests what they may use now.
    pub(super) fn end(
        &self,
        result: Result<JwksResponse, FetchError>,
        now: Duration,
        jitter: f64,
        publish: impl FnOnce(TrustedKeys),
    ) -> Outcome {
        let outcome = self.apply(result, now, jitter, publish);
        self.attempts.send_modify(|attempts| *attempts = attempts.wrapping_add(1));
        outcome
    }

    fn apply(
        &self,
        result: Result<JwksResponse, FetchError>,
        now: Duration,
        jitter: f64,
        publish: impl FnOnce(TrustedKeys),
    ) -> Outcome {
        let mut state = lock(&self.state);
        state.progress = Progress::None;
        let began_at = state.began_at.unwrap_or(now);
        let (set, sent_at, fresh_for) = match (result, &state.current) {
            (Ok(JwksResponse { set: Some(set), validators, fresh_for }), _) => {
                (Arc::new(KeySet::new(&set, validators)), began_at, fresh_for)
            }
            (Ok(JwksResponse { set: None, fresh_for, .. }), Some(current)) => {
                (Arc::clone(&current.set), current.sent_at, fresh_for)
            }
            (Ok(JwksResponse { set: None, .. }), None) => {
                return state.fail(FetchError::NotModified, now, jitter);
            }
            (Err(error), _) => return state.fail(error, now, jitter),
        };
        let reports_skips = state.report_skips(&set, now);
        let is_modified = state.current.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.set, &set));
        // While the state is held: nobody may find a fetch ended whose keys are not there.
        publish(TrustedKeys::of(&set, began_at));
        state.current = Some(Current { set: Arc::clone(&set), succeeded_at: began_at, sent_at });
        // Somebody may have missed a key while it was asked whether anything has changed.
        state.is_asked_for_whole &= !is_modified;
        state.failures = 0;
        state.last_error = None;
        // No later than when the set is to be sent anew.
        let at_most = sent_at.saturating_add(MAX_AGE).saturating_sub(began_at);
        let pause = match state.is_asked_for_whole {
            true => COOL_DOWN,
            false => refresh_after(fresh_for, at_most, jitter),
        };
        state.due_at = began_at.saturating_add(pause);
        Outcome::Succeeded { set, is_modified, reports_skips }
    }

    pub(super) fn snapshot(&self, now: Duration) -> SetSnapshot {
        let state = lock(&self.state);
        let current = state.current.as_ref();
        SetSnapshot {
            url: self.shown_url.clone(),
            keys: current.map_or(0, |current| current.set.keys.len()),
            skipped: current.map_or(0, |current| current.set.skipped.len()),
            age: current.map(|current| now.saturating_sub(current.succeeded_at)),
            is_trusted: state.has_set(now),
            next_refresh: state.due_at.saturating_sub(now),
            failures: state.failures,
            last_error: state.last_error.clone(),
        }
    }
}

impl State {
    /// Whether there is a set that is trusted.
    fn has_set(&self, now: Duration) -> bool {
        self.current.as_ref().is_some_and(|current| is_trusted(current.succeeded_at, now))
    }

    /// The fetch that has ended brought no set.
    fn fail(&mut self, error: FetchError, now: Duration, jitter: f64) -> Outcome {
        let error = Arc::new(error);
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(Arc::clone(&error));
        self.due_at = now.saturating_add(back_off(self.failures, jitter));
        let last = match &self.current {
            None => LastSet::Missing,
            Some(_) if self.has_set(now) => LastSet::Trusted,
            Some(_) => LastSet::TooOld,
        };
        Outcome::Failed { error, last }
    }

    /// Whether the entries of a set that are not used are to be reported, and if so, that they are. The current set
    /// is still the one before.
    fn report_skips(&mut self, set: &KeySet, now: Duration) -> bool {
        let skipped_before =
            self.current.as_ref().map(|current| current.set.skipped.as_slice()).unwrap_or_default();
        self.has_new_skips |= skipped_before != set.skipped.as_slice();
        // Where there are none any more, that is nothing to report.
        self.has_new_skips &= !set.skipped.is_empty();
        let is_time = self.skips_reported_at.is_none_or(|at| now.saturating_sub(at) >= QUIET);
        let is_due = self.has_new_skips && is_time;
        if is_due {
            self.has_new_skips = false;
            self.skips_reported_at = Some(now);
        }
        is_due
    }
}

/// How long after a fetch that succeeded the next one is due: as the endpoint says, and no later than `at_most`. Up to
/// a tenth sooner, so that what was fetched at once, by the processes of a service as by one of them, does not come
/// back as one.
fn refresh_after(fresh_for: Option<Duration>, at_most: Duration, jitter: f64) -> Duration {
    let due = fresh_for.unwrap_or(REFRESH_AFTER).clamp(COOL_DOWN, MAX_REFRESH_AFTER).min(at_most);
    due.mul_f64(1.0 - 0.1 * jitter.clamp(0.0, 1.0)).max(COOL_DOWN)
}

/// 30 s, twice as long after each failure, at most 5 min; up to a quarter more, so that the processes
/// of a service do not come back as one.
fn back_off(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let pause = COOL_DOWN.saturating_mul(1 << doublings).min(MAX_BACK_OFF);
    pause.mul_f64(1.0 + 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use ajwt_core::JwkSet;
    use http::{HeaderMap, HeaderValue, header::ETAG};

    use super::*;

    #[test]
    fn a_url_is_fetched_again_after_thirty_seconds_and_no_sooner() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        let demand = |at| endpoint.demand(Duration::from_millis(at), Asker::Request);
        assert_eq!(demand(0), Demand::Begin);
        endpoint.begin(Duration::ZERO);
        endpoint.end(Err(FetchError::NotModified), Duration::ZERO, 0.0, |_| {});
        assert_eq!(demand(29_999), Demand::Later);
        assert_eq!(demand(30_000), Demand::Begin);
    }

    #[test]
    fn a_set_is_asked_for_whole_once_an_hour_and_where_a_key_is_missed() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        let etag = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"1\""))]);
        let validators = Validators::of_response(&etag);
        // Wherever it can, the endpoint says that nothing has changed.
        let is_whole = |at| {
            let now = Duration::from_secs(at);
            let is_whole = endpoint.begin(now).is_empty();
            let set = is_whole.then(|| JwkSet::of_keys([]));
            let fresh_for = Some(MAX_REFRESH_AFTER);
            let response = JwksResponse { set, validators: validators.clone(), fresh_for };
            endpoint.end(Ok(response), now, 0.0, |_| {});
            is_whole
        };
        let next_refresh = |at| endpoint.snapshot(Duration::from_secs(at)).next_refresh.as_secs();
        for (at, due, next) in [
            (0, true, 1800),
            (1800, false, 1800),
            (3000, false, 600),
            (3239, false, 361),
            (3240, true, 1800),
            (6479, false, 361),
            (6480, true, 1800),
        ] {
            assert_eq!((is_whole(at), next_refresh(at)), (due, next), "{at}");
        }

        let demand = |at, asker| endpoint.demand(Duration::from_secs(at), asker);
        assert_eq!(demand(7300, Asker::WarmUp), Demand::Begin);
        assert_eq!(demand(7300, Asker::WarmUp), Demand::Waiting);
        assert!(!is_whole(7300));
        assert_eq!(demand(7310, Asker::Request), Demand::Later);
        assert!(is_whole(7330));
        assert_eq!(demand(7400, Asker::WarmUp), Demand::Begin);
        assert_eq!(demand(7400, Asker::Request), Demand::Waiting);
        // Until it is there.
        assert!(endpoint.begin(Duration::from_secs(7400)).is_empty());
        let error = Err(FetchError::Status { found: 500 });
        endpoint.end(error, Duration::from_secs(7400), 0.0, |_| {});
        assert!(is_whole(7430) && !is_whole(7460));
        // One that is missed while it is asked whether anything has changed.
        assert!(!endpoint.begin(Duration::from_secs(7500)).is_empty());
        assert_eq!(demand(7500, Asker::Request), Demand::UnderWay);
        let response = JwksResponse { set: None, validators: validators.clone(), fresh_for: None };
        endpoint.end(Ok(response), Duration::from_secs(7500), 0.0, |_| {});
        assert_eq!(next_refresh(7500), 30);
        assert!(is_whole(7530) && !is_whole(7560));
    }

    #[test]
    fn requests_wait_for_the_first_fetch_within_a_deadline_in_each_cool_down() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        for (at, waits) in [
            (7_000, true),
            (7_000, true),
            (11_999, true),
            (12_000, false),
            (36_999, false),
            (37_000, true),
            (41_999, true),
            (42_000, false),
            (66_999, false),
            (100_000, true),
            (104_999, true),
            (105_000, false),
        ] {
            let found = endpoint.lets_wait(Duration::from_millis(at), Duration::from_secs(5));
            assert_eq!(found, waits, "{at}");
        }
    }

    /// By it a fetch waits for those of its kind only.
    #[test]
    fn health_is_that_of_the_last_fetches() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        let health = |at| endpoint.health(Duration::from_secs(at));
        assert_eq!(health(0), Health::New);
        let end = |result| drop(endpoint.end(result, Duration::ZERO, 0.0, |_| {}));
        end(Err(FetchError::NotModified));
        assert_eq!(health(0), Health::Failing);
        let succeed = || {
            let set = Some(JwkSet::of_keys([]));
            end(Ok(JwksResponse { set, validators: Validators::default(), fresh_for: None }));
        };
        succeed();
        assert_eq!((health(0), health(3600)), (Health::Well, Health::Well));
        // One failure counts where nothing else is there.
        end(Err(FetchError::NotModified));
        assert_eq!((health(3599), health(3600)), (Health::Well, Health::Failing));
        end(Err(FetchError::NotModified));
        assert_eq!(health(0), Health::Failing);
        succeed();
        assert_eq!(health(0), Health::Well);
    }

    #[test]
    fn a_set_that_was_sent_is_told_from_one_that_is_as_it_was() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        for was_sent in [true, false, true, false] {
            let set = was_sent.then(|| JwkSet::of_keys([]));
            let response = JwksResponse { set, validators: Validators::default(), fresh_for: None };
            let outcome = endpoint.end(Ok(response), Duration::ZERO, 0.0, |_| {});
            assert!(matches!(outcome, Outcome::Succeeded { is_modified, .. } if is_modified == was_sent));
        }
    }

    /// What comes too soon is reported later, if it is still there, whether or not the set is fetched anew.
    #[test]
    fn skipped_entries_are_reported_when_they_change_and_not_too_often() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        let odd = |key_id: &str| {
            let document = format!(r#"{{"keys":[{{"kid":"{key_id}","kty":"EC"}}]}}"#);
            Some(JwkSet::from_json(document).expect("a set"))
        };
        let good = || Some(JwkSet::of_keys([]));
        for (at, set, is_due) in [
            (0, odd("a"), true),
            (60, odd("b"), false),
            (299, None, false),
            (300, None, true),
            (900, None, false),
            (960, odd("b"), false),
            (1000, odd("c"), true),
            (1030, odd("d"), false),
            (1060, good(), false),
            (1400, good(), false),
            (1430, odd("d"), true),
        ] {
            let response = JwksResponse { set, validators: Validators::default(), fresh_for: None };
            let is_reported = match endpoint.end(Ok(response), Duration::from_secs(at), 0.0, |_| {}) {
                Outcome::Succeeded { reports_skips, .. } => reports_skips,
                Outcome::Failed { error, .. } => panic!("{error}"),
            };
            assert_eq!(is_reported, is_due, "{at}");
        }
    }

    #[test]
    fn a_refresh_comes_up_to_a_tenth_sooner_but_not_within_the_cool_down() {
        let endpoint = Endpoint::new("https://a.example", Duration::ZERO);
        for (fresh_for, jitter, due) in [
            (None, 0.0, 300),
            (None, 1.0, 270),
            (Some(1), 1.0, 30),
            (Some(33), 1.0, 30),
            (Some(40), 1.0, 36),
            (Some(2000), 0.5, 1710),
        ] {
            let (set, fresh_for) = (Some(JwkSet::of_keys([])), fresh_for.map(Duration::from_secs));
            let response = JwksResponse { set, validators: Validators::default(), fresh_for };
            endpoint.end(Ok(response), Duration::ZERO, jitter, |_| {});
            let found = endpoint.snapshot(Duration::ZERO).next_refresh;
            assert_eq!(found, Duration::from_secs(due), "{fresh_for:?} {jitter}");
        }
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_a_quarter() {
        for (failures, due) in [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (u32::MAX, 300)] {
            let due = Duration::from_secs(due);
            assert_eq!(back_off(failures, 0.0), due, "{failures}");
            assert_eq!(back_off(failures, 1.0), due.mul_f64(1.25), "{failures}");
        }
    }
}
