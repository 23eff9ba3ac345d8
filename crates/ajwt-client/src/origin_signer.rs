use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ajwt_core::Timestamp;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, DATE},
};
use thiserror::Error;

use crate::{
    OriginError, RequestSigner, SigningError, clock,
    origin::{Origin, Target},
};

/// What servers tolerate unless they say otherwise.
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(20);

/// How far tokens are dated by a server's clock at most, where that is asked for.
const MAX_CORRECTION_MS: u64 = 5 * 60 * 1000;

/// A Date header has whole seconds.
const DATE_STEP_MS: i64 = 1000;

/// Between two warnings about one origin.
const QUIET: Duration = Duration::from_secs(60);

/// Signs requests to certain origins only, and notices when their clocks are apart from ours.
///
/// A request to any other origin is not sent: it is an [`OriginError`]. An `Authorization` header that
/// is there is left alone; so is the one that reqwest makes of `https://user:password@host`. Origins
/// are https, or http on this host (localhost, 127.0.0.0/8, \[::1]). Clones share what is known of the
/// servers' clocks.
///
/// All origins of one signer get tokens of its one [audience](RequestSigner::with_audience), so they are those of one
/// service. Each other service has a signer of its own, with the same keys:
///
/// ```
/// use ajwt_client::{OriginSigner, RequestSigner};
/// # use ajwt_core::PrivateKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = PrivateKey::generate_ed25519()?;
/// let billing = RequestSigner::new("billing", key)?;
/// // Two ways to one service.
/// let orders = billing.clone().with_audience("https://orders.example")?;
/// let orders = OriginSigner::new(orders, ["https://orders.example", "https://orders.internal:8443"])?;
///
/// let stock = billing.with_audience("https://stock.example")?;
/// let stock = OriginSigner::new(stock, ["https://stock.example"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OriginSigner {
    signer: RequestSigner,
    origins: Vec<Arc<Known>>,
    tolerance: Duration,
    follows_clocks: bool,
}

/// An origin, and what is known of its clock.
#[derive(Debug)]
struct Known {
    origin: Origin,
    dating: Mutex<Dating>,
}

/// How an origin's tokens are dated.
#[derive(Debug, Default)]
struct Dating {
    /// Milliseconds that are added to our clock.
    offset_ms: i64,
    proof: Proof,
    /// When it was last said that the clocks are apart.
    warned: Option<Instant>,
}

/// That the offset is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Proof {
    /// No request whose token was dated so was answered yet.
    #[default]
    None,
    /// One was.
    Given,
    /// And one was refused after that.
    Spent,
}

impl OriginSigner {
    /// Signs requests to these origins (`https://host` or `https://host:port`), those of one service.
    ///
    /// # Errors
    /// [`OriginError`] if there is none, or one that no token may go to.
    pub fn new(
        signer: RequestSigner,
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, OriginError> {
        Self::with_origins(signer, origins, Origin::parse)
    }

    /// As [`new`](Self::new), and signs requests over plain http to other hosts too, as in `http://orders:8080`: where
    /// something beneath encrypts what leaves the host, such as the sidecars of a service mesh (Istio, Linkerd), or
    /// where nothing leaves it, as between the containers of one host.
    ///
    /// **Without that, whoever reads the network sees each token, and it works once, for the first who sends it**, with
    /// any body, to any URL of the service, and of all others that trust the key unless it names an
    /// [audience](RequestSigner::with_audience). Nor does http show which server answers. Clocks are
    /// [corrected](Self::with_clock_correction) by servers over https only, here too.
    ///
    /// ```
    /// use ajwt_client::{OriginSigner, RequestSigner};
    /// # use ajwt_core::PrivateKey;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = PrivateKey::generate_ed25519()?;
    /// let signer = RequestSigner::new("billing", key)?.with_audience("https://orders.example")?;
    /// let signer = OriginSigner::insecure_allow_http(signer, ["http://orders:8080"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OriginError`] if there is no origin, or something that is none; never [`OriginError::Insecure`].
    pub fn insecure_allow_http(
        signer: RequestSigner,
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, OriginError> {
        Self::with_origins(signer, origins, Origin::parse_with_http)
    }

    fn with_origins(
        signer: RequestSigner,
        origins: impl IntoIterator<Item = impl AsRef<str>>,
        parse: fn(&str) -> Result<Origin, OriginError>,
    ) -> Result<Self, OriginError> {
        let mut known = Vec::new();
        for origin in origins {
            let origin = parse(origin.as_ref())?;
            known.push(Arc::new(Known { origin, dating: Mutex::default() }));
        }
        if known.is_empty() {
            return Err(OriginError::NoOrigins);
        }
        Ok(Self { signer, origins: known, tolerance: DEFAULT_TOLERANCE, follows_clocks: false })
    }

    /// The servers' tolerance, where it is not 20 s: clocks apart by more than half of it are
    /// reported.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Dates tokens by the server's clock once it refused one and its `Date` header shows that the
    /// clocks are apart: over https, by at most 5 minutes, kept per origin.
    ///
    /// **A server that lies about its time then gets tokens of up to 5 minutes ahead**, which it can
    /// send to other services that trust the key (unless tokens name an audience) while they are
    /// valid. Prefer to set the clocks right.
    #[must_use]
    pub const fn with_clock_correction(mut self) -> Self {
        self.follows_clocks = true;
        self
    }

    /// Signs the headers of one attempt, unless they have an `Authorization` already.
    pub(crate) async fn sign(
        &self,
        target: Option<Target<'_>>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Attempt>, SigningError> {
        // First of all: a URL that others chose may bring an Authorization of its own.
        let target = target.ok_or(OriginError::Relative)?;
        let known = self.origins.iter().find(|known| known.origin.is(&target));
        let known = known.ok_or_else(|| OriginError::NotListed { origin: target.to_string().into() })?;
        if headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        // A clone may have asked for it, and this one not.
        let offset_ms = if self.follows_clocks { known.dating().offset_ms } else { 0 };
        let (now, asked) = (clock::now(), clock::instant());
        let ahead = Timestamp::from_millis(now.as_millis().saturating_add(offset_ms));
        let (value, dated) = self.signer.authorization_in_turn(ahead).await?;
        headers.insert(AUTHORIZATION, value);
        // What a token waited before it was dated says nothing of the clocks.
        let date = now.saturating_add(dated.saturating_duration_since(asked));
        Ok(Some(Attempt { known: Arc::clone(known), date, dated, offset_ms }))
    }

    /// Whether another attempt may follow one that was dated wrongly.
    #[cfg(feature = "middleware")]
    pub(crate) const fn follows_clocks(&self) -> bool {
        self.follows_clocks
    }

    /// Whether the answer to an attempt is a refusal by a server whose clock is apart from ours.
    /// Says so in the log, and dates later tokens by that clock where it may.
    pub(crate) fn clock_skew(
        &self,
        attempt: &Attempt,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<ClockSkewError> {
        let known = &attempt.known;
        if !is_refusal(status, headers) {
            known.prove(attempt);
            return None;
        }
        let Some(date) = date_of(headers) else {
            known.doubt(attempt);
            return None;
        };
        let received = attempt.date.saturating_add(attempt.dated.elapsed());
        let Distance { offset_ms, error_ms } = attempt.measure(date, received);
        let is_beyond = |allowed: Duration| u128::from(error_ms) > allowed.as_millis();
        if !is_beyond(self.tolerance / 2) {
            known.doubt(attempt);
            return None;
        }

        let is_corrected = self.follows_clocks && known.correct(offset_ms);
        let error = ClockSkewError {
            origin: known.origin.to_string().into(),
            offset_ms,
            tolerance: self.tolerance,
            is_corrected,
            is_out_of_window: is_beyond(self.tolerance),
        };
        if known.may_warn(clock::instant()) {
            tracing::warn!(origin = %known.origin, offset_ms, is_corrected, "{error}");
        }
        Some(error)
    }
}

/// A signed attempt that is under way.
#[derive(Debug)]
pub(crate) struct Attempt {
    known: Arc<Known>,
    /// Our clock when its token was dated.
    date: Timestamp,
    dated: Instant,
    /// What its token was dated ahead of our clock.
    offset_ms: i64,
}

impl Attempt {
    /// How far the server's clock is from ours and from the token's date, by the Date that it wrote
    /// at some time while we waited, and rounded down.
    fn measure(&self, date: Timestamp, received: Timestamp) -> Distance {
        let least = date.as_millis().saturating_sub(received.as_millis());
        let most = date.as_millis().saturating_add(DATE_STEP_MS).saturating_sub(self.date.as_millis());
        let offset_ms = least.saturating_add(most.saturating_sub(least) / 2);
        // Of what the offset may have been, that which is nearest to the one the token had.
        let error = self.offset_ms.clamp(least.min(most), most).saturating_sub(self.offset_ms);
        Distance { offset_ms, error_ms: error.unsigned_abs() }
    }
}

/// Milliseconds.
struct Distance {
    /// That the server's clock is ahead of ours, most likely.
    offset_ms: i64,
    /// By which the token was dated wrongly, at least.
    error_ms: u64,
}

/// The server's clock when it answered, if it says.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    httpdate::parse_http_date(date).ok().map(Timestamp::from)
}

/// 401, or in gRPC `UNAUTHENTICATED` in the headers of an answer that has nothing else.
fn is_refusal(status: StatusCode, headers: &HeaderMap) -> bool {
    let grpc_status = || headers.get("grpc-status").map(HeaderValue::as_bytes);
    status == StatusCode::UNAUTHORIZED || (status == StatusCode::OK && grpc_status() == Some(b"16"))
}

impl Known {
    /// A token with this attempt's offset was not refused.
    fn prove(&self, attempt: &Attempt) {
        let mut dating = self.dating();
        // Once spent it is not renewed: an offset by which all else is refused would stay for good.
        if dating.offset_ms == attempt.offset_ms && dating.proof == Proof::None {
            dating.proof = Proof::Given;
        }
    }

    /// A token with this attempt's offset was refused, and the answer's Date does not show that it was dated
    /// wrongly, or there is none.
    fn doubt(&self, attempt: &Attempt) {
        // A proxy may have written the Date, by a clock that is not the one that judges. What proves that the
        // offset is right may have been an answer for which nobody looked at the token: so the proof holds
        // for one refusal, which may be for another reason. An offset that was right after all is measured
        // again.
        let mut dating = self.dating();
        if dating.offset_ms != attempt.offset_ms {
            return;
        }
        match dating.proof {
            Proof::Given => dating.proof = Proof::Spent,
            Proof::None | Proof::Spent => dating.offset_ms = 0,
        }
    }

    /// Dates later tokens by this offset, unless it is too large or the origin is not authenticated.
    /// Returns whether it does.
    fn correct(&self, offset_ms: i64) -> bool {
        let may_have_it = self.origin.is_https() && offset_ms.unsigned_abs() <= MAX_CORRECTION_MS;
        if may_have_it {
            let mut dating = self.dating();
            dating.proof = Proof::None;
            dating.offset_ms = offset_ms;
        }
        may_have_it
    }

    /// Once a minute.
    fn may_warn(&self, now: Instant) -> bool {
        let mut dating = self.dating();
        let is_due = dating.warned.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if is_due {
            dating.warned = Some(now);
        }
        is_due
    }

    fn dating(&self) -> MutexGuard<'_, Dating> {
        // It is whole between any two statements.
        self.dating.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server refused a request with 401, or `UNAUTHENTICATED` of gRPC, and by its `Date` header its
/// clock is apart from ours by more than half of the tolerance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{origin} refused a request, and its clock is {} this host's, of {} s that are tolerated: synchronise both by NTP{}",
    Offset(*offset_ms),
    tolerance.as_secs(),
    if *is_corrected { "; tokens to it are now dated by its clock" } else { "" }
)]
pub struct ClockSkewError {
    origin: Box<str>,
    offset_ms: i64,
    tolerance: Duration,
    is_corrected: bool,
    is_out_of_window: bool,
}

impl ClockSkewError {
    /// The server's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Milliseconds that the server's clock is ahead of this host's; negative, behind it. To about
    /// half a second and the time that the answer took.
    #[must_use]
    pub const fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// Whether later tokens are dated by the server's clock.
    #[must_use]
    pub const fn is_corrected(&self) -> bool {
        self.is_corrected
    }

    /// Whether the token was dated further away than is tolerated, so that it cannot have been accepted:
    /// nothing was carried out. Else who answered 401 may have done some of the work.
    #[must_use]
    pub const fn is_out_of_window(&self) -> bool {
        self.is_out_of_window
    }
}

/// Milliseconds, as in "12.3 s ahead of".
struct Offset(i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.unsigned_abs() / 100;
        let direction = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{}.{} s {direction}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Arc<Known> {
        let origin = Origin::parse("https://orders.example").expect("an origin");
        Arc::new(Known { origin, dating: Mutex::default() })
    }

    #[test]
    fn a_clock_is_measured_by_what_the_date_allows() {
        // A token of the tenth second, which was answered by the twelfth.
        let (signed, received) = (Timestamp::from_secs(10), Timestamp::from_secs(12));
        for (date, ahead_ms, due) in [
            (20, 0, (9_500, 8_000)),
            (20, 9_000, (9_500, 0)),
            (20, 12_000, (9_500, 1_000)),
            (10, 0, (-500, 0)),
            (0, 0, (-10_500, 9_000)),
        ] {
            let attempt =
                Attempt { known: known(), date: signed, dated: clock::instant(), offset_ms: ahead_ms };
            let found = attempt.measure(Timestamp::from_secs(date), received);
            assert_eq!((found.offset_ms, found.error_ms), due, "{date} {ahead_ms}");
        }
    }

    #[test]
    fn what_is_told_of_a_clock() {
        let told = |offset_ms, is_corrected| {
            let origin = "https://orders.example".into();
            let tolerance = DEFAULT_TOLERANCE;
            ClockSkewError { origin, offset_ms, tolerance, is_corrected, is_out_of_window: false }.to_string()
        };
        assert_eq!(
            told(12_345, false),
            "https://orders.example refused a request, and its clock is 12.3 s ahead of this host's, of 20 s that are \
             tolerated: synchronise both by NTP"
        );
        assert_eq!(
            told(-10_950, true),
            "https://orders.example refused a request, and its clock is 10.9 s behind this host's, of 20 s that are \
             tolerated: synchronise both by NTP; tokens to it are now dated by its clock"
        );
    }

    #[test]
    fn it_is_told_again_after_a_minute() {
        let (known, start) = (known(), clock::instant());
        let told =
            [0, 1, 59, 60, 61, 119, 120].map(|second| known.may_warn(start + Duration::from_secs(second)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
