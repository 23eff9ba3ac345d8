mod url;

use std::{error::Error as _, sync::Arc};

use ajwt_server::{
    AdminError, BatchedUsage, CachedUserRepository, KeyAdmin, NonceBackend, RepositoryError, StartRule,
    TrustedUrls, User, UserCacheOptions, UserRepository,
};
use ajwt_sqlx::{
    AuditRecord, ConnectError, MigrationError, MissingTables, MySqlNonceBackend, MySqlRepository,
    PostgresNonceBackend, PostgresRepository, Schema, SqliteNonceBackend, SqliteRepository,
};
use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use sqlx::{mysql::MySqlSslMode, postgres::PgSslMode};

use self::url::{check_file, warn_if_unverified};
use crate::failure::Failure;

/// What to do where tables of ajwt's own schema are missing.
const WITHOUT_TABLES: &str = "the tables of ajwt are missing or of another version; run ajwt migrate (keys beside a \
                              users table of your own are not for this program)";

/// Which database a command works on.
#[derive(Args, Clone)]
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
#[derive(Args, Clone)]
pub(crate) struct AdminOptions {
    #[command(flatten)]
    database: DatabaseOptions,
    /// Who the audit says made the change; without it the name of the account
    #[arg(long, env = "AJWT_ACTOR", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    actor: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaName {
    /// ajwt's own tables
    Ajwt,
    /// Those of a Django deployment of asymmetric_jwt_auth
    Django,
}

/// A database, and whose tables it is to have.
pub(crate) struct Database {
    repository: Repository,
    schema: SchemaName,
}

/// The repository of one of the databases.
enum Repository {
    Sqlite(SqliteRepository),
    Postgres(PostgresRepository),
    MySql(MySqlRepository),
}

macro_rules! each {
    ($database:expr, $repository:ident => $result:expr) => {
        match &$database.repository {
            Repository::Sqlite($repository) => $result,
            Repository::Postgres($repository) => $result,
            Repository::MySql($repository) => $result,
        }
    };
}

/// With the nonce backend of a database.
macro_rules! each_nonces {
    ($database:expr, $nonces:ident => $result:expr) => {
        match &$database.repository {
            Repository::Sqlite(repository) => {
                let $nonces = SqliteNonceBackend::new(repository.pool().clone());
                $result
            }
            Repository::Postgres(repository) => {
                let $nonces = PostgresNonceBackend::new(repository.pool().clone());
                $result
            }
            Repository::MySql(repository) => {
                let $nonces = MySqlNonceBackend::new(repository.pool().clone());
                $result
            }
        }
    };
}

impl AdminOptions {
    /// Works on the database, and closes it whatever becomes of the work.
    pub(crate) async fn with<T, E: IntoFailure>(
        &self,
        work: impl AsyncFnOnce(&dyn KeyAdmin) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let database = self.open().await?;
        let worked = work(database.admin()).await;
        database.close().await;
        worked.map_err(E::into_failure)
    }

    async fn open(&self) -> Result<Database, Failure> {
        let named = |name: &str| std::env::var(name).ok().filter(|account| !account.is_empty());
        // sudo's variable first: who it was, not who it became.
        let account = || ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named);
        let database = self.database.open().await?;
        Ok(match self.actor.clone().or_else(account) {
            Some(actor) => database.with_actor(&actor),
            None => database,
        })
    }
}

/// Why work on a database was not done, with what to do in this program's words.
pub(crate) trait IntoFailure {
    fn into_failure(self) -> Failure;
}

impl IntoFailure for AdminError {
    fn into_failure(self) -> Failure {
        match self {
            Self::UnknownUser { .. } => Failure::new(format!("{self}; ajwt user list shows who there is")),
            error => error.into(),
        }
    }
}

impl IntoFailure for Failure {
    fn into_failure(self) -> Failure {
        self
    }
}

impl DatabaseOptions {
    /// Opens a database that is there and has the tables of users and keys.
    pub(crate) async fn open(&self) -> Result<Database, Failure> {
        let database = self.open_to_migrate(false).await?;
        database.check().await.map_err(|error| with_advice(error, self.schema.without_users()))?;
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
        let repository = match kind {
            "sqlite" => {
                check_file(url, may_create).await?;
                Repository::Sqlite(SqliteRepository::connect(url).await?.with_schema(schema))
            }
            "postgres" | "postgresql" => {
                let repository = PostgresRepository::connect(url).await.map_err(unreachable)?;
                let options = repository.pool().connect_options();
                // What the environment may say, too.
                if options.get_socket().is_none() && matches!(options.get_ssl_mode(), PgSslMode::Prefer) {
                    warn_if_unverified(url, options.get_host(), "sslmode=verify-full");
                }
                Repository::Postgres(repository.with_schema(schema))
            }
            "mysql" | "mariadb" => {
                let repository = MySqlRepository::connect(url).await.map_err(unreachable)?;
                let options = repository.pool().connect_options();
                if options.get_socket().is_none() && matches!(options.get_ssl_mode(), MySqlSslMode::Preferred)
                {
                    warn_if_unverified(url, options.get_host(), "ssl-mode=VERIFY_IDENTITY");
                }
                Repository::MySql(repository.with_schema(schema))
            }
            // Not shown: it may hold a password.
            _ => {
                return Err(Failure::new(
                    "the database URL begins with none of sqlite://, postgres:// and mysql://",
                ));
            }
        };
        Ok(Database { repository, schema: self.schema })
    }
}

impl SchemaName {
    /// What to do where tables of users and keys are missing.
    const fn without_users(self) -> &'static str {
        match self {
            Self::Ajwt => WITHOUT_TABLES,
            Self::Django => {
                "Django's tables (auth_user, asymmetric_jwt_auth_*) are missing or of another version; run Django's \
                 migrations"
            }
        }
    }

    /// What to do where the table of used nonces is missing, which is ajwt's beside Django's too.
    const fn without_nonces(self) -> &'static str {
        match self {
            Self::Ajwt => WITHOUT_TABLES,
            Self::Django => "the table of used nonces is missing; run ajwt migrate --schema django",
        }
    }
}

/// What there is to ask where no server has answered. One that refuses says why.
fn unreachable(error: ConnectError) -> Failure {
    use sqlx::Error::{Io, PoolTimedOut};

    match &error {
        ConnectError::Open { source } if matches!(source.downcast_ref(), Some(PoolTimedOut | Io(_))) => {
            Failure::of("does the server run, at that address and port?")(error)
        }
        _ => error.into(),
    }
}

/// What to do about missing tables, in this program's words.
fn with_advice(error: RepositoryError, what_to_do: &str) -> Failure {
    if error.source().is_some_and(|source| source.is::<MissingTables>()) {
        return Failure::new(what_to_do);
    }
    error.into()
}

impl Database {
    fn with_actor(self, actor: &str) -> Self {
        let repository = match self.repository {
            Repository::Sqlite(repository) => Repository::Sqlite(repository.with_actor(actor)),
            Repository::Postgres(repository) => Repository::Postgres(repository.with_actor(actor)),
            Repository::MySql(repository) => Repository::MySql(repository.with_actor(actor)),
        };
        Self { repository, schema: self.schema }
    }

    fn admin(&self) -> &dyn KeyAdmin {
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

    async fn check(&self) -> Result<(), RepositoryError> {
        each!(self, repository => repository.check().await)
    }

    pub(crate) async fn migrate(&self) -> Result<(), MigrationError> {
        each!(self, repository => repository.migrate().await)
    }

    pub(crate) async fn migrate_without_triggers(&self) -> Result<(), Failure> {
        match &self.repository {
            Repository::MySql(repository) => {
                repository.migrate_without_triggers().await.map_err(crate::migrate::migration_failure)
            }
            Repository::Sqlite(_) | Repository::Postgres(_) => Err(Failure::new(
                "--without-triggers is for MySQL and MariaDB; this database lets whoever makes tables make triggers",
            )),
        }
    }

    pub(crate) async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
        each!(self, repository => repository.audit(limit).await)
    }

    /// Where used nonces are kept, if that table is there: Django's schema has the users without it.
    pub(crate) async fn nonces(&self, start_rule: StartRule) -> Result<Arc<dyn NonceBackend>, Failure> {
        each_nonces!(self, nonces => match nonces.check().await {
            Ok(()) => Ok(Arc::new(nonces.with_start_rule(start_rule))),
            Err(error) => Err(with_advice(error, self.schema.without_nonces())),
        })
    }

    /// Marks the table of used nonces as new; whether it is so marked now.
    pub(crate) async fn initialise_nonces(&self) -> Result<bool, Failure> {
        let marked = each_nonces!(self, nonces => nonces.initialise().await);
        marked.map_err(|error| with_advice(error, self.schema.without_nonces()))
    }

    pub(crate) async fn close(&self) {
        each!(self, repository => repository.pool().close().await);
    }
}
