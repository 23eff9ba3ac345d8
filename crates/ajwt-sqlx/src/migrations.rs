use std::borrow::Cow;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use crate::{
    error::MigrationError,
    schema::{Owner, Schema},
};

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

const USERS: &str = "ajwt_user";

const KEYS: &str = "ajwt_public_key";

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

/// What a database has of the tables by which it is told whose keys and trusts are in it: ajwt's own and those beside a
/// users table of an application have the same names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present {
    /// The table of ajwt's users.
    pub(crate) users: bool,
    /// A table of keys or trusts.
    pub(crate) keys: bool,
    /// One of these that refers to ajwt's users. Looked at on MySQL and MariaDB only, where each step of a migration can
    /// be repeated, so that tables of others would be taken for what is to be made.
    pub(crate) of_users: bool,
    /// One that refers to others, likewise.
    pub(crate) of_others: bool,
}

/// Whether the keys and trusts of a database can be those of this schema's users.
pub(crate) fn check_owner(schema: &Schema, present: Present) -> Result<(), MigrationError> {
    let Present { users, keys, of_users, of_others } = present;
    let table = match schema.owner() {
        // The users are made first.
        Owner::Ajwt if of_others || keys && !users => KEYS,
        Owner::Application if users && (of_users || !of_others) && !schema.has_users_in(USERS) => USERS,
        _ => return Ok(()),
    };
    Err(MigrationError::OtherUsers { table })
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
    use crate::UserTable;

    /// In the order in which they are made and dropped, and left over.
    #[test]
    fn keys_are_of_the_users_of_the_schema_or_nothing_is_made() {
        let (own, django) = (Schema::ajwt(), Schema::django());
        let beside = Schema::with_users(UserTable::new("accounts"));
        let of_that_name = Schema::with_users(UserTable::new(USERS));
        let present = |users, keys, of_users, of_others| Present { users, keys, of_users, of_others };
        for (schema, present, due) in [
            (&own, present(false, false, false, false), None),
            (&own, present(true, false, false, false), None),
            (&own, present(true, true, false, false), None),
            (&own, present(true, true, true, false), None),
            (&own, present(false, true, false, false), Some(KEYS)),
            (&own, present(true, true, false, true), Some(KEYS)),
            (&own, present(true, true, true, true), Some(KEYS)),
            (&beside, present(false, false, false, false), None),
            (&beside, present(false, true, false, true), None),
            (&beside, present(true, true, false, true), None),
            (&beside, present(true, true, true, true), Some(USERS)),
            (&beside, present(true, true, true, false), Some(USERS)),
            (&beside, present(true, true, false, false), Some(USERS)),
            (&beside, present(true, false, false, false), Some(USERS)),
            (&of_that_name, present(true, true, true, false), None),
            (&django, present(true, true, true, true), None),
        ] {
            let table = match check_owner(schema, present) {
                Err(MigrationError::OtherUsers { table }) => Some(table),
                other => other.map(|()| None).expect("no other error"),
            };
            assert_eq!(table, due, "{schema:?}, {present:?}");
        }
    }

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
