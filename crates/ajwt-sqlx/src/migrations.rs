use std::borrow::Cow;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use crate::schema::{Owner, Schema};

/// The migrations of a database, as its folder has them.
pub(crate) struct Files {
    pub(crate) tables: &'static str,
    pub(crate) revision: &'static str,
    /// Beside tables of others.
    pub(crate) nonce: &'static str,
    /// Beside users of the application's own.
    pub(crate) audit: &'static str,
}

/// Embeds a folder of migrations, by whole paths: a relative one would begin at the file that invokes this.
macro_rules! files {
    ($database:literal) => {
        $crate::migrations::Files {
            tables: $crate::migrations::files!($database, "0001_tables.sql"),
            revision: $crate::migrations::files!($database, "0002_revision.sql"),
            nonce: $crate::migrations::files!($database, "beside/0001_nonce.sql"),
            audit: $crate::migrations::files!($database, "beside/0002_audit.sql"),
        }
    };
    ($database:literal, $file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $database, "/", $file))
    };
}

pub(crate) use files;

/// The number of the migration of ajwt's own tables that makes triggers.
pub(crate) const TRIGGERS: i64 = 2;

/// The table in which it is noted which migrations were made.
pub(crate) const fn table(schema: &Schema) -> &'static str {
    match schema.owner() {
        Owner::Ajwt => "ajwt_migrations",
        Owner::Application => "ajwt_beside_migrations",
        Owner::Django => "ajwt_django_migrations",
    }
}

/// The table that tells that keys and trusts belong to other users than those of this schema, in tables of the same
/// names. On MySQL and MariaDB, where each step can be repeated, they would be taken for what is to be made.
pub(crate) const fn table_of_others(schema: &Schema) -> Option<&'static str> {
    match schema.owner() {
        Owner::Ajwt => Some("ajwt_beside_migrations"),
        // The users themselves: who makes the tables by hand notes no migrations.
        Owner::Application => Some("ajwt_user"),
        Owner::Django => None,
    }
}

/// sqlx's locks are off: some databases have none, and for the others there are better ones.
pub(crate) fn migrator(schema: &Schema, files: &Files) -> Migrator {
    let migrations = match schema.owner() {
        Owner::Ajwt => {
            vec![migration(1, "tables", files.tables), migration(TRIGGERS, "revision", files.revision)]
        }
        Owner::Application => {
            vec![migration(1, "nonce", files.nonce), migration(2, "audit", files.audit)]
        }
        Owner::Django => vec![migration(1, "nonce", files.nonce)],
    };
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(table(schema));
    migrator.set_locking(false);
    migrator
}

/// Makes those that were not made yet, up to this one if it is named.
///
/// Not [`Migrator::run`], although it does nothing else with a connection: its future is not `Send` in the compiler's
/// eyes, and nobody could migrate in a task. What stands in its place is hidden in sqlx's documents, so another sqlx
/// 0.9 may lack it.
pub(crate) async fn run<C: Migrate>(
    migrator: &Migrator,
    target: Option<i64>,
    connection: &mut C,
) -> Result<(), MigrateError> {
    migrator.run_direct(target, connection, false).await
}

fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout may change the ends of lines, and what it migrates would be refused by what others built.
    #[test]
    fn the_lines_of_migrations_end_as_everywhere() {
        for files in [files!("mysql"), files!("postgres"), files!("sqlite")] {
            for text in [files.tables, files.revision, files.nonce, files.audit] {
                assert!(!text.contains('\r'), "{text}");
            }
        }
    }
}
