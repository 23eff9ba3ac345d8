//! The MySQL stores on servers that stop, hang and run out of connections.
#![cfg(feature = "mysql")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/store.rs"]
mod store;

use std::{any::Any, time::Duration};

use ajwt_server::{Clock as _, NonceBackend as _, NonceOutcome, SystemClock, testing};
use ajwt_sqlx::{MySqlNonceBackend, MySqlRepository};
use ajwt_test_servers::sql::{Kind, Server};
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
    // It is dropped once its first message is on its way.
    tokio::select! {
        answer = backend.consume(&nonce) => panic!("{answer:?}"),
        () = async {
            while proxy.were_held() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
    proxy.hold(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(backend.consume(&nonce).await.expect("stored"), NonceOutcome::Fresh);
    assert_eq!(backend.consume(&nonce).await.expect("stored"), NonceOutcome::Replayed);
}
