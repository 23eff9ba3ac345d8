//! The URLs of databases behind a network.

use std::str::FromStr as _;

#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnectOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::error::ConnectError;

/// What sqlx knows in the URL of a MySQL server.
#[cfg(feature = "mysql")]
const MYSQL: [&str; 14] = [
    "charset",
    "collation",
    "socket",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "sslca",
    "sslcert",
    "sslkey",
    "sslmode",
    "statement-cache-capacity",
    "time-zone",
    "timezone",
];

/// What sqlx knows in the URL of a PostgreSQL server, besides `options[NAME]`.
#[cfg(feature = "postgres")]
const POSTGRES: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

#[cfg(feature = "mysql")]
pub(crate) fn mysql(url: &str) -> Result<MySqlConnectOptions, ConnectError> {
    let not_usable = |source| ConnectError::Url { expected: "mysql://USER:PASSWORD@HOST/DATABASE", source };
    if !url.starts_with("mysql://") && !url.starts_with("mariadb://") {
        return Err(not_usable("it does not begin with mysql://".into()));
    }
    check_parameters(url, &MYSQL).map_err(|error| not_usable(error.into()))?;
    MySqlConnectOptions::from_str(url).map_err(|error| not_usable(error.into()))
}

#[cfg(feature = "postgres")]
pub(crate) fn postgres(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let not_usable =
        |source| ConnectError::Url { expected: "postgres://USER:PASSWORD@HOST/DATABASE", source };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(not_usable("it does not begin with postgres://".into()));
    }
    check_parameters(url, &POSTGRES).map_err(|error| not_usable(error.into()))?;
    PgConnectOptions::from_str(url).map_err(|error| not_usable(error.into()))
}

/// sqlx ignores a parameter that it does not know, which may be a misspelt `sslmode`, and for PostgreSQL logs it,
/// which may be a part of a password. So it is not shown here either.
fn check_parameters(url: &str, known: &[&str]) -> Result<(), String> {
    // What is no URL sqlx says itself.
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    let is_option = |name: &str| {
        url.scheme().starts_with("postgres") && name.starts_with("options[") && name.ends_with(']')
    };
    if url.query_pairs().all(|(name, _)| known.contains(&&*name) || is_option(&name)) {
        return Ok(());
    }
    let known = known.join(", ");
    Err(format!("a parameter after its '?' is none of {known}; in a password write '?' as %3F"))
}

#[cfg(all(test, feature = "mysql", feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_would_be_ignored_is_refused() {
        let host = "postgres://guido:pw@localhost/db";
        for good in
            ["", "?sslmode=require&application_name=a", "?options[search_path]=a", "?ssl%6dode=require"]
        {
            assert!(postgres(&format!("{host}{good}")).is_ok(), "{good}");
        }
        for bad in ["?sslmod=require", "?SSLMODE=require", "?options[a=b", "?user=a&passwd=secret", "?secret"]
        {
            let told = postgres(&format!("{host}{bad}")).map(drop).expect_err("an error");
            let told = format!("{told:?}");
            assert!(told.contains("is none of") && !told.contains("secret"), "{bad}: {told}");
        }

        let host = "mysql://guido:pw@localhost/db";
        for good in ["", "?ssl-mode=VERIFY_CA&ssl-ca=a.pem", "?socket=/run/mysqld.sock"] {
            assert!(mysql(&format!("{host}{good}")).is_ok(), "{good}");
        }
        for bad in
            ["?ssl_mode=VERIFY_CA", "?sslMode=REQUIRED", "?options[a]=b", "?user=a&passwd=secret", "?secret"]
        {
            let told = mysql(&format!("{host}{bad}")).map(drop).expect_err("an error");
            let told = format!("{told:?}");
            assert!(told.contains("is none of") && !told.contains("secret"), "{bad}: {told}");
        }
    }

    /// As the guide from the Python library has it.
    #[test]
    fn a_url_can_name_a_socket() {
        let options = postgres("postgres:///shop?host=/var/run/postgresql&user=guido").expect("a URL");
        assert_eq!(options.get_socket(), Some(&"/var/run/postgresql".into()));
        assert_eq!((options.get_username(), options.get_database()), ("guido", Some("shop")));
        let options = mysql("mysql://guido:pw@localhost/shop?socket=/run/mysqld/mysqld.sock").expect("a URL");
        assert_eq!(options.get_socket(), Some(&"/run/mysqld/mysqld.sock".into()));
    }

    /// One that sqlx does not know any more would be ignored again.
    #[test]
    fn sqlx_knows_every_one() {
        let value = |name| match name {
            "hostaddr" => "127.0.0.1",
            "port" | "statement-cache-capacity" => "1",
            _ => "a",
        };
        for name in POSTGRES {
            let value = if ["sslmode", "ssl-mode"].contains(&name) { "disable" } else { value(name) };
            let with = format!("{:?}", postgres(&format!("postgres://u:p@h:2/d?{name}={value}")).ok());
            assert_ne!(with, format!("{:?}", postgres("postgres://u:p@h:2/d").ok()), "{name}");
        }
        for name in MYSQL {
            let value = if ["sslmode", "ssl-mode"].contains(&name) { "DISABLED" } else { value(name) };
            let with = format!("{:?}", mysql(&format!("mysql://u:p@h:2/d?{name}={value}")).ok());
            assert_ne!(with, format!("{:?}", mysql("mysql://u:p@h:2/d").ok()), "{name}");
        }
    }
}
