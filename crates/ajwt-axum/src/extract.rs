use std::{any::type_name, ops::Deref, sync::Arc};

use ajwt_server::{Answer, Authentication, Checked, KeyedUser, User};
use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{Extensions, StatusCode, request::Parts};
use thiserror::Error;

use crate::response;

/// The authenticated caller, as an argument of a handler.
///
/// `Authenticated` answers an anonymous request with 401; `Option<Authenticated>` is `None` there. There are anonymous
/// requests only under [`AuthLayer::optional`](crate::AuthLayer::optional), which bring no token, and under
/// [`bad_credentials_are_anonymous`](crate::AuthLayer::bad_credentials_are_anonymous), which may bring a bad one.
/// Without an [`AuthLayer`](crate::AuthLayer) of the same user type both answer 500 and log which layer is missing.
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

impl<U: KeyedUser> Authenticated<U> {
    /// The caller of a request that came through an [`AuthLayer`](crate::AuthLayer), by the
    /// request's extensions: for services that have no extractors, as plain hyper and tonic.
    ///
    /// # Errors
    /// [`AuthenticatedRejection`], of which a missing layer is logged.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, AuthenticatedRejection> {
        let checked = checked::<U>(extensions)?;
        let caller = checked.caller().map(|caller| Self(Arc::clone(caller)));
        caller.ok_or_else(|| AuthenticatedRejection::Anonymous(checked.refusal()))
    }
}

impl<U: KeyedUser, S: Sync> FromRequestParts<S> for Authenticated<U> {
    type Rejection = AuthenticatedRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthenticatedRejection> {
        Self::from_extensions(&parts.extensions)
    }
}

impl<U: KeyedUser, S: Sync> OptionalFromRequestParts<S> for Authenticated<U> {
    type Rejection = AuthenticatedRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, AuthenticatedRejection> {
        Ok(checked::<U>(&parts.extensions)?.caller().cloned().map(Self))
    }
}

fn checked<U: KeyedUser>(extensions: &Extensions) -> Result<&Checked<U>, AuthenticatedRejection> {
    extensions.get().ok_or_else(|| {
        tracing::error!(
            "a handler takes Authenticated<{user}>, but there is no AuthLayer<{user}> around its route: \
             add .layer(AuthLayer::new(authenticator)) to the router",
            user = type_name::<U>()
        );
        AuthenticatedRejection::MissingLayer
    })
}

/// Why there is no [`Authenticated`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthenticatedRejection {
    /// The request is anonymous and the handler needs a caller: 401.
    #[error("the request is anonymous")]
    Anonymous(Answer),
    /// No [`AuthLayer`](crate::AuthLayer) of this user type is around the route: 500.
    #[error("no AuthLayer is around the route; add .layer(AuthLayer::new(authenticator)) to the router")]
    MissingLayer,
}

impl IntoResponse for AuthenticatedRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Anonymous(answer) => response::of_answer(answer),
            Self::MissingLayer => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
