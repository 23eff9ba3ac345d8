//! The URL of a PostgreSQL database.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::error::ConnectError;

/// What sqlx knows in a URL, besides `options[NAME]`.
const PARAMETERS: [&str; 18] = [
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

/// What the URL says.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let not_usable =
        |source| ConnectError::Url { expected: "postgres://USER:PASSWORD@HOST/DATABASE", source };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(not_usable("it does not begin with postgres://".into()));
    }
    check_parameters(url).map_err(|error| not_usable(error.into()))?;
    PgConnectOptions::from_str(url).map_err(|error| not_usable(error.into()))
}

/// sqlx ignores a parameter that it does not know, which may be a misspelt `sslmode`, and logs it, which may be a
/// part of a password. So it is not shown here either.
fn check_parameters(url: &str) -> Result<(), String> {
    // What is no URL sqlx says itself.
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    let is_known =
        |name: &str| PARAMETERS.contains(&name) || name.starts_with("options[") && name.ends_with(']');
    if url.query_pairs().all(|(name, _)| is_known(&name)) {
        return Ok(());
    }
    let known = PARAMETERS.join(", ");
    Err(format!("a parameter after its '?' is none of {known}; in a password write '?' as %3F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_would_be_ignored_is_refused() {
        let host = "postgres://guido:pw@localhost/db";
        for good in
            ["", "?sslmode=require&application_name=a", "?options[search_path]=a", "?ssl%6dode=require"]
        {
            assert_eq!(check_parameters(&format!("{host}{good}")), Ok(()), "{good}");
        }
        for bad in ["?sslmod=require", "?SSLMODE=require", "?options[a=b", "?user=a&passwd=secret", "?secret"]
        {
            let told = options(&format!("{host}{bad}")).map(drop).expect_err("an error");
            let told = format!("{told:?}");
            assert!(told.contains("is none of") && !told.contains("secret"), "{bad}: {told}");
        }
    }

    /// One that sqlx does not know any more would be logged again.
    #[test]
    fn sqlx_knows_every_one() {
        for name in PARAMETERS {
            let value = match name {
                "hostaddr" => "127.0.0.1",
                "port" | "statement-cache-capacity" => "1",
                "sslmode" | "ssl-mode" => "disable",
                _ => "a",
            };
            let with = |name| format!("{:?}", options(&format!("postgres://u:p@h:2/d?{name}={value}")).ok());
            let without = format!("{:?}", options("postgres://u:p@h:2/d").ok());
            assert_ne!(with(name), without, "{name}");
        }
    }
}
