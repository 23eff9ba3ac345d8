//! Many requests at once, and keys that are rotated under them.

#[path = "support/server.rs"]
mod server;

use std::{
    collections::HashSet,
    fs::{self, File},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use ajwt_axum::{AuthLayer, Authenticated, JwksService};
use ajwt_client::{ClientBuilder, KeyFile, KeyWatch, OriginSigner, RequestSigner};
use ajwt_core::{JwkSet, PublicKey, Validation};
use ajwt_server::{Authenticator, MemoryNonceBackend, User};
use axum::{Router, routing::get};
use server::{ed25519, serve, serve_http2, signer, users};
use tokio::{sync::Barrier, task::JoinSet, time::timeout};

const REQUESTS: usize = 10_000;

/// None is answered before all have been accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_accepted_with_as_many_nonces() {
    let signer = signer(ed25519());
    let nonces = Arc::new(Mutex::new(HashSet::new()));
    let (noted, all_are_here) = (Arc::clone(&nonces), Arc::new(Barrier::new(REQUESTS)));
    let handler = move |caller: Authenticated| async move {
        noted.lock().expect("lock").insert(caller.token().nonce().as_str().to_owned());
        all_are_here.wait().await;
    };
    // A token waits for the machine, which has all others to do.
    let validation = Validation::default().with_tolerance(Duration::from_secs(600)).expect("ten minutes");
    let nonces_used = Arc::new(MemoryNonceBackend::default());
    let authenticator = Authenticator::builder(Arc::new(users([signer.public_key()])), nonces_used);
    let authenticator = authenticator.validation(validation).build().expect("an authenticator");
    let app = Router::new().route("/", get(handler)).layer(AuthLayer::new(authenticator));
    let origin = serve_http2(app).await;
    let signer = OriginSigner::new(signer, [&origin]).expect("an origin");
    // Nobody is answered early, so nobody may give up early on a busy machine.
    let client = ClientBuilder::new(signer).retries(0);
    let client =
        client.transport(|reqwest| reqwest.http2_prior_knowledge().timeout(Duration::from_secs(600)));
    let client = client.build().expect("a client");

    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let request = client.get(&origin);
        requests.spawn(async move { request.send().await.expect("an answer").status() });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("no panic"), 200);
    }
    assert_eq!(nonces.lock().expect("lock").len(), REQUESTS);
}

fn write_key(path: &Path) -> PublicKey {
    let key = ed25519();
    fs::write(path, key.to_pem().expect("pem").as_bytes()).expect("written");
    key.public_key().clone()
}

/// By the book: a new key is put beside the old one and published; the server reads the published
/// set; the new key signs; the old one is taken away; the server forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "files are dated by the clock")]
async fn a_rotation_under_load_costs_no_request() {
    const PERIOD: Duration = Duration::from_millis(1);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let date = |name: &str, date: SystemTime| {
        let file = File::options().write(true).open(at(name)).expect("a file");
        file.set_modified(date).expect("dated");
    };
    // Dated ahead until its key may sign, for nobody can date a file's last change back; and before that under a
    // name that is not looked at.
    let put = |name: &str| {
        let key = write_key(&at("new"));
        date("new", SystemTime::now() + Duration::from_secs(3600));
        fs::rename(at("new"), at(name)).expect("moved");
        key
    };
    let let_sign = |name: &str| date(name, SystemTime::now());
    let mut current = put("0.key");
    let_sign("0.key");
    let file = KeyFile::new(folder.path()).allow_open_permissions();
    let keys = KeyWatch::new(file).announce_for(PERIOD).every(Duration::from_millis(10));
    let keys = keys.start().expect("a ring");

    // The caller publishes; the server reads that, and knows nothing else.
    let published = keys.clone();
    let jwks = JwksService::from_fn(move || published.public_keys());
    let jwks_url =
        format!("{}{}", serve(Router::new().route_service(JwksService::PATH, jwks)).await, JwksService::PATH);
    let reader = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let repository = Arc::new(users([]));
    let refresh = async || {
        let body = reader.get(&jwks_url).send().await.expect("an answer").bytes().await.expect("a body");
        let set = JwkSet::from_json(body).expect("a key set");
        let found: Vec<_> = set.keys().iter().map(|jwk| jwk.key().clone()).collect();
        repository.insert(&User::new("guido").with_keys(found.clone()));
        found
    };
    refresh().await;
    let nonces = Arc::new(MemoryNonceBackend::default());
    let authenticator = Authenticator::builder(Arc::clone(&repository) as _, nonces).build().expect("built");
    let used = Arc::new(Mutex::new(Vec::<String>::new()));
    let noted = Arc::clone(&used);
    let handler = move |caller: Authenticated| async move {
        noted.lock().expect("lock").push(caller.key().key_id().to_owned());
    };
    let app = Router::new().route("/", get(handler)).layer(AuthLayer::new(authenticator));
    let origin = serve(app).await;

    let signer = RequestSigner::new("guido", keys.clone()).expect("a signer");
    let client = ClientBuilder::new(OriginSigner::new(signer, [&origin]).expect("an origin")).retries(0);
    let client = client.build().expect("a client");
    let (done, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let answered: Vec<_> = (0..16).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut load = JoinSet::new();
    for answered in answered.clone() {
        let (client, origin) = (client.clone(), origin.clone());
        let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
        load.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let is_accepted =
                    client.get(&origin).send().await.is_ok_and(|response| response.status() == 200);
                refused.fetch_add(usize::from(!is_accepted), Ordering::SeqCst);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    // Whatever is under way when this is called has been answered when it returns.
    let let_pass = async || {
        for answered in &answered {
            let before = answered.load(Ordering::SeqCst);
            while answered.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
        }
    };
    let published_are = async |due: usize| {
        while keys.public_keys().len() != due {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };

    let rotation = async {
        for round in 1..=3 {
            let (old, new) = (format!("{}.key", round - 1), format!("{round}.key"));
            let next = put(&new);
            published_are(2).await;
            let_pass().await;
            assert_eq!(refresh().await, [current.clone(), next.clone()]);
            let_sign(&new);
            while used.lock().expect("lock").last().map(String::as_str) != Some(next.fingerprint().as_str()) {
                tokio::task::yield_now().await;
            }
            fs::remove_file(at(&old)).expect("removed");
            published_are(1).await;
            let_pass().await;
            assert_eq!(refresh().await, std::slice::from_ref(&next));
            let_pass().await;
            current = next;
        }
    };
    timeout(Duration::from_secs(120), rotation).await.expect("each step happens");
    done.store(true, Ordering::SeqCst);
    load.join_all().await;
    assert_eq!(refused.load(Ordering::SeqCst), 0);
    let used: HashSet<_> = used.lock().expect("lock").drain(..).collect();
    assert_eq!(used.len(), 4, "each key has signed");
}
