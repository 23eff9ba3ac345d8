//! What an observer can learn from how long a refusal takes: two kinds of users, asked for in random turns
//! over HTTP, and whether their times differ.
//!
//! After dudect (Reparaz, Balasch, Verbauwhede 2017): Welch's t over all times and over those below several
//! percentiles, for a busy machine's times have a long tail. One connection, one request at a time, so that
//! nothing but the machine's noise is in the way: more than an observer across a network has.

mod observer;
mod service;
mod statistics;

use self::{
    observer::{Class, Form, Observer},
    service::Kind,
};
pub(crate) use self::{
    service::authenticator,
    statistics::{Comparison, Difference},
};
use crate::{callers::ed25519, http::Service, report::Report};

/// The service as in the README: each request reads the store.
pub(crate) const READING: &str = "timing";

/// The same with a cache of users.
pub(crate) const CACHING: &str = "timing, cached";

/// As the first, with refusals that take whole quanta of time.
pub(crate) const HELD_BACK: &str = "timing, held back";

/// Requests of each kind, unless `AJWT_TIMING_SAMPLES` says otherwise.
const SAMPLES: usize = 20_000;

/// What is told apart, or not, and by which tokens.
type Pair = (&'static str, Form, Kind, &'static str, Kind);

const READ: &[Pair] = &[
    ("unknown", Form::Ed25519, Kind::Unknown, "unknown, other names", Kind::UnknownToo),
    ("known", Form::Ed25519, Kind::Known, "unknown", Kind::Unknown),
    ("known", Form::Rsa2048, Kind::Rsa, "unknown", Kind::Unknown),
    ("active", Form::Ed25519, Kind::Known, "inactive", Kind::Inactive),
    ("with a key", Form::Ed25519, Kind::Known, "without keys", Kind::Keyless),
    ("Ed25519 user", Form::Ed25519, Kind::Known, "RSA user", Kind::Rsa),
    ("Ed25519 user", Form::Rsa2048, Kind::Known, "RSA user", Kind::Rsa),
    ("trusts a URL", Form::Ed25519, Kind::Trusting, "trusts none", Kind::Keyless),
    ("32 keys", Form::Ed25519, Kind::ManyKeys, "1 key", Kind::Known),
];

const CACHED: &[Pair] = &[
    ("unknown", Form::Ed25519, Kind::Unknown, "unknown, other names", Kind::UnknownToo),
    ("known", Form::Ed25519, Kind::Known, "unknown", Kind::Unknown),
    ("active", Form::Ed25519, Kind::Known, "inactive", Kind::Inactive),
    ("with a key", Form::Ed25519, Kind::Known, "without keys", Kind::Keyless),
    ("in the cache", Form::Ed25519, Kind::Known, "dropped from it", Kind::Dropped),
    ("met before", Form::Ed25519, Kind::Known, "met for the first time", Kind::Once),
];

const HELD: &[Pair] = &[
    ("unknown", Form::Ed25519, Kind::Unknown, "unknown, other names", Kind::UnknownToo),
    ("known", Form::Ed25519, Kind::Known, "unknown", Kind::Unknown),
    ("32 keys", Form::Ed25519, Kind::ManyKeys, "1 key", Kind::Known),
];

pub(crate) fn run(report: &mut Report) {
    let samples = std::env::var("AJWT_TIMING_SAMPLES").map_or(SAMPLES, |samples| {
        samples.parse().unwrap_or_else(|_| panic!("AJWT_TIMING_SAMPLES={samples} is no number"))
    });
    let variants = [(READING, "reading", READ), (CACHING, "cached", CACHED), (HELD_BACK, "held back", HELD)];
    for (variant, told, pairs) in variants {
        let service = Service::start(variant, &ed25519());
        let mut observer = Observer::new(service.port());
        for (one, form, one_kind, other, other_kind) in pairs {
            let classes = [one_kind, other_kind].map(|kind| Class { kind: *kind, form: *form });
            let what = format!("{told}, {form:?} tokens: {one}");
            report.comparison(&what, other, &observer.compare(classes, samples));
        }
        // That a difference would be seen: four checks by RSA-2048 beside four by Ed25519.
        let classes = [Form::Ed25519, Form::Rsa2048].map(|form| Class { kind: Kind::Unknown, form });
        let what = format!("{told}, control: Ed25519 token");
        report.comparison(&what, "RSA-2048 token", &observer.compare(classes, samples));
    }
}
