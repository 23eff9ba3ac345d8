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
