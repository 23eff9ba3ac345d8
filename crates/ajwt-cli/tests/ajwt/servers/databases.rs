//! The whole way on the databases of a network.

use ajwt_test_servers::sql::{Database, Kind, Server};
use sqlx::{Connection as _, MySqlConnection, PgConnection};

use crate::support::{Folder, Gateway};

async fn the_whole_way(url: &str, migrate: &str) {
    let folder = Folder::new();
    let database = format!("--database-url {url}");
    let old = "the tables of ajwt are missing or of another version; run ajwt migrate (keys beside a users table of \
               your own are not for this program)";
    assert_eq!(folder.bad(&format!("user list {database}")), old);
    folder.good(&format!("{migrate} {database}"));
    folder.good(&format!("{migrate} {database}"));
    folder.good(&format!("nonce init --nonce sql {database}"));
    let folder = folder.with_billing(&database);

    let gateway = Gateway::start(&folder, &format!("{database} --nonce sql"));
    let second = Gateway::start(&folder, &format!("{database} --nonce sql"));
    let token = folder.authorization();
    assert_eq!(gateway.status(&token).await, 200);
    assert_eq!(second.status(&token).await, 401, "the other gateway knows");
    assert_eq!(gateway.text("/readyz").await, "ready\n");
    assert!(folder.good(&format!("user list {database}")).contains("billing   yes"));
    assert_eq!(folder.good(&format!("audit {database}")).lines().count(), 3);

    folder.good(&format!("key revoke billing 1 {database}"));
    crate::support::eventually("revocation", async || gateway.status(&folder.authorization()).await == 401)
        .await;
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        !folder.good(&format!("key list billing {database}")).trim_end().ends_with('-'),
        "its use is noted"
    );

    let (due, disabled) = if url.starts_with("mysql") {
        ("ssl-mode=VERIFY_IDENTITY", "ssl-mode=DISABLED")
    } else {
        ("sslmode=verify-full", "sslmode=disable")
    };
    // Linux takes it for itself; by its name it is another host.
    let elsewhere = url.replacen("127.0.0.1", "0.0.0.0", 1);
    let without_tls = format!("{elsewhere}?{disabled}");
    for (url, is_told) in [(url, false), (&*elsewhere, true), (&*without_tls, false)] {
        let ran = folder.ajwt(&["user", "list", "--database-url", url]);
        let warning = format!("the connection may be without TLS: add {due} to the URL");
        assert_eq!((ran.code, ran.err.contains(&warning)), (Some(0), is_told), "{url}: {ran:?}");
    }
}

#[tokio::test]
async fn on_postgresql() {
    let database = Database::create("AJWT_TEST_POSTGRES");
    let url = database.url();
    the_whole_way(&url, "migrate").await;
    let told = Folder::new().bad(&format!("migrate --without-triggers --database-url {url}"));
    assert!(told.starts_with("--without-triggers is for MySQL and MariaDB"), "{told}");
}

#[tokio::test]
async fn on_mysql() {
    let database = Database::create("AJWT_TEST_MYSQL");
    the_whole_way(&database.url(), "migrate").await;
}

/// Not as one that does not run.
#[tokio::test]
async fn a_server_without_a_connection_left_says_so() {
    let server = Server::start(Kind::Postgres, &["-c", "max_connections=20"]);
    let url = server.url("postgres");
    let mut others = Vec::new();
    while let Ok(taken) = PgConnection::connect(&url).await {
        others.push(taken);
    }
    let told = Folder::new().bad(&format!("key list billing --database-url {url}"));
    assert!(
        told.starts_with("the database cannot be opened: ") && told.contains("too many clients"),
        "{told}"
    );
}

/// A binary log, and an account that may do nothing outside of its database.
#[tokio::test]
async fn on_mysql_that_forbids_triggers() {
    let server = Server::start(Kind::MySql, &["--log-bin=binlog", "--server-id=1"]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in
        ["CREATE DATABASE ajwt", "CREATE USER app@'127.0.0.1'", "GRANT ALL ON ajwt.* TO app@'127.0.0.1'"]
    {
        sqlx::query(sql).execute(&mut admin).await.expect(sql);
    }
    let url = server.url("ajwt").replace("root@", "app@");
    the_whole_way(&url, "migrate --without-triggers").await;
    assert_eq!(
        Folder::new().bad(&format!("migrate --database-url {url}")),
        "the server lets this account make no triggers; have it set log_bin_trust_function_creators, or run ajwt migrate --without-triggers"
    );
}
