//! One token sent many times at once to a service on a real socket is accepted once, whatever store remembers it.

use std::{sync::Arc, time::Duration};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_client::RequestSigner;
use ajwt_core::{PrivateKey, Username};
use ajwt_server::{
    Authenticator, KeyAdmin as _, MemoryNonceBackend, MemoryRepository, NewKey, NonceBackend, User,
};
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use axum::{Router, routing::get};
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use tokio::{net::TcpListener, sync::Barrier, task::JoinSet};

const ROUNDS: usize = 200;
const AT_ONCE: usize = 64;

/// How long a store may take: the machine may be busy, and a 503 would hide what is looked for.
const PATIENT: Duration = Duration::from_secs(30);

async fn hello(caller: Authenticated) -> String {
    caller.user().username().to_owned()
}

async fn serve(authenticator: Authenticator) -> String {
    let app = Router::new().route("/", get(hello)).layer(AuthLayer::new(authenticator));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Sends one token 64 times at once, 200 times over.
async fn race(authenticator: Authenticator, signer: RequestSigner) {
    let url = serve(authenticator).await;
    let client = Client::builder().no_proxy().build().expect("a client");
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        let token = signer.authorization().expect("a token");
        let barrier = Arc::new(Barrier::new(AT_ONCE));
        let mut requests = JoinSet::new();
        for _ in 0..AT_ONCE {
            let request = client.get(&url).header(AUTHORIZATION, token.clone());
            let barrier = Arc::clone(&barrier);
            requests.spawn(async move {
                barrier.wait().await;
                request.send().await.expect("an answer").status()
            });
        }
        let statuses = requests.join_all().await;
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        let (accepted, refused) = (count(StatusCode::OK), count(StatusCode::UNAUTHORIZED));
        if (accepted, refused) != (1, AT_ONCE - 1) {
            wrong.push(format!("round {round}: {accepted} accepted, {refused} refused"));
        }
    }
    assert!(wrong.is_empty(), "{} of {ROUNDS} rounds:\n{}", wrong.len(), wrong.join("\n"));
}

fn signer() -> RequestSigner {
    RequestSigner::new("guido", PrivateKey::generate_ed25519().expect("a key")).expect("a signer")
}

async fn race_with_memory_users(nonces: Arc<dyn NonceBackend>) {
    let signer = signer();
    let user = User::new("guido").with_keys([signer.public_key().clone()]);
    let users = Arc::new(MemoryRepository::new([user]));
    let authenticator = Authenticator::builder(users, nonces).store_timeout(PATIENT).build();
    race(authenticator.expect("an authenticator"), signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_memory_backend() {
    race_with_memory_users(Arc::new(MemoryNonceBackend::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("ajwt.db").display());
    let options: SqliteConnectOptions = url.parse().expect("a URL");
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).busy_timeout(PATIENT);
    let pool = SqlitePoolOptions::new().acquire_timeout(PATIENT).connect_with(options).await.expect("opened");
    let repository = SqliteRepository::new(pool);
    repository.migrate().await.expect("migrated");
    let signer = signer();
    let name = Username::new("guido").expect("a name");
    repository.add_user(&name).await.expect("added");
    repository.add_key(&name, &NewKey::of_key(signer.public_key().clone())).await.expect("added");
    let nonces = Arc::new(SqliteNonceBackend::new(repository.pool().clone()));
    assert!(nonces.initialise().await.expect("marked"));
    let builder = Authenticator::builder(Arc::new(repository), nonces).store_timeout(PATIENT);
    race(builder.build().expect("an authenticator"), signer).await;
}

/// With servers of others, which `./scripts/test --quick` does without.
mod servers {
    use ajwt_redis::RedisNonceBackend;
    use ajwt_sqlx::{MySqlNonceBackend, MySqlRepository, PostgresNonceBackend, PostgresRepository};
    use ajwt_test_servers::{redis::RedisServer, sql::Database};
    use sqlx::{mysql::MySqlPoolOptions, postgres::PgPoolOptions};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn with_postgresql() {
        let database = Database::create("AJWT_TEST_POSTGRES");
        // As many connections as `connect` opens, whose wait for one is too short here.
        let options = PgPoolOptions::new().test_before_acquire(false).acquire_timeout(PATIENT);
        let pool = options.connect(&database.url()).await.expect("connected");
        PostgresRepository::new(pool.clone()).migrate().await.expect("migrated");
        let nonces = Arc::new(PostgresNonceBackend::new(pool));
        assert!(nonces.initialise().await.expect("marked"));
        race_with_memory_users(nonces).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_mysql() {
        let database = Database::create("AJWT_TEST_MYSQL");
        // As above; and at the isolation level that docs/database.md asks for.
        let options = MySqlPoolOptions::new().test_before_acquire(false).acquire_timeout(PATIENT);
        let options = options.after_connect(|connection, _| {
            let set = sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
            Box::pin(async move { set.execute(connection).await.map(drop) })
        });
        let pool = options.connect(&database.url()).await.expect("connected");
        MySqlRepository::new(pool.clone()).migrate().await.expect("migrated");
        let nonces = Arc::new(MySqlNonceBackend::new(pool));
        assert!(nonces.initialise().await.expect("marked"));
        race_with_memory_users(nonces).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_redis() {
        let server = RedisServer::start(&[]);
        let nonces = RedisNonceBackend::builder("race").timeout(PATIENT).connect(&server.url()).await;
        let nonces = Arc::new(nonces.expect("connected"));
        assert!(nonces.initialise().await.expect("marked"));
        race_with_memory_users(nonces).await;
    }
}
