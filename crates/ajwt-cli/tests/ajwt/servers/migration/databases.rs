//! Databases of projects: a test gets a folder, its database by a URL, and Django's settings for it.

use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, PgConnection};

use crate::{servers::databases::server, support::Folder};

/// A password that a URL cannot have as it is, and as the page says that it is written there.
const PASSWORD: [&str; 2] = ["p@ss:w/rd#?%", "p%40ss%3Aw%2Frd%23%3F%25"];

pub(super) async fn with_sqlite(test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let folder = Folder::new();
    let path = folder.path("db.sqlite3");
    let settings = json!({"ENGINE": "django.db.backends.sqlite3", "NAME": path});
    test(&folder, &format!("sqlite://{}", path.display()), &settings).await;
}

pub(super) async fn with_postgresql(test_name: &str, test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let server = server("AJWT_TEST_POSTGRES");
    let name = format!("ajwt_migration_{test_name}_{}", std::process::id());
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.expect("connected");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut admin).await.expect("created");
    let url = format!("{server}/{name}");
    let parts: reqwest::Url = url.parse().expect("a URL");
    let settings = json!({
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": parts.username(),
        "HOST": parts.host_str(),
        "PORT": parts.port(),
    });
    test(&Folder::new(), &url, &settings).await;
    let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    sqlx::query(drop).execute(&mut admin).await.expect("dropped");
}

pub(super) async fn with_mysql(test_name: &str, test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let server = server("AJWT_TEST_MYSQL");
    let name = format!("ajwt_migration_{test_name}_{}", std::process::id());
    let mut admin = MySqlConnection::connect(&server).await.expect("connected");
    let [password, encoded] = PASSWORD;
    // With an account that may do nothing outside of Django's database.
    let create = format!(
        "CREATE DATABASE {name} CHARACTER SET utf8mb4;
        CREATE USER {name}@'127.0.0.1' IDENTIFIED BY '{password}';
        GRANT ALL ON {name}.* TO {name}@'127.0.0.1'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.expect("created");
    let parts: reqwest::Url = server.parse().expect("a URL");
    let (host, port) = (parts.host_str().expect("a host"), parts.port().expect("a port"));
    let settings = json!({
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        "USER": name,
        "PASSWORD": password,
        "HOST": host,
        "PORT": port,
    });
    test(&Folder::new(), &format!("mysql://{name}:{encoded}@{host}:{port}/{name}"), &settings).await;
    let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name}; DROP USER {name}@'127.0.0.1'"));
    sqlx::raw_sql(drop).execute(&mut admin).await.expect("dropped");
}
