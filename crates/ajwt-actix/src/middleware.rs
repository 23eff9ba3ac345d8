use std::{
    any::type_name,
    future::{Ready, ready},
    marker::PhantomData,
    pin::Pin,
    rc::Rc,
};

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    body::EitherBody,
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    web,
};
use ajwt_server::{
    Answer, AnswerFormat, Authenticator, Checked, Guard, KeyedUser, RejectionBody, RejectionSummary, User,
};

use crate::response;

/// Authenticates every request of the app, scope or resource within.
///
/// By default a request must carry a good token: one without, and one with a bad token, are
/// answered with 401; if a store is down the answer is 503. The service within sees neither. gRPC
/// requests are answered in gRPC: `UNAUTHENTICATED` and `UNAVAILABLE`.
///
/// Around an `App`, unknown paths are 401 as well; around a scope they are those below it.
///
/// `OPTIONS` is authenticated like any other method. Where browsers call from another origin, wrap
/// the CORS middleware after this one, which puts it outside: it answers pre-flight requests, and
/// rejections get its headers.
///
/// It can be given as `app_data`, for modules that know nothing of the authenticator:
///
/// ```
/// use actix_web::{App, web};
/// use ajwt_actix::AuthMiddleware;
/// use ajwt_server::{Authenticator, User, problem_details};
///
/// fn reports(config: &mut web::ServiceConfig) {
///     config.service(web::scope("/reports").wrap(AuthMiddleware::<User>::from_app_data()));
/// }
///
/// fn factory(authenticator: Authenticator) {
///     App::new()
///         .app_data(AuthMiddleware::new(authenticator).rejection_body(problem_details))
///         .configure(reports);
/// }
/// ```
#[derive(Debug)]
pub struct AuthMiddleware<U = User>(Guard<U>);

impl<U: KeyedUser> AuthMiddleware<U> {
    /// Requires a good token on every request.
    #[must_use]
    pub fn new(authenticator: Authenticator<U>) -> Self {
        Self(Guard::new(authenticator))
    }

    /// The `AuthMiddleware<U>` in the `app_data` of the app, or of a scope within, with its
    /// options. Where there is none, each request is answered with 500 and the log says so.
    ///
    /// **What a module gives to `ServiceConfig::app_data` is that of the whole app, or scope, whose `configure` it is
    /// given to, and takes the place of what was given there before**: give the options of one module to its scope,
    /// `web::scope(..).app_data(..)`.
    #[must_use]
    pub const fn from_app_data() -> AppDataAuthMiddleware<U> {
        AppDataAuthMiddleware(PhantomData)
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

impl<U> Clone for AuthMiddleware<U> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, B, U> Transform<S, ServiceRequest> for AuthMiddleware<U>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
    U: KeyedUser,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = AuthMiddlewareService<S, U>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(AuthMiddlewareService { service: Rc::new(service), guard: Some(self.0.clone()) }))
    }
}

/// The middleware that is in `app_data`: see [`AuthMiddleware::from_app_data`].
#[derive(Debug)]
pub struct AppDataAuthMiddleware<U = User>(PhantomData<fn() -> U>);

impl<U> Clone for AppDataAuthMiddleware<U> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<S, B, U> Transform<S, ServiceRequest> for AppDataAuthMiddleware<U>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
    U: KeyedUser,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = AuthMiddlewareService<S, U>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(AuthMiddlewareService { service: Rc::new(service), guard: None }))
    }
}

/// The service that [`AuthMiddleware`] makes.
#[derive(Debug)]
pub struct AuthMiddlewareService<S, U = User> {
    service: Rc<S>,
    /// `None`: that of the middleware in `app_data`.
    guard: Option<Guard<U>>,
}

impl<S, B, U> Service<ServiceRequest> for AuthMiddlewareService<S, U>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
    U: KeyedUser,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let service = Rc::clone(&self.service);
        let guard = self.guard.clone().or_else(|| in_app_data(&request));
        Box::pin(async move {
            let Some(guard) = guard else {
                return Ok(refuse(request, HttpResponse::InternalServerError().finish()));
            };
            match check(&guard, &request).await {
                Ok(()) => service.call(request).await.map(ServiceResponse::map_into_left_body),
                Err(answer) => Ok(refuse(request, response::of_answer(answer))),
            }
        })
    }
}

/// A response, not an error: most middleware outside, `DefaultHeaders` for one, sees responses only.
fn refuse<B>(request: ServiceRequest, response: HttpResponse) -> ServiceResponse<EitherBody<B>> {
    request.into_response(response).map_into_right_body()
}

/// Leaves with the request what is known of the caller.
async fn check<U: KeyedUser>(guard: &Guard<U>, request: &ServiceRequest) -> Result<(), Answer> {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let values = request.headers().get_all(AUTHORIZATION).map(HeaderValue::as_bytes);
    let earlier = request.extensions_mut().remove::<Checked<U>>();
    let format = AnswerFormat::for_request(request.method().as_str(), content_type);
    let checked = guard.check(values, format, earlier).await?;
    request.extensions_mut().insert(checked);
    Ok(())
}

fn in_app_data<U: KeyedUser>(request: &ServiceRequest) -> Option<Guard<U>> {
    let wrapped = || request.app_data::<web::Data<AuthMiddleware<U>>>().map(|data| &***data);
    let plain = request.app_data::<AuthMiddleware<U>>();
    if plain.is_some() && wrapped().is_some() {
        // Which of them is nearer cannot be told, and the other one may let through whom it does not.
        tracing::error!(
            "there is an AuthMiddleware<{user}> in app_data, and one in web::Data: give all of them one way",
            user = type_name::<U>()
        );
        return None;
    }
    let middleware = plain.or_else(wrapped);
    if middleware.is_none() {
        tracing::error!(
            "there is no AuthMiddleware<{user}> in app_data: add .app_data(AuthMiddleware::new(authenticator)) \
             to the app",
            user = type_name::<U>()
        );
    }
    middleware.map(|middleware| middleware.0.clone())
}
