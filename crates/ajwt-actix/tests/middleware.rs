//! The middleware and the extractor, as services of actix-web. Over real sockets they are tested
//! beside the other adapters, in `tests/end-to-end`.

use std::sync::Arc;

use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header::AUTHORIZATION,
    middleware::DefaultHeaders,
    test, web,
};
use ajwt_actix::{AuthMiddleware, Authenticated, AuthenticatedRejection};
use ajwt_server::{
    Authenticator, Found, Freshness, InsecureNoReplayProtection, KeyedUser, MemoryNonceBackend,
    RejectionBody, RepositoryError, StoredKey, TrustedUrl, User, UserRepository, problem_details,
    testing::TestSigner,
};
use ajwt_test_support::{Level, Log};
use async_trait::async_trait;

async fn required(caller: Authenticated) -> String {
    format!("hello, {}", caller.user().username())
}

async fn optional(caller: Option<Authenticated>) -> String {
    caller
        .map_or_else(|| "hello, stranger".to_owned(), |caller| format!("hello, {}", caller.user().username()))
}

async fn either(caller: Result<Authenticated, AuthenticatedRejection>) -> String {
    match caller {
        Ok(caller) => format!("hello, {}", caller.user().username()),
        Err(rejection) => rejection.to_string(),
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/required", web::get().to(required))
        .route("/optional", web::get().to(optional))
        .route("/either", web::get().to(either));
}

struct Response {
    status: u16,
    challenge: Option<String>,
    content_type: Option<String>,
    body: String,
}

/// Sends one request to a new instance of the app.
async fn get<F, B>(app: App<F>, path: &str, authorization: &[&str]) -> Response
where
    F: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let app = test::init_service(app).await;
    let mut request = test::TestRequest::with_uri(path);
    for value in authorization {
        request = request.append_header((AUTHORIZATION, *value));
    }
    let response = test::call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).map(|value| value.to_str().expect("ascii").to_owned());
    let (challenge, content_type) = (header("www-authenticate"), header("content-type"));
    let body = test::try_read_body(response).await.ok().expect("a body");
    Response { status, challenge, content_type, body: String::from_utf8(body.to_vec()).expect("text") }
}

async fn get_text<F, B>(app: App<F>, path: &str, authorization: &[&str]) -> (u16, String)
where
    F: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let response = get(app, path, authorization).await;
    (response.status, response.body)
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

fn unauthorized() -> (u16, String) {
    (401, "unauthorized\n".to_owned())
}

#[actix_web::test]
async fn a_good_token_is_required_and_works_once() {
    let signer = TestSigner::new("guido");
    let middleware = AuthMiddleware::new(signer.authenticator());
    let app = || App::new().wrap(middleware.clone()).configure(routes);
    for path in ["/required", "/optional", "/either"] {
        let token = signer.authorization();
        assert_eq!(get_text(app(), path, &[&token]).await, ok("hello, guido"), "{path}");
        for bad in [&[][..], &[&*token], &["JWT abc"], &[&*signer.authorization(), &*signer.authorization()]]
        {
            let response = get(app(), path, bad).await;
            assert_eq!(response.challenge.as_deref(), Some("JWT"), "{path} {bad:?}");
            assert_eq!((response.status, response.body), unauthorized(), "{path} {bad:?}");
        }
    }
    // Where the anonymous pass, a handler can tell why there is no caller.
    let app = App::new().wrap(middleware.optional()).configure(routes);
    assert_eq!(get_text(app, "/either", &[]).await, ok("the request is anonymous"));
}

#[actix_web::test]
async fn a_rejection_is_a_response_to_middleware_outside() {
    let signer = TestSigner::new("guido");
    let headers = DefaultHeaders::new().add(("x-outside", "seen"));
    let app = App::new().wrap(AuthMiddleware::new(signer.authenticator())).wrap(headers).configure(routes);
    let app = test::init_service(app).await;
    let response = test::call_service(&app, test::TestRequest::with_uri("/required").to_request()).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers().get("x-outside").expect("the header"), "seen");
}

#[actix_web::test]
async fn a_scope_or_a_resource_alone_can_be_guarded() {
    let signer = TestSigner::new("guido");
    let middleware = AuthMiddleware::new(signer.authenticator());
    let app = || {
        App::new()
            .service(web::scope("/scope").wrap(middleware.clone()).configure(routes))
            .service(web::resource("/resource").wrap(middleware.clone()).to(required))
            .route("/free", web::get().to(|| async { "free" }))
    };
    for path in ["/free", "/scope/required", "/resource"] {
        let free = path == "/free";
        let due = if free { ok("free") } else { unauthorized() };
        assert_eq!(get_text(app(), path, &[]).await, due);
        let due = ok(if free { "free" } else { "hello, guido" });
        assert_eq!(get_text(app(), path, &[&signer.authorization()]).await, due);
    }
    assert_eq!(get(app(), "/nowhere", &[]).await.status, 404);
    assert_eq!(get(app(), "/scope/nowhere", &[]).await.status, 401);
}

#[actix_web::test]
async fn a_token_is_used_up_once_under_two_middlewares_of_one_authenticator() {
    let signer = TestSigner::new("guido");
    let one = signer.authenticator();
    let (inner, outer) = (AuthMiddleware::new(one.clone()), AuthMiddleware::new(one.clone()).optional());
    // The middleware wrapped last is outside.
    let app = || App::new().wrap(inner.clone()).wrap(outer.clone()).configure(routes);
    assert_eq!(get_text(app(), "/required", &[&signer.authorization()]).await, ok("hello, guido"));
    // What the outer one let through as anonymous, the inner one still refuses.
    assert_eq!(get_text(app(), "/optional", &[]).await, unauthorized());
    // Another authenticator judges for itself, and here it knows nobody.
    let nobody = TestSigner::new("guido").authenticator_with(InsecureNoReplayProtection);
    let app = App::new().wrap(AuthMiddleware::new(nobody)).wrap(AuthMiddleware::new(one)).configure(routes);
    assert_eq!(get_text(app, "/required", &[&signer.authorization()]).await, unauthorized());
}

#[actix_web::test]
async fn a_body_may_be_of_any_media_type() {
    for media_type in ["application/vnd.api+json", r#"application/problem+json; profile="a b""#] {
        let body = move |_| RejectionBody::new(media_type, "{}").expect("a media type");
        let middleware = AuthMiddleware::new(TestSigner::new("guido").authenticator()).rejection_body(body);
        let response = get(App::new().wrap(middleware).configure(routes), "/required", &[]).await;
        assert_eq!(response.content_type.as_deref(), Some(media_type));
        assert_eq!((response.status, &*response.body), (401, "{}"));
    }
}

#[actix_web::test]
async fn the_middleware_can_be_given_as_app_data() {
    let signer = TestSigner::new("guido");
    let middleware = AuthMiddleware::new(signer.authenticator()).rejection_body(problem_details);
    let problem = (401, r#"{"type":"about:blank","title":"Unauthorized","status":401}"#.to_owned());
    let module = |config: &mut web::ServiceConfig| {
        config.service(web::scope("/m").wrap(AuthMiddleware::<User>::from_app_data()).configure(routes));
    };
    let plain = || App::new().app_data(middleware.clone()).configure(module);
    assert_eq!(get_text(plain(), "/m/required", &[&signer.authorization()]).await, ok("hello, guido"));
    assert_eq!(get_text(plain(), "/m/optional", &[]).await, problem);
    let shared = App::new().app_data(web::Data::new(middleware.clone())).configure(module);
    assert_eq!(get_text(shared, "/m/optional", &[]).await, problem);
    // That of a scope comes before that of the app.
    let inner = middleware.clone().optional();
    let scoped = || {
        App::new().app_data(middleware.clone()).service(
            web::scope("/s")
                .app_data(inner.clone())
                .wrap(AuthMiddleware::<User>::from_app_data())
                .configure(routes),
        )
    };
    assert_eq!(get_text(scoped(), "/s/optional", &[]).await, ok("hello, stranger"));
    assert_eq!(get_text(scoped(), "/s/required", &[]).await, problem);
    // What a module gives is that of the scope which it is given to, and of nothing else.
    let gives = |config: &mut web::ServiceConfig| {
        config.app_data(middleware.clone()).configure(module);
    };
    let lenient = || {
        let app = App::new().app_data(middleware.clone().optional());
        app.service(web::scope("/given").configure(gives)).configure(module)
    };
    assert_eq!(get_text(lenient(), "/given/m/optional", &[]).await, problem);
    assert_eq!(get_text(lenient(), "/m/optional", &[]).await, ok("hello, stranger"));
}

/// Which of the two is nearer cannot be told: nobody passes, rather than those whom the other one lets through.
#[actix_web::test]
async fn app_data_given_in_two_ways_lets_nobody_pass() {
    let signer = TestSigner::new("guido");
    let strict = AuthMiddleware::new(signer.authenticator());
    let app = App::new().app_data(strict.clone().optional()).service(
        web::scope("/s")
            .app_data(web::Data::new(strict))
            .wrap(AuthMiddleware::<User>::from_app_data())
            .configure(routes),
    );
    assert_eq!(get_text(app, "/s/optional", &[]).await.0, 500);
}

/// An application's own user type.
#[derive(Debug)]
struct Account {
    email: String,
    plan: &'static str,
    keys: Vec<StoredKey>,
}

impl KeyedUser for Account {
    fn username(&self) -> &str {
        &self.email
    }

    fn is_active(&self) -> bool {
        true
    }

    fn keys(&self) -> &[StoredKey] {
        &self.keys
    }

    fn jwks_urls(&self) -> &[TrustedUrl] {
        &[]
    }
}

#[derive(Debug)]
struct Accounts(Arc<Account>);

#[async_trait]
impl UserRepository for Accounts {
    type User = Account;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<Account>>, RepositoryError> {
        Ok((username == self.0.email).then(|| Found::current(Arc::clone(&self.0))))
    }
}

#[actix_web::test]
async fn an_application_brings_its_own_user_type() {
    let signer = TestSigner::new("a@b.example");
    let account = Account { email: "a@b.example".into(), plan: "gold", keys: signer.user().keys().to_vec() };
    let accounts = Arc::new(Accounts(Arc::new(account)));
    let authenticator = Authenticator::builder(accounts, Arc::new(MemoryNonceBackend::default())).build();
    let handler = |caller: Authenticated<Account>| async move {
        format!("{} {} {}", caller.user().plan, caller.token().username(), caller.key().key_id().len())
    };
    let middleware = AuthMiddleware::new(authenticator.expect("an authenticator"));
    let app = App::new().wrap(middleware).route("/", web::get().to(handler));
    assert_eq!(get_text(app, "/", &[&signer.authorization()]).await, ok("gold a@b.example 64"));
}

#[actix_web::test]
async fn a_missing_middleware_is_500_and_the_log_names_it() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let signer = TestSigner::new("guido");
    let authorization = signer.authorization();
    let app = || App::new().configure(routes);
    assert_eq!(get(app(), "/required", &[&authorization]).await.status, 500);
    let told = get_text(app(), "/either", &[&authorization]).await.1;
    assert!(told.contains("no AuthMiddleware is around the route"), "{told}");
    // Nobody is taken for a caller, and actix-web makes nothing else of an `Option`.
    assert_eq!(get_text(app(), "/optional", &[&authorization]).await, ok("hello, stranger"));
    // A middleware of another user type is not the one.
    let handler = |_: Authenticated<Account>| async { "" };
    let app = App::new().wrap(AuthMiddleware::new(signer.authenticator())).route("/", web::get().to(handler));
    assert_eq!(get(app, "/", &[&authorization]).await.status, 500);
    // Nor is there one in app_data.
    let app = App::new().wrap(AuthMiddleware::<User>::from_app_data()).configure(routes);
    assert_eq!(get(app, "/optional", &[]).await.status, 500);
    assert_eq!(log.lines("ERROR ajwt_actix").len(), 5, "{}", log.text());
    let log = log.text();
    assert!(log.contains("AuthMiddleware<ajwt_server::user::User> around its route"), "{log}");
    assert!(log.contains("Account>"), "{log}");
    assert!(log.contains("no AuthMiddleware<ajwt_server::user::User> in app_data"), "{log}");
}
