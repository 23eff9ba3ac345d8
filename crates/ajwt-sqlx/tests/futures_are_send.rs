//! What the stores do can be done in a task, in a handler of tonic, and in a method of `#[async_trait]`: their futures
//! are `Send`. That this compiles is the test.

#[allow(dead_code, reason = "without a database there is nothing to ask")]
fn is_send<T: Send>(_: T) {}

#[cfg(feature = "mysql")]
#[test]
fn futures_of_mysql_are_send() {
    use ajwt_sqlx::{MySqlNonceBackend, MySqlRepository};

    let _: fn(&MySqlRepository, &MySqlNonceBackend) = |repository, nonces| {
        is_send(MySqlRepository::connect(""));
        is_send(repository.migrate());
        is_send(repository.migrate_without_triggers());
        is_send(repository.check());
        is_send(repository.audit(1));
        is_send(nonces.initialise());
        is_send(nonces.check());
        is_send(nonces.sweep());
    };
}

#[cfg(feature = "postgres")]
#[test]
fn futures_of_postgres_are_send() {
    use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository};

    let _: fn(&PostgresRepository, &PostgresNonceBackend) = |repository, nonces| {
        is_send(PostgresRepository::connect(""));
        is_send(repository.migrate());
        is_send(repository.check());
        is_send(repository.audit(1));
        is_send(nonces.initialise());
        is_send(nonces.check());
        is_send(nonces.sweep());
    };
}

#[cfg(feature = "sqlite")]
#[test]
fn futures_of_sqlite_are_send() {
    use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};

    let _: fn(&SqliteRepository, &SqliteNonceBackend) = |repository, nonces| {
        is_send(SqliteRepository::connect(""));
        is_send(repository.migrate());
        is_send(repository.check());
        is_send(repository.audit(1));
        is_send(nonces.initialise());
        is_send(nonces.check());
        is_send(nonces.sweep());
    };
}
