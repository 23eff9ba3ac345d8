use ajwt_server::RepositoryError;
use thiserror::Error;

/// The tables of ajwt are missing or of another version.
///
/// It is the [source](std::error::Error::source) of a [`RepositoryError`] whose statement met a table, column or
/// function that is not there, and so of an `AdminError` or a `NonceError` made of that one. Its own source is what
/// the database says.
#[derive(Debug, Error)]
#[error("the tables of ajwt are missing or of another version; run the migrations")]
pub struct MissingTables(#[source] sqlx::Error);

/// Django's keys or trusts are those of users in another table than `auth_user`, which is the one that
/// [`Schema::django`](crate::Schema::django) reads. Where it is left over, its users have the ids of others.
///
/// It is the [source](std::error::Error::source) of a [`RepositoryError`] of `check`, and what `migrate` fails with.
#[derive(Debug, Error)]
#[error(
    "Django's keys and trusted URLs (asymmetric_jwt_auth_*) are not those of the users in auth_user: the project has a \
     user model of its own (AUTH_USER_MODEL), for which ajwt has tables of its own; docs/migrating-from-python.md tells \
     how callers are moved there"
)]
#[non_exhaustive]
pub struct CustomUserModel;

/// What sqlx says of it sends whoever reads it to the pool, when most often it is the server.
#[derive(Debug, Error)]
#[error(
    "no connection to the database in time: it refuses them, has none left, or all of the pool are in use"
)]
struct NoConnection(#[source] sqlx::Error);

/// What MySQL says of it names the account, but neither what ran as it nor what to do.
#[cfg(feature = "mysql")]
#[derive(Debug, Error)]
#[error(
    "a trigger or a view runs as an account that is gone; if it is a trigger of ajwt's tables, DELETE FROM \
     ajwt_migrations WHERE version = 2, and migrate as an account that stays"
)]
struct NoDefiner(#[source] sqlx::Error);

/// Wraps a database's error for the engine.
pub(crate) fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> RepositoryError {
    move |error| match error {
        sqlx::Error::PoolTimedOut => RepositoryError::new(what, NoConnection(error)),
        error if is_of_missing_tables(&error) => RepositoryError::new(what, MissingTables(error)),
        #[cfg(feature = "mysql")]
        error if crate::mysql::lacks_definer(&error) => RepositoryError::new(what, NoDefiner(error)),
        error => RepositoryError::new(what, error),
    }
}

/// PostgreSQL and MySQL have codes for it, SQLite has not.
fn is_of_missing_tables(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let code = error.code();
    ["42P01", "42703", "42883", "42S02", "42S22"].contains(&code.as_deref().unwrap_or_default())
        || error.message().starts_with("no such table")
        || error.message().starts_with("no such column")
}
