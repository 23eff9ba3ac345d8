//! The MySQL stores on servers that stop, hang and run out of connections.
#![cfg(feature = "mysql")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/store.rs"]
mod store;

use std::any::Any;

use ajwt_sqlx::MySqlRepository;
use ajwt_test_servers::sql::Kind;
use faults::Served;
use sqlx::{Connection as _, MySqlConnection};

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
