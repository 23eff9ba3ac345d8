//! What operators see of fetches and sets: trace events, counters and gauges. URLs are shown without
//! query and userinfo; what endpoints wrote is escaped and cut.

use std::error::Error;
#[cfg(feature = "metrics")]
use std::{
    collections::{HashMap, HashSet},
    mem,
};

use ajwt_core::SkippedJwk;

#[cfg(feature = "metrics")]
use crate::sync::{Mutex, lock};
use crate::{
    FetchError, SetSnapshot, WarmUp,
    cache::endpoint::{LastSet, Outcome},
};

/// Entries of a set that are named: an endpoint may write a hundred.
const NAMED: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The URLs that gauges were set for last.
    #[cfg(feature = "metrics")]
    told: Mutex<HashSet<Box<str>>>,
}

impl Report {
    /// All counters are there from the start: one that comes with its first event has not grown, to whoever looks at
    /// how they do.
    pub(crate) fn new() -> Self {
        for result in ["fetched", "not_modified"].into_iter().chain(FetchError::LABELS) {
            count(result, 0);
        }
        Self::default()
    }

    pub(crate) fn fetched(&self, url: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded { set, is_modified, reports_skips } => {
                if *is_modified {
                    count("fetched", 1);
                    tracing::debug!(
                        url,
                        keys = set.keys.len(),
                        skipped = set.skipped.len(),
                        "fetched a key set"
                    );
                } else {
                    count("not_modified", 1);
                    tracing::debug!(url, "a key set is as it was");
                }
                if *reports_skips {
                    skipped(url, &set.skipped);
                }
            }
            Outcome::Failed { error, .. } if matches!(**error, FetchError::Closed) => {
                tracing::debug!(url, "a fetch was given up, for the cache is closed");
            }
            Outcome::Failed { error, last } => {
                count(error.label(), 1);
                let (reason, error) = (error.label(), &**error as &dyn Error);
                match last {
                    LastSet::Trusted => tracing::warn!(
                        url,
                        reason,
                        error,
                        "a key set was not fetched; the last one stays until it is an hour old"
                    ),
                    // What worked before does so no longer.
                    LastSet::TooOld => tracing::error!(
                        url,
                        reason,
                        error,
                        "a key set was not fetched; the last one is more than an hour old and is not \
                         used: tokens by its keys are refused"
                    ),
                    LastSet::Missing => tracing::warn!(
                        url,
                        reason,
                        error,
                        "a key set was not fetched; there is none yet: tokens by its keys are refused"
                    ),
                }
            }
        }
    }

    pub(crate) fn warm(&self, warm: &WarmUp) {
        let WarmUp { trusted, fetched, failed, pending } = *warm;
        if failed > 0 || pending > 0 {
            tracing::warn!(
                trusted,
                fetched,
                failed,
                pending,
                "not all key sets of trusted URLs were fetched: until they are, tokens by their keys are refused"
            );
        } else if trusted > 0 {
            tracing::info!(trusted, fetched, failed, pending, "the key sets of trusted URLs were fetched");
        }
    }

    /// All sets that there are. Those whose URLs differ in their query only are shown as one: the worst of them.
    #[cfg(feature = "metrics")]
    pub(crate) fn sets(&self, sets: impl Iterator<Item = SetSnapshot>) {
        let mut gauges = HashMap::<_, Gauges>::new();
        for set in sets {
            let now = Gauges::of(&set);
            gauges.entry(set.url).and_modify(|worst| *worst = worst.or_worse(now)).or_insert(now);
        }
        let told = mem::replace(&mut *lock(&self.told), gauges.keys().cloned().collect());
        for url in told.iter().filter(|url| !gauges.contains_key(*url)) {
            Gauges::NONE.set(url);
        }
        for (url, now) in &gauges {
            now.set(url);
        }
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn sets(&self, _: impl Iterator<Item = SetSnapshot>) {}
}

fn skipped(url: &str, skipped: &[SkippedJwk]) {
    for skipped in skipped.iter().take(NAMED) {
        let (entry, kid) = (skipped.index, skipped.key_id.as_deref());
        tracing::warn!(url, entry, kid = ?kid, reason = %skipped.reason, "a key of a set is not used");
    }
    let more = skipped.len().saturating_sub(NAMED);
    if more > 0 {
        tracing::warn!(url, "and {more} more keys of the set are not used");
    }
}

/// What is told of the sets of a URL, in seconds.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug)]
struct Gauges {
    age: f64,
    next_refresh: f64,
}

#[cfg(feature = "metrics")]
impl Gauges {
    /// A gauge keeps its value for as long as it is set to no other: by NaN it is none.
    const NONE: Self = Self { age: f64::NAN, next_refresh: f64::NAN };

    /// A set that this process has never fetched has an age, too: an alert does not hear what is not there.
    fn of(set: &SetSnapshot) -> Self {
        let age = set.age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        Self { age, next_refresh: set.next_refresh.as_secs_f64() }
    }

    fn or_worse(self, other: Self) -> Self {
        Self { age: self.age.max(other.age), next_refresh: self.next_refresh.min(other.next_refresh) }
    }

    fn set(self, url: &str) {
        metrics::gauge!("ajwt_jwks_set_age_seconds", "url" => url.to_owned()).set(self.age);
        metrics::gauge!("ajwt_jwks_next_refresh_seconds", "url" => url.to_owned()).set(self.next_refresh);
    }
}

#[cfg(feature = "metrics")]
fn count(result: &'static str, fetches: u64) {
    metrics::counter!("ajwt_jwks_fetches_total", "result" => result).increment(fetches);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str, _: u64) {}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn set(url: &str, age: Option<u64>, next_refresh: u64) -> SetSnapshot {
        SetSnapshot {
            url: url.into(),
            keys: 1,
            skipped: 0,
            age: age.map(Duration::from_secs),
            is_trusted: age.is_some(),
            next_refresh: Duration::from_secs(next_refresh),
            failures: 0,
            last_error: None,
        }
    }

    /// What a report on these sets sets gauges to.
    #[track_caller]
    fn assert_sets(report: &Report, sets: &[SetSnapshot], due: &[(&str, &str)]) {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || report.sets(sets.iter().cloned()));
        let gauges = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let url = key.key().labels().next().expect("a label").value().to_owned();
            let DebugValue::Gauge(value) = value else { panic!("{value:?}") };
            let name = key.key().name().trim_start_matches("ajwt_jwks_").trim_end_matches("_seconds");
            (format!("{name} {url}"), value.to_string())
        });
        let due = due.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(gauges.collect::<BTreeMap<_, _>>(), due.collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn sets_that_look_alike_are_told_as_one_by_the_worst_of_them() {
        let sets =
            [set("a", Some(10), 20), set("a", Some(40), 260), set("b", Some(5), 30), set("b", None, 7)];
        let due =
            [("set_age a", "40"), ("next_refresh a", "20"), ("set_age b", "inf"), ("next_refresh b", "7")];
        assert_sets(&Report::default(), &sets, &due);
        let mut turned = sets;
        turned.reverse();
        assert_sets(&Report::default(), &turned, &due);
    }

    #[test]
    fn what_is_gone_is_told_once() {
        let report = Report::default();
        let sets = [set("a", Some(1), 2), set("b", Some(3), 4), set("c", None, 5)];
        report.sets(sets.into_iter());
        // It was dropped, and came back.
        assert_sets(
            &report,
            &[set("b", None, 6)],
            &[
                ("set_age a", "NaN"),
                ("next_refresh a", "NaN"),
                ("set_age b", "inf"),
                ("next_refresh b", "6"),
                ("set_age c", "NaN"),
                ("next_refresh c", "NaN"),
            ],
        );
        assert_sets(&report, &[], &[("set_age b", "NaN"), ("next_refresh b", "NaN")]);
        assert_sets(&report, &[], &[]);
    }
}
