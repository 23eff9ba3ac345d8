use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{CLOSE_CLOCKS, DATABASE_LEAST, DATABASE_PATIENCE, WIDE_CLOCKS};
use crate::{
    gateway::Gateway,
    program,
    store::{Store, StoreFault, Terms},
};

const LOCKED: StoreFault = StoreFault::blackout("locked by another program");
const FULL: StoreFault = StoreFault::blackout("full");
const EMPTIED: StoreFault = StoreFault::passing("emptied").forgets();

/// A file. Its servers are its processes: one that is paused may hold its lock.
#[derive(Debug)]
pub struct Sqlite {
    folder: TempDir,
    wide_clocks: bool,
    lock: Option<SqliteConnection>,
}

impl Sqlite {
    /// A new one. With clocks far apart it is not emptied.
    #[must_use]
    pub fn new(wide_clocks: bool) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), wide_clocks, lock: None }
    }

    async fn run(&self, sql: &str) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("ajwt.db"));
        let options = options.busy_timeout(std::time::Duration::from_secs(30));
        let mut connection = SqliteConnection::connect_with(&options).await.expect("opened");
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("run");
        connection
    }

    fn limit_files(gateways: &[Gateway], size: Option<u64>) {
        for process in gateways.iter().filter_map(Gateway::process) {
            program::limit_files(process, size);
        }
    }
}

#[async_trait]
impl Store for Sqlite {
    fn terms(&self) -> Terms {
        let clocks = if self.wide_clocks { WIDE_CLOCKS } else { CLOSE_CLOCKS };
        Terms { servers_disturb: true, least: DATABASE_LEAST, ..Terms::shared(DATABASE_PATIENCE, clocks) }
    }

    fn words(&self) -> String {
        "--nonce sql".to_owned()
    }

    fn database(&self) -> Option<String> {
        Some(format!("--database-url sqlite://{}", self.folder.path().join("ajwt.db").display()))
    }

    fn faults(&self) -> Vec<StoreFault> {
        let mut faults = vec![LOCKED, FULL];
        faults.extend((!self.wide_clocks).then_some(EMPTIED));
        faults
    }

    async fn begin(&mut self, fault: StoreFault, gateways: &[Gateway]) {
        if fault == LOCKED {
            self.lock = Some(self.run("BEGIN IMMEDIATE").await);
        } else if fault == FULL {
            Self::limit_files(gateways, Some(1));
        } else {
            self.run("DELETE FROM ajwt_nonce").await;
        }
    }

    async fn end(&mut self, fault: StoreFault, gateways: &[Gateway]) {
        if fault == LOCKED {
            // Its transaction ends with it.
            let lock = self.lock.take().expect("locked");
            lock.close().await.expect("closed");
        } else if fault == FULL {
            Self::limit_files(gateways, None);
        }
    }
}
