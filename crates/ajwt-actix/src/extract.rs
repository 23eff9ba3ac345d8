use std::{
    any::type_name,
    future::{Ready, ready},
    ops::Deref,
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError, dev::Payload, http::StatusCode,
};
use ajwt_server::{Answer, Authentication, Checked, KeyedUser, User};
use thiserror::Error;

use crate::response;

/// The authenticated caller, as an argument of a handler.
///
/// `Authenticated` answers an anonymous request with 401; `Option<Authenticated>` is `None` there. There are anonymous
/// requests only under [`AuthMiddleware::optional`](crate::AuthMiddleware::optional), which bring no token, and under
/// [`bad_credentials_are_anonymous`](crate::AuthMiddleware::bad_credentials_are_anonymous),
/// which may bring a bad one. It authenticates nothing by itself: without an
/// [`AuthMiddleware`](crate::AuthMiddleware) of the same user type around its route the answer is 500, and the log says
/// which is missing. actix-web
/// makes that `None` of an `Option`, so everybody is anonymous there.
/// `Result<Authenticated, AuthenticatedRejection>` tells the two apart.
#[derive(Debug)]
pub struct Authenticated<U = User>(Arc<Authentication<U>>);

impl<U> Clone for Authenticated<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> Deref for Authenticated<U> {
    type Target = Authentication<U>;

    fn deref(&self) -> &Authentication<U> {
        &self.0
    }
}

impl<U: KeyedUser> FromRequest for Authenticated<U> {
    type Error = AuthenticatedRejection;
    type Future = Ready<Result<Self, AuthenticatedRejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(of_request(request))
    }
}

fn of_request<U: KeyedUser>(request: &HttpRequest) -> Result<Authenticated<U>, AuthenticatedRejection> {
    let extensions = request.extensions();
    let checked = extensions.get::<Checked<U>>().ok_or_else(|| {
        tracing::error!(
            "a handler takes Authenticated<{user}>, but there is no AuthMiddleware<{user}> around its route: \
             add .wrap(AuthMiddleware::new(authenticator)) to the app, the scope or the resource",
            user = type_name::<U>()
        );
        AuthenticatedRejection::MissingMiddleware
    })?;
    let caller = checked.caller().map(|caller| Authenticated(Arc::clone(caller)));
    caller.ok_or_else(|| AuthenticatedRejection::Anonymous(checked.refusal()))
}

/// Why there is no [`Authenticated`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthenticatedRejection {
    /// The request is anonymous and the handler needs a caller: 401.
    #[error("the request is anonymous")]
    Anonymous(Answer),
    /// No [`AuthMiddleware`](crate::AuthMiddleware) of this user type is around the route: 500.
    #[error("no AuthMiddleware is around the route; wrap the app, the scope or the resource in one")]
    MissingMiddleware,
}

impl ResponseError for AuthenticatedRejection {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Anonymous(answer) => response::of_answer(answer.clone()),
            Self::MissingMiddleware => HttpResponse::InternalServerError().finish(),
        }
    }
}
