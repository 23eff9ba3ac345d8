//! Databases of projects: a test gets a folder, its database by a URL, and Django's settings for it.

use ajwt_test_servers::sql::Database;
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection};

use crate::support::Folder;

/// A password that a URL cannot have as it is, and as the page says that it is written there.
const PASSWORD: [&str; 2] = ["p@ss:w/rd#?%", "p%40ss%3Aw%2Frd%23%3F%25"];

pub(super) async fn with_sqlite(test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let folder = Folder::new();
    let path = folder.path("db.sqlite3");
    let settings = json!({"ENGINE": "django.db.backends.sqlite3", "NAME": path});
    test(&folder, &format!("sqlite://{}", path.display()), &settings).await;
}

pub(super) async fn with_postgresql(test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let database = Database::create("AJWT_TEST_POSTGRES");
    let url = database.url();
    test(&Folder::new(), &url, &settings("postgresql", &url, "")).await;
}

pub(super) async fn with_mysql(test: impl AsyncFnOnce(&Folder, &str, &Value)) {
    let database = Database::create_with("AJWT_TEST_MYSQL", "CHARACTER SET utf8mb4");
    let url = database.url();
    let mut admin = MySqlConnection::connect(&url).await.expect("connected");
    let [password, encoded] = PASSWORD;
    // An account that may do nothing outside of Django's database, and has its name. After a failure it goes with its
    // server.
    let (_, account) = url.rsplit_once('/').expect("a database");
    let create = format!(
        "CREATE USER {account}@'127.0.0.1' IDENTIFIED BY '{password}';
        GRANT ALL ON * TO {account}@'127.0.0.1'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.expect("created");
    let url_of_account = url.replace("root@", &format!("{account}:{encoded}@"));
    test(&Folder::new(), &url_of_account, &settings("mysql", &url_of_account, password)).await;
    let drop = sqlx::AssertSqlSafe(format!("DROP USER {account}@'127.0.0.1'"));
    sqlx::raw_sql(drop).execute(&mut admin).await.expect("dropped");
}

/// Django's settings for a database of a server.
fn settings(engine: &str, url: &str, password: &str) -> Value {
    let url: reqwest::Url = url.parse().expect("a URL");
    json!({
        "ENGINE": format!("django.db.backends.{engine}"),
        "NAME": url.path().trim_start_matches('/'),
        "USER": url.username(),
        "PASSWORD": password,
        "HOST": url.host_str(),
        "PORT": url.port(),
    })
}
