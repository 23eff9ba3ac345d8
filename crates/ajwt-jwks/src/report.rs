//! What operators see of fetches and sets: trace events, counters and gauges. URLs are shown without
//! query and userinfo; what endpoints wrote is escaped and cut.

use std::error::Error;

use crate::{FetchError, SetSnapshot, WarmUp, cache::endpoint::Outcome};

#[derive(Debug)]
pub(crate) struct Report;

impl Report {
    pub(crate) fn fetched(&self, url: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Fetched { set, skips_are_new } => {
                count("fetched");
                tracing::debug!(url, keys = set.keys.len(), skipped = set.skipped.len(), "fetched a key set");
                for skipped in set.skipped.iter().filter(|_| *skips_are_new) {
                    let (entry, kid) = (skipped.index, skipped.key_id.as_deref());
                    tracing::warn!(url, entry, kid = ?kid, reason = %skipped.reason, "a key of a set is not used");
                }
            }
            Outcome::NotModified => {
                count("not_modified");
                tracing::debug!(url, "a key set is as it was");
            }
            Outcome::Failed(error) if matches!(**error, FetchError::Closed) => {
                tracing::debug!(url, "a fetch was given up, for the cache is closed");
            }
            Outcome::Failed(error) => {
                count(error.label());
                let (reason, error) = (error.label(), &**error as &dyn Error);
                tracing::warn!(
                    url,
                    reason,
                    error,
                    "a key set was not fetched; the last one stays for an hour"
                );
            }
        }
    }

    pub(crate) fn warm(&self, warm: &WarmUp) {
        let WarmUp { trusted, fetched, failed, pending } = *warm;
        if trusted > 0 {
            tracing::info!(trusted, fetched, failed, pending, "the key sets of trusted URLs were fetched");
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn sets(&self, sets: impl Iterator<Item = SetSnapshot>) {
        for set in sets {
            let gauge = |name| metrics::gauge!(name, "url" => String::from(set.url.clone()));
            if let Some(age) = set.age {
                gauge("ajwt_jwks_set_age_seconds").set(age.as_secs_f64());
            }
            gauge("ajwt_jwks_next_refresh_seconds").set(set.next_refresh.as_secs_f64());
        }
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn sets(&self, _: impl Iterator<Item = SetSnapshot>) {}
}

#[cfg(feature = "metrics")]
fn count(result: &'static str) {
    metrics::counter!("ajwt_jwks_fetches_total", "result" => result).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str) {}
