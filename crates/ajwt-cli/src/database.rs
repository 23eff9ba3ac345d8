use std::{error::Error as _, path::Path, str::FromStr as _, sync::Arc};

use ajwt_server::{
    BatchedUsage, CachedUserRepository, Freshness, KeyAdmin, NonceBackend, RepositoryError, TrustedUrls,
    User, UserCacheOptions, UserRepository,
};
use ajwt_sqlx::{
    AuditRecord, ConnectError, MigrationError, MissingTables, MySqlNonceBackend, MySqlRepository,
    PostgresNonceBackend, PostgresRepository, Schema, SqliteNonceBackend, SqliteRepository,
};
use clap::{Args, ValueEnum};
use sqlx::sqlite::SqliteConnectOptions;

use crate::failure::Failure;

/// Which database a command works on.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatabaseOptions {
    /// The database: sqlite://FILE, postgres://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME
    // Other accounts see arguments, so a password in it belongs into the variable.
    #[arg(long, env = "AJWT_DATABASE_URL", value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Whose tables it has
    #[arg(long, env = "AJWT_SCHEMA", value_enum, default_value = "ajwt")]
    schema: SchemaName,
}

/// A database, and who changes it.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminOptions {
    #[command(flatten)]
    database: DatabaseOptions,
    /// Who the audit says made the change; without it the name of the account
    #[arg(long, env = "AJWT_ACTOR", value_name = "NAME")]
    actor: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaName {
    /// ajwt's own tables
    Ajwt,
    /// Those of a Django deployment of asymmetric_jwt_auth
    Django,
}

/// The repository of one of the databases.
pub(crate) enum Database {
    Sqlite(SqliteRepository),
    Postgres(PostgresRepository),
    MySql(MySqlRepository),
}

macro_rules! each {
    ($database:expr, $repository:ident => $result:expr) => {
        match $database {
            Database::Sqlite($repository) => $result,
            Database::Postgres($repository) => $result,
            Database::MySql($repository) => $result,
        }
    };
}

impl AdminOptions {
    pub(crate) async fn open(&self) -> Result<Database, Failure> {
        // sudo's variable first: who it was, not who it became.
        let account =
            || ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let database = self.database.open().await?;
        Ok(match self.actor.clone().or_else(account) {
            Some(actor) => database.with_actor(&actor),
            None => database,
        })
    }
}

impl DatabaseOptions {
    /// Opens a database that is there and has the tables.
    pub(crate) async fn open(&self) -> Result<Database, Failure> {
        let database = self.open_to_migrate(false).await?;
        // The query that every request makes: it tells whether tables or columns are missing.
        database.users().find_by_username("", Freshness::Current).await.map_err(told)?;
        Ok(database)
    }

    /// Opens a database whatever is in it.
    pub(crate) async fn open_to_migrate(&self, may_create: bool) -> Result<Database, Failure> {
        let Some(url) = &self.database_url else {
            return Err(Failure::new(
                "no database: give --database-url or set AJWT_DATABASE_URL, as in sqlite://ajwt.db",
            ));
        };
        let schema = match self.schema {
            SchemaName::Ajwt => Schema::ajwt(),
            SchemaName::Django => Schema::django(),
        };
        let kind = url.split(':').next().unwrap_or_default();
        Ok(match kind {
            "sqlite" => {
                if !may_create {
                    check_is_there(url)?;
                }
                Database::Sqlite(SqliteRepository::connect(url).await?.with_schema(schema))
            }
            "postgres" | "postgresql" => {
                let repository = PostgresRepository::connect(url).await.map_err(unreachable)?;
                Database::Postgres(repository.with_schema(schema))
            }
            "mysql" | "mariadb" => {
                let repository = MySqlRepository::connect(url).await.map_err(unreachable)?;
                Database::MySql(repository.with_schema(schema))
            }
            // Not shown: it may hold a password.
            _ => {
                return Err(Failure::new(
                    "the database URL begins with none of sqlite://, postgres:// and mysql://",
                ));
            }
        })
    }
}

/// Connecting would make an empty file where there is none.
fn check_is_there(url: &str) -> Result<(), Failure> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| ConnectError::Url { expected: "sqlite://PATH", source: error.into() })?;
    let path: &Path = options.get_filename();
    let is_in_memory = url.contains(":memory:") || url.contains("mode=memory");
    if is_in_memory || path.exists() {
        return Ok(());
    }
    Err(Failure::new(format!("there is no database {}; ajwt migrate makes it", path.display())))
}

/// A pool tries again for a while, and then tells no more than that.
fn unreachable(error: ConnectError) -> Failure {
    match &error {
        ConnectError::Open { source } if matches!(source.downcast_ref(), Some(sqlx::Error::PoolTimedOut)) => {
            Failure::of("does the server run, at that address and port?")(error)
        }
        _ => error.into(),
    }
}

/// What to do about missing tables, in this program's words.
fn told(error: RepositoryError) -> Failure {
    if error.source().is_some_and(|source| source.is::<MissingTables>()) {
        return Failure::new("the tables of ajwt are missing or of another version; run ajwt migrate");
    }
    error.into()
}

impl Database {
    fn with_actor(self, actor: &str) -> Self {
        match self {
            Self::Sqlite(repository) => Self::Sqlite(repository.with_actor(actor)),
            Self::Postgres(repository) => Self::Postgres(repository.with_actor(actor)),
            Self::MySql(repository) => Self::MySql(repository.with_actor(actor)),
        }
    }

    pub(crate) fn admin(&self) -> &dyn KeyAdmin {
        each!(self, repository => repository)
    }

    pub(crate) fn users(&self) -> Arc<dyn UserRepository<User = User>> {
        each!(self, repository => Arc::new(repository.clone()))
    }

    pub(crate) fn cached_users(&self, options: UserCacheOptions) -> CachedUserRepository<User> {
        each!(self, repository => CachedUserRepository::over(Arc::new(repository.clone()), options))
    }

    pub(crate) fn trusted_urls(&self) -> Arc<dyn TrustedUrls> {
        each!(self, repository => Arc::new(repository.clone()))
    }

    pub(crate) fn usage(&self) -> BatchedUsage {
        each!(self, repository => repository.batched_usage())
    }

    pub(crate) async fn migrate(&self) -> Result<(), MigrationError> {
        each!(self, repository => repository.migrate().await)
    }

    pub(crate) async fn migrate_without_triggers(&self) -> Result<(), Failure> {
        match self {
            Self::MySql(repository) => Ok(repository.migrate_without_triggers().await?),
            Self::Sqlite(_) | Self::Postgres(_) => Err(Failure::new(
                "--without-triggers is for MySQL and MariaDB; this database lets whoever makes tables make triggers",
            )),
        }
    }

    pub(crate) async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
        each!(self, repository => repository.audit(limit).await)
    }

    pub(crate) fn nonces(&self) -> Arc<dyn NonceBackend> {
        match self {
            Self::Sqlite(repository) => Arc::new(SqliteNonceBackend::new(repository.pool().clone())),
            Self::Postgres(repository) => Arc::new(PostgresNonceBackend::new(repository.pool().clone())),
            Self::MySql(repository) => Arc::new(MySqlNonceBackend::new(repository.pool().clone())),
        }
    }

    /// Marks the table of used nonces as new; whether it is so marked now.
    pub(crate) async fn initialise_nonces(&self) -> Result<bool, RepositoryError> {
        match self {
            Self::Sqlite(repository) => SqliteNonceBackend::new(repository.pool().clone()).initialise().await,
            Self::Postgres(repository) => {
                PostgresNonceBackend::new(repository.pool().clone()).initialise().await
            }
            Self::MySql(repository) => MySqlNonceBackend::new(repository.pool().clone()).initialise().await,
        }
    }

    pub(crate) async fn close(&self) {
        each!(self, repository => repository.pool().close().await);
    }
}
