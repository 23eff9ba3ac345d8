use std::error::Error;

use thiserror::Error;

use crate::failure::CustomUserModel;

type Source = Box<dyn Error + Send + Sync>;

/// The database could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one of this database.
    #[error("the database URL is not usable; expected {expected}")]
    Url {
        /// What a URL looks like.
        expected: &'static str,
        /// Why it is not usable.
        source: Source,
    },
    /// Opening failed.
    #[error("the database cannot be opened")]
    Open {
        /// Why not.
        source: Source,
    },
}

/// The migrations did not run. The database is as it was; on MySQL and MariaDB, where changes of
/// tables are not transactional, running them again goes on from there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The database has migrations that this version of ajwt does not know.
    #[error(
        "the database was migrated by a newer version of ajwt (migration {version}); update this program"
    )]
    Newer {
        /// The unknown migration.
        version: i64,
    },
    /// A migration was changed after it ran.
    #[error("migration {version} of the database is not the one of this version of ajwt; was it edited?")]
    Changed {
        /// The migration.
        version: i64,
    },
    /// The server forbids the triggers that raise the revision.
    #[error(
        "the server lets this account make no triggers; have it set log_bin_trust_function_creators, or migrate without them"
    )]
    NoTriggers {
        /// What the server says.
        source: Source,
    },
    /// The connection has no database to make the tables in: MySQL and MariaDB connect without one.
    #[error("the connection has no database; name one at the end of the URL: mysql://USER@HOST/DATABASE")]
    NoDatabase,
    /// The keys and trusts that the database has, or may have, are those of another schema's users: there is
    /// `ajwt_public_key` or `ajwt_jwks_endpoint_trust`, but no `ajwt_user` to which they belong, for ajwt's own tables;
    /// or `ajwt_user` for those of an application.
    #[error(
        "by the table {table} the keys and trusts of the database (ajwt_public_key, ajwt_jwks_endpoint_trust) may be \
         those of another schema's users; migrate with that schema, or another database"
    )]
    OtherUsers {
        /// What tells.
        table: &'static str,
    },
    /// Django's keys or trusts are those of users in another table than `auth_user`.
    #[error(transparent)]
    CustomUserModel(CustomUserModel),
    /// Another process migrates the database, or stands still while it does.
    #[error(
        "another process has held the lock of the database's migrations for ten minutes; wait for it or end it"
    )]
    Locked,
    /// A statement failed.
    #[error("migrating the database failed")]
    Failed {
        /// Why.
        source: Source,
    },
}

// Not `From`, which would be public.
impl MigrationError {
    /// Of a statement around the migrations.
    pub(crate) fn failed(error: sqlx::Error) -> Self {
        Self::Failed { source: error.into() }
    }

    pub(crate) fn of(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;

        match error {
            MigrateError::VersionMissing(version) => Self::Newer { version },
            MigrateError::VersionMismatch(version) => Self::Changed { version },
            other => Self::Failed { source: other.into() },
        }
    }
}
