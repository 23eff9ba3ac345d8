//! Services and callers over sockets: a database, callers that sign, trusted URLs, and what goes wrong between
//! them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpServer, web};
use ajwt_actix::AuthMiddleware;
use ajwt_axum::AuthLayer;
use ajwt_client::{ClientBuilder, OriginSigner, RequestSigner};
use ajwt_core::{JwkSet, PrivateKey, PublicKey, RsaKeySize, Username};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, Validators};
use ajwt_server::{
    Authenticator, CachedUserRepository, KeyAdmin as _, MemoryRepository, NewKey, TrustedUrl, User,
    UserCacheOptions,
};
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use axum::{Router, extract::Request, http::Uri, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{Scene, corner_cases::CornerCases, keys};

/// Values of headers that a service got.
type Tokens = Arc<Mutex<Vec<String>>>;

pub(crate) async fn run(scene: &mut Scene, root: &Path, cases: &CornerCases) {
    callers(scene).await;
    trusted_urls(scene, root, cases).await;
}

async fn callers(scene: &mut Scene) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("ajwt.db").display());
    let repository = SqliteRepository::connect(&url).await.expect("opened");
    repository.migrate().await.expect("migrated");
    let guido = Username::new("guido").expect("a name");
    repository.add_user(&guido).await.expect("added");
    let rsa = || PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
    let keys = [PrivateKey::generate_ed25519().expect("a key"), rsa()];
    for key in &keys {
        scene.secrets.publish(&key.public_key().to_pem());
        let added = repository.add_key(&guido, &NewKey::of_key(key.public_key().clone())).await;
        scene.outcome(&added);
    }
    // A row in which somebody has put the private half.
    let private = rsa().to_pem().expect("PEM");
    private.lines().filter(|line| !line.starts_with('-')).for_each(|line| scene.secrets.add(line));
    sqlx::query(
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at) VALUES (1, ?, 'none', 0)",
    )
    .bind(private.as_str())
    .execute(repository.pool())
    .await
    .expect("added");
    let listed = repository.keys(&guido).await;
    assert!(listed.as_ref().is_ok_and(|listed| listed.iter().any(|key| key.text == *private)));
    scene.outcome(&listed);
    // A trust, and the note of it, with a token in the URL.
    scene.secrets.add("s3cret-token");
    let url = "https://idp.example/jwks?token=s3cret-token";
    scene.outcome(&repository.add_trust(&guido, url).await);
    let audit = repository.audit(1).await;
    assert!(audit.as_ref().is_ok_and(|audit| audit.iter().any(|record| record.detail.ends_with(url))));
    scene.outcome(&audit);

    let store = Arc::new(repository.clone());
    let users = CachedUserRepository::over(store, UserCacheOptions::default());
    let nonces = SqliteNonceBackend::new(repository.pool().clone());
    nonces.initialise().await.expect("marked");
    let usage = repository.batched_usage();
    let authenticator =
        Authenticator::builder(Arc::new(users), Arc::new(nonces)).usage(Arc::new(usage)).hot_keys(1);
    let authenticator = authenticator.build().expect("an authenticator");
    scene.debug(&authenticator);

    let tokens = Tokens::default();
    let axum = open_axum(authenticator.clone(), &tokens).await;
    let actix = open_actix(authenticator.clone(), &tokens);
    for (key, address) in keys.into_iter().zip([axum, actix]) {
        let origin = format!("http://{address}");
        let signer = RequestSigner::new("guido", key).expect("a signer");
        call(scene, &signer, &origin, &tokens).await;
    }
    authenticator.close().await;
    scene.debug(&repository);
}

async fn call(scene: &mut Scene, signer: &RequestSigner, origin: &str, tokens: &Tokens) {
    let origins = OriginSigner::new(signer.clone(), [origin]).expect("origins");
    scene.debug(&origins);
    let client = ClientBuilder::new(origins).build().expect("a client");
    scene.debug(&client);
    let answer = client.get(origin).send().await;
    assert!(answer.as_ref().is_ok_and(|answer| answer.status() == 200), "{answer:?}");
    scene.outcome(&answer);
    // Where no token may go, and where nobody listens.
    for url in ["https://elsewhere.example/".to_owned(), origin.replace("http:", "https:")] {
        let answer = client.get(url).send().await;
        assert!(answer.is_err());
        scene.outcome(&answer);
    }

    let token = signer.authorization().expect("signed");
    scene.secrets.add(token.to_str().expect("ASCII"));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let authorized = || client.get(origin).header("authorization", token.clone());
    scene.debug(&authorized());
    scene.debug(&authorized().build());
    for due in [200, 401] {
        let answer = authorized().send().await;
        assert!(answer.as_ref().is_ok_and(|answer| answer.status() == due), "{answer:?}");
        scene.outcome(&answer);
    }
    let nobody = client.get("http://127.0.0.1:1/").header("authorization", token.clone());
    scene.outcome(&nobody.send().await);
    for token in tokens.lock().expect("lock").drain(..) {
        scene.secrets.add(&token);
    }
    scene.listen();
}

/// Applications that log what they get, within.
async fn open_axum(authenticator: Authenticator, tokens: &Tokens) -> SocketAddr {
    let tokens = Arc::clone(tokens);
    let handler = async move |request: Request| {
        let values = request.headers().get_all("authorization");
        let values = values.iter().map(|value| value.to_str().expect("ASCII").to_owned());
        tokens.lock().expect("lock").extend(values);
        tracing::trace!(target: "test", headers = ?request.headers(), ?request, "axum");
    };
    let app = Router::new().route("/", get(handler)).layer(AuthLayer::new(authenticator));
    serve(app).await
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn open_actix(authenticator: Authenticator, tokens: &Tokens) -> SocketAddr {
    let tokens = Arc::clone(tokens);
    let factory = move || {
        let tokens = Arc::clone(&tokens);
        let handler = move |request: HttpRequest| {
            let values = request.headers().get_all("authorization");
            let values = values.map(|value| value.to_str().expect("ASCII").to_owned());
            tokens.lock().expect("lock").extend(values);
            tracing::trace!(target: "test", ?request, "actix");
            async { "" }
        };
        App::new().wrap(AuthMiddleware::new(authenticator.clone())).route("/", web::get().to(handler))
    };
    let server = HttpServer::new(factory).workers(1).disable_signals().bind(("127.0.0.1", 0));
    let server = server.expect("a port");
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

/// Sets as endpoints answer them, some with private keys in them.
async fn trusted_urls(scene: &mut Scene, root: &Path, cases: &CornerCases) {
    let before = scene.progress();
    let mut bodies = Vec::new();
    for file in ajwt_vectors::files(&root.join("jwks-docs"), "json") {
        let corpus = ajwt_vectors::json(&file);
        bodies.extend(corpus["cases"].as_array().into_iter().flatten().map(body));
    }
    for body in &bodies {
        private_members(scene, body);
    }
    let of_corpus = bodies.len();
    bodies.extend(cases.documents());
    for body in &bodies {
        scene.outcome(&JwkSet::from_json(body));
        scene.outcome(&PublicKey::from_jwk(body));
    }
    let count = bodies.len();
    // The handler is cloned for each request.
    let bodies: Arc<[Vec<u8>]> = bodies.into();
    let answer = async move |uri: Uri| {
        let number = uri.path().trim_start_matches('/').parse::<usize>().expect("a number");
        bodies[number].clone()
    };
    let address = serve(Router::new().fallback(answer)).await;
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
    let client = client.build().expect("a client");
    scene.debug(&client);
    let mut urls = ["https://guido:s3cret-pass@keys.example/", "http://127.0.0.1:1/?token=s3cret-token"]
        .map(str::to_owned)
        .to_vec();
    scene.secrets.add("s3cret-pass");
    scene.secrets.add("s3cret-token");
    let failing = urls.len();
    urls.extend((0..count).map(|number| format!("http://{address}/{number}")));
    // Of the rest the texts were read above; the cache fetches them, too.
    for url in &urls[..failing + of_corpus] {
        scene.outcome(&client.fetch(url, &Validators::default()).await);
    }

    let trusts = (1..).zip(&urls).map(|(id, url)| TrustedUrl::new(id, url.as_str()));
    let user = User::new("guido").with_jwks_urls(trusts.collect());
    scene.debug(&user);
    let repository = MemoryRepository::new([user]);
    scene.debug(&repository);
    scene.outcome(&repository.trusts(&Username::new("guido").expect("a name")).await);
    let cache = JwksCache::builder(client).warm_up_limit(Duration::from_secs(300)).build();
    let warm = cache.warm_up(&repository).await;
    assert!(warm.as_ref().is_ok_and(|warm| warm.pending == 0), "{warm:?}");
    scene.debug(&cache.snapshot());
    cache.close().await;
    // Not each set holds a secret.
    scene.fed("JWKS documents", of_corpus, false, before);
}

fn body(case: &Value) -> Vec<u8> {
    let mut body = match case["body_base64"].as_str() {
        Some(base64) => BASE64_STANDARD.decode(base64).expect("base64"),
        None => ajwt_vectors::str(case, "body").as_bytes().to_vec(),
    };
    let padded = case["pad_to"].as_u64().map(|len| usize::try_from(len).expect("a length"));
    body.resize(padded.unwrap_or_default().max(body.len()), b' ');
    body
}

/// Also of what is JSON only to those who forgive its encoding.
fn private_members(scene: &mut Scene, body: &[u8]) {
    let plain: Vec<u8> = body.iter().copied().filter(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&plain);
    if let Some(start) = text.find('{')
        && let Some(Ok(document)) =
            serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>().next()
    {
        keys::json(scene, &document);
    }
}
