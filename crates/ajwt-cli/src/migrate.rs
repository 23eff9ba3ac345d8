use ajwt_sqlx::MigrationError;
use clap::Args;

use crate::{database::DatabaseOptions, failure::Failure, output};

/// Makes or updates the tables.
#[derive(Args)]
pub(crate) struct Migrate {
    /// Leaves out the triggers that tell of changes, for a MySQL or MariaDB server that forbids them: the
    /// gateway then reads a user anew after a second
    #[arg(long)]
    without_triggers: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Migrate {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        // What is not for SQLite makes no file.
        let database = self.database.open_to_migrate(!self.without_triggers).await?;
        if self.without_triggers {
            database.migrate_without_triggers().await?;
        } else {
            database.migrate().await.map_err(migration_failure)?;
        }
        database.close().await;
        output::note("the tables are up to date");
        Ok(())
    }
}

/// What to do where triggers are forbidden, or the tables are not for this program, in its words.
pub(crate) fn migration_failure(error: MigrationError) -> Failure {
    match error {
        MigrationError::NoTriggers { .. } => Failure::new(
            "the server lets this account make no triggers; have it set log_bin_trust_function_creators, or run ajwt migrate --without-triggers",
        ),
        MigrationError::OtherUsers { .. } => Failure::new(
            "the database has keys or trusts (ajwt_public_key, ajwt_jwks_endpoint_trust) that are not of users in \
             ajwt_user: they are those of an application's own users, whom this program does not know; migrate by the \
             application (Schema::with_users), or name another database",
        ),
        error => error.into(),
    }
}
