use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use ajwt_server::{
    AnswerFormat, Authenticator, Checked, Guard, KeyedUser, RejectionBody, RejectionSummary, User,
};
use axum_core::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, Entry},
};
use http_body::Body as HttpBody;
use tower::{BoxError, Layer, Service};

use crate::response;

/// Authenticates every request of the service within.
///
/// By default a request must carry a good token: one without, and one with a bad token, are
/// answered with 401; if a store is down the answer is 503. The service within sees neither. gRPC
/// requests are answered in gRPC: `UNAUTHENTICATED` and `UNAVAILABLE`.
///
/// `OPTIONS` is authenticated like any other method. Where browsers call from another origin, put
/// the CORS layer outside of this one: it answers pre-flight requests, and rejections get its
/// headers.
///
/// Works on `Router::layer`, `Router::route_layer`, `MethodRouter::layer` and any tower service.
/// On a `Router`, `layer` answers 401 on unknown paths, and `route_layer` leaves them 404 for everybody.
///
/// **What is added to a `Router` after the layer is open to everybody, and under `route_layer` its fallback
/// is too.** So put the layer last, and use `layer` where there is a fallback. On a `MethodRouter` likewise:
/// `get(list).layer(auth).post(create)` leaves `POST` open to everybody, and under `route_layer` its `fallback`, and so
/// `any(..)`, is open: use `layer` there.
///
/// **Unknown paths below a nested router go to the outer router's fallback, past the nested one's layer.** Put it in by
/// `nest_service`, and they are checked; or give it a fallback of its own before the layer, and they are but for the
/// path `/api/` of `nest("/api", ..)`. Of two merged routers without fallbacks of their own the argument's answer to
/// unknown paths counts, 401 or 404.
///
/// It is always ready, and waits for the service within once a token is accepted: a limit of concurrent requests, and
/// what sheds load, stand within it.
///
/// It marks the header as sensitive: what is within, and prints headers, prints no token. A layer that
/// logs headers and stands outside of this one must leave out `Authorization` by itself.
#[derive(Debug)]
pub struct AuthLayer<U = User>(Guard<U>);

impl<U: KeyedUser> AuthLayer<U> {
    /// Requires a good token on every request.
    #[must_use]
    pub fn new(authenticator: Authenticator<U>) -> Self {
        Self(Guard::new(authenticator))
    }

    /// Lets requests without a token through as anonymous: `Option<Authenticated>` is `None`
    /// there. A bad token is still answered with 401. Of this and
    /// [`bad_credentials_are_anonymous`](Self::bad_credentials_are_anonymous) the last one counts.
    #[must_use]
    pub fn optional(self) -> Self {
        Self(self.0.optional())
    }

    /// Lets requests with a bad token through as anonymous too, as the Python library's middleware
    /// does. A store that is down is still answered with 503. Of this and [`optional`](Self::optional) the last one
    /// counts.
    #[must_use]
    pub fn bad_credentials_are_anonymous(self) -> Self {
        Self(self.0.bad_credentials_are_anonymous())
    }

    /// Answers every rejection by its status code, gRPC's too. **What answers a proxy's question needs it**:
    /// see [`Guard::http_answers_only`].
    #[must_use]
    pub fn http_answers_only(self) -> Self {
        Self(self.0.http_answers_only())
    }

    /// Rejections have this body: see [`Guard::rejection_body`].
    ///
    /// ```
    /// use ajwt_axum::AuthLayer;
    /// use ajwt_server::{Authenticator, problem_details};
    ///
    /// fn layer(authenticator: Authenticator) -> AuthLayer {
    ///     AuthLayer::new(authenticator).rejection_body(problem_details)
    /// }
    /// ```
    #[must_use]
    pub fn rejection_body(
        self,
        body: impl Fn(RejectionSummary) -> RejectionBody + Send + Sync + 'static,
    ) -> Self {
        Self(self.0.rejection_body(body))
    }

    /// Lets the bodies of rejections say why, which **tells strangers which users exist**: see
    /// [`Guard::insecure_show_reasons`].
    #[must_use]
    pub fn insecure_show_reasons(self) -> Self {
        Self(self.0.insecure_show_reasons())
    }
}

impl<U> Clone for AuthLayer<U> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, U> Layer<S> for AuthLayer<U> {
    type Service = AuthService<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService { inner, guard: self.0.clone() }
    }
}

/// The service that [`AuthLayer`] makes.
#[derive(Debug)]
pub struct AuthService<S, U = User> {
    inner: S,
    guard: Guard<U>,
}

impl<S: Clone, U> Clone for AuthService<S, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: self.guard.clone() }
    }
}

impl<S, U, B, R> Service<Request<B>> for AuthService<S, U>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    U: KeyedUser,
    B: Send + 'static,
    R: HttpBody<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    /// At once: a place in the service within, of a limit for one, is for requests that come to it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut inner = self.inner.clone();
        let guard = self.guard.clone();
        let values = authorization(request.headers_mut());
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let format = AnswerFormat::for_request(request.method().as_str(), content_type);
        let earlier = request.extensions_mut().remove::<Checked<U>>();
        Box::pin(async move {
            let values = values.iter().flatten().map(HeaderValue::as_bytes);
            match guard.check(values, format, earlier).await {
                Ok(checked) => {
                    request.extensions_mut().insert(checked);
                    poll_fn(|context| inner.poll_ready(context)).await?;
                    inner.call(request).await.map(|response| response.map(Body::new))
                }
                Err(answer) => Ok(response::of_answer(answer)),
            }
        })
    }
}

/// The values, which are cheap to clone: the request cannot be borrowed while we wait, for its body need not be Sync. A
/// third one changes nothing. All of them are marked as sensitive: within the layer `Debug` prints no token, of the
/// request or of its headers.
fn authorization(headers: &mut HeaderMap) -> [Option<HeaderValue>; 2] {
    let mut values = [None, None];
    if let Entry::Occupied(mut entry) = headers.entry(AUTHORIZATION) {
        let mut places = values.iter_mut();
        for value in entry.iter_mut() {
            value.set_sensitive(true);
            if let Some(place) = places.next() {
                *place = Some(value.clone());
            }
        }
    }
    values
}
