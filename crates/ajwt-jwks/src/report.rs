//! What operators see of fetches and sets: trace events, counters and gauges. URLs are shown without
//! query and userinfo; what endpoints wrote is escaped and cut.

use std::error::Error;
#[cfg(feature = "metrics")]
use std::{collections::HashMap, mem, time::Duration};

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
    /// What the gauges were set to last, by the URLs that they are labelled with.
    #[cfg(feature = "metrics")]
    told: Mutex<HashMap<Box<str>, Gauges>>,
}

impl Report {
    pub(crate) fn fetched(&self, url: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded { set, is_modified, reports_skips } => {
                if *is_modified {
                    count("fetched");
                    tracing::debug!(
                        url,
                        keys = set.keys.len(),
                        skipped = set.skipped.len(),
                        "fetched a key set"
                    );
                } else {
                    count("not_modified");
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
                count(error.label());
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
        if trusted > 0 {
            tracing::info!(trusted, fetched, failed, pending, "the key sets of trusted URLs were fetched");
        }
    }

    /// All sets that there are. Those whose URLs differ in their query only are shown as one: the worst of them.
    #[cfg(feature = "metrics")]
    pub(crate) fn sets(&self, sets: impl Iterator<Item = SetSnapshot>) {
        let mut gauges = HashMap::<_, Gauges>::new();
        for set in sets {
            let Gauges { age, next_refresh } = gauges.entry(set.url).or_default();
            *age = set.age.max(*age);
            *next_refresh = Some(next_refresh.map_or(set.next_refresh, |least| least.min(set.next_refresh)));
        }
        let told = mem::take(&mut *lock(&self.told));
        for (url, before) in told.iter().filter(|(url, _)| !gauges.contains_key(*url)) {
            Gauges::default().set(url, *before);
        }
        for (url, now) in &gauges {
            now.set(url, told.get(url).copied().unwrap_or_default());
        }
        *lock(&self.told) = gauges;
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

/// What is told of the sets of a URL.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    age: Option<Duration>,
    next_refresh: Option<Duration>,
}

#[cfg(feature = "metrics")]
impl Gauges {
    fn set(self, url: &str, before: Self) {
        for (name, now, before) in [
            ("ajwt_jwks_set_age_seconds", self.age, before.age),
            ("ajwt_jwks_next_refresh_seconds", self.next_refresh, before.next_refresh),
        ] {
            // A gauge keeps its value for as long as it is set to no other: by NaN it is none.
            if now.is_some() || before.is_some() {
                let seconds = now.map_or(f64::NAN, |now| now.as_secs_f64());
                metrics::gauge!(name, "url" => url.to_owned()).set(seconds);
            }
        }
    }
}

#[cfg(feature = "metrics")]
fn count(result: &'static str) {
    metrics::counter!("ajwt_jwks_fetches_total", "result" => result).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str) {}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::collections::BTreeMap;

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
        let sets = [set("a", Some(10), 20), set("a", Some(40), 260), set("a", None, 30), set("b", None, 7)];
        let due = [("set_age a", "40"), ("next_refresh a", "20"), ("next_refresh b", "7")];
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
                ("set_age b", "NaN"),
                ("next_refresh b", "6"),
                ("next_refresh c", "NaN"),
            ],
        );
        assert_sets(&report, &[], &[("next_refresh b", "NaN")]);
        assert_sets(&report, &[], &[]);
    }
}
