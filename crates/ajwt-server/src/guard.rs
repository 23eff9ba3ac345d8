use std::{fmt, sync::Arc};

use crate::{
    Answer, AnswerFormat, Authentication, Authenticator, KeyedUser, Reason, RejectionBody, RejectionKind,
    RejectionSummary, User,
    rejection_body::{self, BodyWriter},
};

/// What every adapter does with a request, whichever its framework: asks the authenticator, decides
/// who passes as anonymous, and has the answers for the others. Cheap to clone.
///
/// An adapter of your own for another framework needs nothing else:
///
/// ```
/// use ajwt_server::{Answer, AnswerFormat, Checked, Guard};
///
/// # struct Request { method: String, headers: Vec<(String, Vec<u8>)> }
/// /// Call it before the handler: what it returns goes with the request, or back to the peer.
/// async fn before(guard: &Guard, request: &Request) -> Result<Checked, Answer> {
///     let named = |name: &'static str| {
///         let headers = request.headers.iter().filter(move |header| header.0.eq_ignore_ascii_case(name));
///         headers.map(|header| header.1.as_slice())
///     };
///     let format = AnswerFormat::for_request(&request.method, named("content-type").next());
///     guard.check(named("authorization"), format, None).await
/// }
/// ```
pub struct Guard<U = User>(Arc<Settings<U>>);

struct Settings<U> {
    authenticator: Authenticator<U>,
    anonymous: Anonymous,
    body: Arc<BodyWriter>,
    shows_reasons: bool,
    http_only: bool,
    answers: Answers,
}

/// Who passes as anonymous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anonymous {
    Nobody,
    WithoutCredentials,
    WithoutGoodCredentials,
}

/// The answers in HTTP, made once: rejections cannot differ by what the body's writer does meanwhile.
#[derive(Clone)]
struct Answers {
    unauthorized: Answer,
    unavailable: Answer,
    /// Empty unless reasons are shown.
    by_reason: Vec<(Reason, Answer)>,
}

impl<U: KeyedUser> Guard<U> {
    /// Requires a good token on every request.
    #[must_use]
    pub fn new(authenticator: Authenticator<U>) -> Self {
        let body: Arc<BodyWriter> = Arc::new(rejection_body::terse);
        let answers = Answers::new(&authenticator, &*body, false);
        Self(Arc::new(Settings {
            authenticator,
            anonymous: Anonymous::Nobody,
            body,
            shows_reasons: false,
            http_only: false,
            answers,
        }))
    }

    /// Lets requests without a token through as anonymous. A bad token is still answered with 401. Of this and
    /// [`bad_credentials_are_anonymous`](Self::bad_credentials_are_anonymous) the last one counts.
    #[must_use]
    pub fn optional(self) -> Self {
        self.with(|settings| settings.anonymous = Anonymous::WithoutCredentials)
    }

    /// Lets requests with a bad token through as anonymous too, as the Python library's middleware
    /// does. A store that is down is still answered with 503. Of this and [`optional`](Self::optional) the last one
    /// counts.
    #[must_use]
    pub fn bad_credentials_are_anonymous(self) -> Self {
        self.with(|settings| settings.anonymous = Anonymous::WithoutGoodCredentials)
    }

    /// Answers every rejection by its status code, 401 or 503, whatever the request asks for. **A service
    /// that answers a proxy's question** (`auth_request` of nginx, `forward_auth` of Caddy and Traefik, Envoy's
    /// `ext_authz`) **needs it**: such a proxy passes the client's `Content-Type` on and takes each 2xx for yes,
    /// and gRPC's rejections are 200.
    #[must_use]
    pub fn http_answers_only(self) -> Self {
        self.with(|settings| settings.http_only = true)
    }

    /// Rejections have this body; [`problem_details`](crate::problem_details) is one. Default: one
    /// line of text. It is called now, once for each status, so that all rejections look the same;
    /// gRPC's have no body.
    #[must_use]
    pub fn rejection_body(
        self,
        body: impl Fn(RejectionSummary) -> RejectionBody + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| {
            settings.body = Arc::new(body);
            settings.write_answers();
        })
    }

    /// Lets the bodies of rejections say why. **Strangers then learn which users exist**, and what
    /// to try next: for development, and for services that nobody but their callers can reach.
    #[must_use]
    pub fn insecure_show_reasons(self) -> Self {
        self.with(|settings| {
            settings.shows_reasons = true;
            settings.write_answers();
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Settings<U>)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Checks a request by the values of all its `Authorization` headers, in order, as they came.
    ///
    /// `earlier` is what a guard further out has left with the request: where that is of the same
    /// authenticator and has a caller, the token is used up and the caller stays the same. **One of another
    /// authenticator has used it up for this one too**, where both have one nonce store: guards of different
    /// authenticators stand side by side, around routes of their own, and not within one another.
    ///
    /// # Errors
    /// The answer for the peer. The service must not see the request.
    pub async fn check<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
        format: AnswerFormat,
        earlier: Option<Checked<U>>,
    ) -> Result<Checked<U>, Answer> {
        let settings = &*self.0;
        let another_has_accepted = match earlier.filter(|earlier| earlier.caller.is_ok()) {
            Some(earlier) if earlier.guard.0.authenticator.is_clone_of(&settings.authenticator) => {
                return Ok(earlier);
            }
            another => another.is_some(),
        };
        let format = if settings.http_only { AnswerFormat::Http } else { format };
        let authenticated = settings.authenticator.authenticate(authorization).await;
        if another_has_accepted
            && matches!(&authenticated, Err(rejection) if rejection.reason() == Reason::Replayed)
        {
            settings.authenticator.tell_of_guard_within_another();
        }
        let caller = match authenticated {
            Ok(authentication) => Ok(Arc::new(authentication)),
            Err(rejection) if self.is_anonymous(rejection.kind()) => Err(rejection.reason()),
            Err(rejection) => return Err(self.answer(rejection.reason(), format)),
        };
        Ok(Checked { guard: self.clone(), format, caller })
    }

    fn is_anonymous(&self, kind: RejectionKind) -> bool {
        match (self.0.anonymous, kind) {
            (
                Anonymous::WithoutCredentials | Anonymous::WithoutGoodCredentials,
                RejectionKind::NoCredentials,
            )
            | (Anonymous::WithoutGoodCredentials, RejectionKind::Refused) => true,
            (_, RejectionKind::NoCredentials | RejectionKind::Refused | RejectionKind::Unavailable) => false,
        }
    }

    fn answer(&self, reason: Reason, format: AnswerFormat) -> Answer {
        match format {
            AnswerFormat::Http => self.0.answers.to(reason).clone(),
            AnswerFormat::Grpc => Answer::to_grpc_rejection(reason.kind()),
        }
    }
}

impl<U: KeyedUser> Settings<U> {
    fn write_answers(&mut self) {
        self.answers = Answers::new(&self.authenticator, &*self.body, self.shows_reasons);
    }
}

impl<U> Clone for Guard<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> Clone for Settings<U> {
    fn clone(&self) -> Self {
        Self {
            authenticator: self.authenticator.clone(),
            anonymous: self.anonymous,
            body: Arc::clone(&self.body),
            shows_reasons: self.shows_reasons,
            http_only: self.http_only,
            answers: self.answers.clone(),
        }
    }
}

impl<U> fmt::Debug for Guard<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("authenticator", &self.0.authenticator)
            .field("anonymous", &self.0.anonymous)
            .field("shows_reasons", &self.0.shows_reasons)
            .field("http_only", &self.0.http_only)
            .finish_non_exhaustive()
    }
}

impl Answers {
    fn new<U: KeyedUser>(authenticator: &Authenticator<U>, body: &BodyWriter, shows_reasons: bool) -> Self {
        let answer = |kind, reason| {
            let body = body(RejectionSummary::new(kind, reason));
            Answer::to_rejection(kind, authenticator.scheme(), body)
        };
        let reasons = Reason::ALL.iter().copied().filter(|_| shows_reasons);
        Self {
            unauthorized: answer(RejectionKind::Refused, None),
            unavailable: answer(RejectionKind::Unavailable, None),
            by_reason: reasons.map(|reason| (reason, answer(reason.kind(), Some(reason)))).collect(),
        }
    }

    fn to(&self, reason: Reason) -> &Answer {
        let told = self.by_reason.iter().find(|(told, _)| *told == reason);
        told.map(|(_, answer)| answer).unwrap_or_else(|| match reason.kind() {
            RejectionKind::NoCredentials | RejectionKind::Refused => &self.unauthorized,
            RejectionKind::Unavailable => &self.unavailable,
        })
    }
}

/// A request that has passed a [`Guard`]: what adapters leave with it for handlers.
pub struct Checked<U = User> {
    guard: Guard<U>,
    format: AnswerFormat,
    /// Or why it is anonymous.
    caller: Result<Arc<Authentication<U>>, Reason>,
}

impl<U: KeyedUser> Checked<U> {
    /// Who called; `None` is an anonymous caller.
    #[must_use]
    pub const fn caller(&self) -> Option<&Arc<Authentication<U>>> {
        match &self.caller {
            Ok(caller) => Some(caller),
            Err(_) => None,
        }
    }

    /// What to answer an anonymous caller of a handler that needs one: what the guard would have, if it let nobody pass
    /// as anonymous.
    #[must_use]
    pub fn refusal(&self) -> Answer {
        let reason = self.caller.as_ref().err().copied().unwrap_or(Reason::NoCredentials);
        self.guard.answer(reason, self.format)
    }
}

impl<U> Clone for Checked<U> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), format: self.format, caller: self.caller.clone() }
    }
}

impl<U: fmt::Debug> fmt::Debug for Checked<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("caller", &self.caller).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InsecureNoReplayProtection, MemoryRepository};

    #[test]
    fn the_answer_is_the_same_for_all_reasons_of_a_kind() {
        let users = Arc::new(MemoryRepository::new([]));
        let builder = Authenticator::builder(users, Arc::new(InsecureNoReplayProtection)).scheme("Ajwt+x");
        let guard = Guard::new(builder.build().expect("an authenticator"));
        let mut failures = Vec::new();
        for &reason in Reason::ALL {
            let answer = guard.answer(reason, AnswerFormat::Http);
            let due = match reason.kind() {
                RejectionKind::NoCredentials | RejectionKind::Refused => {
                    (401, Some("Ajwt+x"), "unauthorized\n")
                }
                RejectionKind::Unavailable => (503, None, "service unavailable\n"),
            };
            let mut headers: Vec<_> = answer.headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let challenge = headers.pop_if(|(name, _)| *name == "www-authenticate").map(|(_, value)| value);
            assert_eq!(headers, [("content-type", "text/plain; charset=utf-8")], "{reason}");
            if (answer.status, challenge, &*answer.body) != due {
                failures.push(format!("{reason}: {answer:?}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
