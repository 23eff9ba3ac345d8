//! The MySQL stores on servers that stop, hang and run out of connections.
#![cfg(feature = "mysql")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/store.rs"]
mod store;

use std::{any::Any, sync::Arc, time::Duration};

use ajwt_server::{
    Clock as _, KeyAdmin as _, KeySource, NonceBackend as _, NonceError, NonceOutcome, SystemClock,
    UsageStore as _, testing,
};
use ajwt_sqlx::{MySqlNonceBackend, MySqlRepository};
use ajwt_test_servers::sql::{Kind, Server};
use ajwt_test_support::until;
use faults::{Proxy, Served};
use sqlx::{Connection as _, MySqlConnection};
use store::Store as _;

fault_tests!(MySqlRepository);

impl Served for MySqlRepository {
    const KIND: Kind = Kind::MySql;
    const TWENTY_CONNECTIONS: &'static [&'static str] = &["--max-connections=20"];
    const MAINTENANCE: &'static str = "mysql";
    const ITS_CONNECTIONS: &'static str =
        "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE db = 'ajwt'";

    const SLOW_NONCES: &'static [&'static str] =
        &["CREATE TRIGGER slow BEFORE INSERT ON ajwt_nonce FOR EACH ROW SET @slept = SLEEP(0.2)"];

    const COMMIT: &'static [u8] = b"\x03COMMIT";

    const FOR_STANDBYS: &'static [&'static str] = &["--log-bin", "--server-id=1"];
    const STANDBY_IS_GONE: &'static [&'static str] = &[
        "SET GLOBAL rpl_semi_sync_master_timeout = 1000000",
        "SET GLOBAL rpl_semi_sync_master_enabled = ON",
    ];
    const NO_STANDBY_IS_NEEDED: &'static [&'static str] = &["SET GLOBAL rpl_semi_sync_master_enabled = OFF"];

    fn cut_off(id: &str) -> String {
        format!("KILL {id}")
    }

    async fn connection(url: &str) -> Option<Box<dyn Any>> {
        MySqlConnection::connect(url).await.ok().map(|connection| Box::new(connection) as _)
    }

    async fn on_idle_connections(&self, sql: &'static str) -> usize {
        faults::on_idle_connections(self.pool(), sql).await
    }
}

/// A server that became a standby refuses what writes, over the connections that it had before: those that are made
/// then may lead to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_no_use_is_replaced() {
    let server = Server::start(Kind::MySql, &[]);
    let admin = MySqlRepository::open(&server.url("mysql")).await;
    // One that is root's would write there all the same.
    for sql in
        ["CREATE DATABASE ajwt", "CREATE USER app@'127.0.0.1'", "GRANT ALL ON ajwt.* TO app@'127.0.0.1'"]
    {
        admin.execute(sql).await;
    }
    let store = MySqlRepository::open(&server.url("ajwt").replace("root@", "app@")).await;
    store::set_up(&store).await;
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    let consume = async |nonce: &str| {
        let now = SystemClock::new().now();
        let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
        nonces.consume(&testing::nonce_use("guido", now.as_secs(), nonce, now, tolerance, margin)).await
    };
    assert_eq!(consume("before").await.expect("stored"), NonceOutcome::Fresh);
    let mut taken = Vec::new();
    for _ in 0..8 {
        taken.push(store.pool().acquire().await.expect("one"));
    }
    drop(taken);
    let idle = store.on_idle_connections("SELECT 1").await;
    assert!(idle > 1, "{idle}");
    let before = admin.texts(MySqlRepository::ITS_CONNECTIONS).await;

    admin.execute("SET GLOBAL read_only = ON").await;
    for number in 0..idle {
        let refused = consume(&number.to_string()).await;
        assert!(matches!(refused, Err(NonceError::Store(_))), "{refused:?}");
    }
    let none_is_left = async || {
        let now = admin.texts(MySqlRepository::ITS_CONNECTIONS).await;
        !before.iter().any(|id| now.contains(id))
    };
    until("none of them is in use", none_is_left).await;
    admin.execute("SET GLOBAL read_only = OFF").await;
    assert_eq!(consume("after").await.expect("stored"), NonceOutcome::Fresh);
}

/// A claim is two messages there. The second would use the nonce up for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_given_up_before_it_is_sent_is_not_sent() {
    let server = Server::start(Kind::MySql, &[]);
    MySqlRepository::open(&server.url("mysql")).await.execute("CREATE DATABASE ajwt").await;
    let proxy = Proxy::start(server.port());
    let store = MySqlRepository::open(&server.url_at(proxy.port, "ajwt")).await;
    store::set_up(&store).await;
    let backend = MySqlNonceBackend::new(store.pool().clone());
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let nonce = testing::nonce_use("guido", now.as_secs(), "a nonce", now, tolerance, margin);
    proxy.hold(Some(b"SET TRANSACTION READ WRITE"));
    // Once its first message is on its way.
    faults::until_held(&proxy, backend.consume(&nonce)).await;
    proxy.hold(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(backend.consume(&nonce).await.expect("stored"), NonceOutcome::Fresh);
    assert_eq!(backend.consume(&nonce).await.expect("stored"), NonceOutcome::Replayed);
}

/// Each takes a round trip, and whoever revokes a key waits a second at most for all that are locked with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_many_uses_locks_few_rows_at_once() {
    let server = Server::start(Kind::MySql, &[]);
    MySqlRepository::open(&server.url("mysql")).await.execute("CREATE DATABASE ajwt").await;
    let proxy = Proxy::start(server.port());
    let store = MySqlRepository::open(&server.url("ajwt")).await;
    store::set_up(&store).await;
    store::add_guido(&store).await;
    let guido = store::name("guido");
    let trust = store.add_trust(&guido, "https://a.example/jwks.json").await.expect("added").id;
    let key = store.keys(&guido).await.expect("listed")[0].id;
    let writer = MySqlRepository::open(&server.url_at(proxy.port, "ajwt")).await;
    let now = SystemClock::new().now();
    // Rows that are gone count as well. Trusts come after all keys.
    let mut uses: Vec<_> = (key..).take(60).map(|id| (KeySource::Key(id), now)).collect();
    uses.push((KeySource::Trust(trust), now));
    proxy.hold(Some(MySqlRepository::COMMIT));
    faults::until_held(&proxy, writer.write(&uses)).await;
    assert!(store.revoke_key(&guido, key).await.is_err(), "its row is locked");
    store.remove_trust(&guido, trust).await.expect("its turn has not come");
    proxy.hold(None);
}
