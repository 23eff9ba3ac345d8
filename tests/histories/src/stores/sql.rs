use ajwt_test_servers::sql::{Kind, Server};
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, Row as _};
use tokio::task::block_in_place;

use super::{CLOSE_CLOCKS, DATABASE_LEAST, DATABASE_PATIENCE, WIDE_CLOCKS};
use crate::{
    gateway::Gateway,
    store::{Store, StoreFault, Terms},
};

const KILLED: StoreFault = StoreFault::blackout("killed");
const STOPPED: StoreFault = StoreFault::blackout("stopped");
const PAUSED: StoreFault = StoreFault::blackout("paused");
const CUT_OFF: StoreFault = StoreFault::passing("connections cut off");
const READ_ONLY: StoreFault = StoreFault::passing("read only");
const LOCKED: StoreFault = StoreFault::blackout("locked by a backup");
/// Not a blackout: there may be room in files that are there already.
const FULL: StoreFault = StoreFault::passing("disk full");
const EMPTIED: StoreFault = StoreFault::passing("emptied").forgets();

/// A server of PostgreSQL or MariaDB.
#[derive(Debug)]
pub struct Sql {
    kind: Kind,
    server: Server,
    wide_clocks: bool,
    small_disk: bool,
    lock: Option<MySqlConnection>,
}

impl Sql {
    /// Starts one. With clocks far apart it is not emptied. On a small disk it can be filled up.
    pub async fn start(kind: Kind, wide_clocks: bool, small_disk: bool) -> Self {
        let arguments: &[&str] = match kind {
            Kind::Postgres => &["-c", "max_wal_size=64MB"],
            // A commit is in the hands of the system: it outlives the server.
            Kind::MySql => &["--innodb-buffer-pool-size=16M"],
        };
        let start = if small_disk { Server::start_on_small_disk } else { Server::start };
        let server = block_in_place(|| start(kind, arguments));
        let sql = Self { kind, server, wide_clocks, small_disk, lock: None };
        sql.run(sql.maintenance(), "CREATE DATABASE ajwt").await;
        sql
    }

    const fn maintenance(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "postgres",
            Kind::MySql => "mysql",
        }
    }

    async fn run(&self, database: &str, sql: &str) {
        let (url, sql) = (self.server.url(database), AssertSqlSafe(sql.to_owned()));
        match self.kind {
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&url).await.expect("connected");
                sqlx::raw_sql(sql).execute(&mut connection).await.expect("run");
            }
            Kind::MySql => {
                let mut connection = MySqlConnection::connect(&url).await.expect("connected");
                sqlx::raw_sql(sql).execute(&mut connection).await.expect("run");
            }
        }
    }

    async fn cut_off(&self) {
        let url = self.server.url(self.maintenance());
        if self.kind == Kind::Postgres {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ajwt'";
            return self.run(self.maintenance(), sql).await;
        }
        let sql = "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE db = 'ajwt'";
        let mut connection = MySqlConnection::connect(&url).await.expect("connected");
        // Not prepared: MariaDB 10.11 has crashed on its own tables as a prepared statement.
        let found = sqlx::raw_sql(sql).fetch_all(&mut connection).await.expect("run");
        for id in found.iter().map(|row| row.get::<String, _>(0)) {
            // One that has just ended cannot be ended, which is as well.
            let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut connection).await;
        }
    }

    async fn set_read_only(&self, value: &str) {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        self.run("postgres", &set).await;
        self.run("postgres", "SELECT pg_reload_conf()").await;
    }
}

#[async_trait]
impl Store for Sql {
    fn terms(&self) -> Terms {
        let clocks = if self.wide_clocks { WIDE_CLOCKS } else { CLOSE_CLOCKS };
        Terms { least: DATABASE_LEAST, ..Terms::shared(DATABASE_PATIENCE, clocks) }
    }

    fn words(&self) -> String {
        "--nonce sql".to_owned()
    }

    fn database(&self) -> Option<String> {
        Some(format!("--database-url {}", self.server.url("ajwt")))
    }

    fn faults(&self) -> Vec<StoreFault> {
        let mut faults = vec![KILLED, STOPPED, PAUSED, CUT_OFF];
        faults.push(if self.kind == Kind::Postgres { READ_ONLY } else { LOCKED });
        faults.extend((!self.wide_clocks).then_some(EMPTIED));
        faults.extend(self.small_disk.then_some(FULL));
        faults
    }

    async fn begin(&mut self, fault: StoreFault, _: &[Gateway]) {
        match fault {
            KILLED => block_in_place(|| self.server.kill()),
            STOPPED => block_in_place(|| self.server.stop()),
            PAUSED => self.server.pause(),
            FULL => block_in_place(|| self.server.fill()),
            CUT_OFF => self.cut_off().await,
            READ_ONLY => self.set_read_only("on").await,
            LOCKED => {
                let url = self.server.url(self.maintenance());
                let mut connection = MySqlConnection::connect(&url).await.expect("connected");
                sqlx::raw_sql("FLUSH TABLES WITH READ LOCK").execute(&mut connection).await.expect("locked");
                self.lock = Some(connection);
            }
            _ => self.run("ajwt", "DELETE FROM ajwt_nonce").await,
        }
    }

    async fn end(&mut self, fault: StoreFault, _: &[Gateway]) {
        match fault {
            KILLED | STOPPED => block_in_place(|| self.server.start_again()),
            PAUSED => self.server.resume(),
            FULL => block_in_place(|| self.server.make_room()),
            READ_ONLY => self.set_read_only("off").await,
            LOCKED => {
                let lock = self.lock.take().expect("locked");
                lock.close().await.expect("closed");
            }
            _ => {}
        }
    }
}
