//! What the URL of a database says, before it is opened.

use std::{net::IpAddr, path::Path, str::FromStr as _};

use ajwt_sqlx::ConnectError;
use reqwest::Url;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, sqlite::SqliteConnectOptions};

use crate::failure::Failure;

/// Refuses a URL that names no file, or one that is not there and may not be made, as a service's connection would make
/// it. SQLite itself tells: a name may be a URL in turn.
pub(super) async fn check_file(url: &str, may_create: bool) -> Result<(), Failure> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| ConnectError::Url { expected: "sqlite://PATH", source: error.into() })?
        .create_if_missing(may_create);
    let path: &Path = options.get_filename();
    let mut connection = match options.connect().await {
        Ok(connection) => connection,
        Err(_) if !may_create && !path.exists() => {
            return Err(Failure::new(format!(
                "there is no database {}; ajwt migrate makes it",
                path.display()
            )));
        }
        // The service's connection tells why.
        Err(_) => return Ok(()),
    };
    // Of `main`, the first of them: empty where it is in memory, or in a temporary file.
    let file: String =
        sqlx::query("PRAGMA database_list").fetch_one(&mut connection).await?.try_get("file")?;
    connection.close().await?;
    if file.is_empty() {
        return Err(Failure::new(
            "the database URL names no file, and all would be gone when the command ends: give one, as in sqlite://ajwt.db",
        ));
    }
    Ok(())
}

/// Says that a connection to another host takes any certificate, or no TLS at all, where nobody has said that it may;
/// `parameter` is what mends it.
pub(super) fn warn_if_unverified(url: &str, host: &str, parameter: &str) {
    if !names_mode(url) && !is_this_host(host) {
        tracing::warn!(
            "the database's server is not verified, and the connection may be without TLS: add {parameter} to the URL, \
             or the mode that is meant"
        );
    }
}

/// Whether a URL says how TLS is to be used.
fn names_mode(url: &str) -> bool {
    let is_mode = |name: &str| ["sslmode", "ssl-mode"].contains(&name);
    Url::parse(url).is_ok_and(|url| url.query_pairs().any(|(name, _)| is_mode(&name)))
}

/// Whether what is sent to a host, or to the socket at a path, stays on this one.
fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_told_from_others() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.8.9.10", "::1", "[::1]", "/run/postgresql"] {
            assert!(is_this_host(host), "{host}");
        }
        for host in ["db", "db.example", "localhost.example", "10.0.0.5", "0.0.0.0", "[2001:db8::1]", ""] {
            assert!(!is_this_host(host), "{host}");
        }
    }

    #[tokio::test]
    async fn what_is_in_memory_is_told_from_files() {
        for (url, is_due) in [
            ("sqlite::memory:", true),
            ("sqlite://:memory:?cache=private", true),
            ("sqlite:sqlite::memory:", true),
            ("sqlite:%3Amemory%3A", true),
            ("sqlite:", true),
            ("sqlite://?mode=rw", true),
            ("sqlite://ajwt.db?mode=memory", true),
            ("sqlite://ajwt.db?mode=memory&mode=rwc", true),
            ("sqlite://ajwt.db?%6Dode=mem%6Fry", true),
            ("sqlite:file:", true),
            ("sqlite:file::memory:", true),
            ("sqlite:file::memory:%3Fcache=shared", true),
            ("sqlite:file:ajwt.db%3Fmode=memory", true),
            ("sqlite://ajwt.db?vfs=memdb", true),
            ("sqlite://ajwt.db?vfs=memdb%00", true),
            ("sqlite:file:/ajwt.db%3Fvfs=memdb", true),
            ("sqlite:file:ajwt.db%3Fmode%2500x=memory%2500x", true),
            ("sqlite:file:%253Amemory%253A", true),
            ("sqlite:file::memory:%2500x", true),
            ("sqlite:file::memory:%23x", true),
            ("sqlite:file:%2500x", true),
            ("sqlite:%00x?immutable=true", true),
            ("sqlite:file://", true),
            ("sqlite:file://localhost", true),
            ("sqlite://ajwt.db", false),
            ("sqlite://ajwt.db?mode=rwc", false),
            ("sqlite:data:memory:", false),
            ("sqlite:///srv/[data]/:memory:", false),
            ("sqlite://mode=memory", false),
            ("sqlite:%3Fmode=memory", false),
            ("sqlite:file:ajwt.db%3Fmode=rw", false),
            ("sqlite://ajwt.db?vfs=unix-dotfile", false),
            ("sqlite://memdb", false),
            ("sqlite:file:///srv/ajwt.db", false),
            ("sqlite:file:ajwt.db%253Fmode=memory", false),
            ("sqlite:file:ajwt%252Edb%2500x", false),
        ] {
            let told = check_file(url, false).await.err().map(|failure| failure.to_string());
            let is_told =
                told.as_deref().is_some_and(|told| told.starts_with("the database URL names no file"));
            assert_eq!(is_told, is_due, "{url}: {told:?}");
        }
    }

    #[test]
    fn a_mode_is_seen_in_a_url() {
        for (url, is_named) in [
            ("postgres://u:p@db/a?sslmode=prefer", true),
            ("postgres://u:p@db/a?application_name=a&ssl-mode=disable", true),
            ("mysql://u:p@db/a?ssl%2Dmode=PREFERRED", true),
            ("postgres://u:sslmode=a@db/sslmode=a", false),
            ("postgres://u:p@db/a?sslrootcert=sslmode", false),
            ("mysql://u:p@db/a", false),
        ] {
            assert_eq!(names_mode(url), is_named, "{url}");
        }
    }
}
