//! What docs/database.md says to do when something has gone wrong: a key that leaked, a database that is put back.

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions,
};

use crate::{
    support::{Folder, Gateway, project_file},
    walkthrough::{Shell, blocks},
};

const DATABASE: &str = "--database-url sqlite://ajwt.db";

/// The code blocks of a section of the page.
fn section(heading: &str) -> Vec<String> {
    let page = project_file("docs/database.md");
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect("the section");
    let section = section.split("\n##").next().unwrap_or_default();
    blocks(section).iter().map(|block| block.text.to_owned()).collect()
}

async fn open(folder: &Folder) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db"));
    options.connect().await.expect("connected")
}

#[tokio::test]
async fn other_users_with_a_key_that_ends_are_told() {
    let folder = Folder::with_database();
    for user in ["orders", "\u{202e}retired"] {
        for words in [vec!["user", "add", user], vec!["key", "add", user, "billing.key.pub"]] {
            let words: Vec<&str> = words.into_iter().chain(DATABASE.split(' ')).collect();
            assert_eq!(folder.ajwt(&words).code, Some(0), "{words:?}");
        }
    }
    let end =
        |words: &str| folder.ajwt(&format!("key {words} {DATABASE}").split(' ').collect::<Vec<_>>()).err;
    assert_eq!(
        end("revoke billing 1"),
        "ajwt: revoked key 1\n\
         ajwt: key 2 of the user orders is the same one: end it there, too\n\
         ajwt: key 3 of the user \\u{202e}retired is the same one: end it there, too\n"
    );

    // By the page's statement, however many users there are.
    let mut database = open(&folder).await;
    let fingerprint = folder.good("key show billing.key --format fingerprint");
    let section = section("### A key that leaked");
    let [statement] = section.as_slice() else { panic!("one block is due") };
    let statement = AssertSqlSafe(statement.replace("FINGERPRINT", fingerprint.trim_end()));
    let mut found: Vec<(String, i64)> =
        sqlx::query_as(statement).fetch_all(&mut database).await.expect("found");
    found.sort();
    assert_eq!(found, [("orders".to_owned(), 2), ("\u{202e}retired".to_owned(), 3)]);

    let many = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 998)
        INSERT INTO ajwt_user (username, active, created_at) SELECT 'user' || n, 1, 0 FROM number";
    let made = sqlx::query(many).execute(&mut database).await.expect("made");
    assert_eq!(made.rows_affected(), 998, "with those above one too many");
    database.close().await.expect("closed");
    assert_eq!(
        end("remove orders 2"),
        concat!(
            "ajwt: removed key 2\n\
             ajwt: there are too many users to see whether another one has the same key: ",
            env!("CARGO_PKG_REPOSITORY"),
            "/blob/main/docs/database.md#a-key-that-leaked\n"
        )
    );
}

/// Over what a process left that was killed.
#[tokio::test]
async fn a_backup_of_sqlite_is_put_back() {
    let folder = Folder::with_database();
    let gateway = Gateway::start(&folder, &format!("--nonce sql {DATABASE}"));
    let users = |database: &str| {
        let list = folder.good(&format!("user list --json --database-url sqlite://{database}"));
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let names = list.as_array().expect("users").iter().map(|user| user["username"].to_string());
        names.collect::<String>()
    };
    let section = section("### Of SQLite");
    let [back_up, put_back] = section.as_slice() else { panic!("two blocks are due") };

    // As long as the gateway has it open, what is new is in the log.
    folder.good(&format!("user add before {DATABASE}"));
    std::fs::copy(folder.path("ajwt.db"), folder.path("copy.db")).expect("copied");
    assert_eq!(users("copy.db"), "\"billing\"", "a copy of the one file is no backup");
    // By SQLite's library in place of its shell.
    let statement = back_up.split('"').nth(1).expect("a statement");
    let statement = statement.replace("backup.db", folder.path("backup.db").to_str().expect("text"));
    let mut database = open(&folder).await;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut database).await.expect("backed up");
    database.close().await.expect("closed");
    folder.good(&format!("user add after {DATABASE}"));
    drop(gateway);
    let log = std::fs::metadata(folder.path("ajwt.db-wal")).expect("a log that was left");
    assert!(log.len() > 0);

    Shell::new(&folder).run(put_back);
    let mut database = open(&folder).await;
    let check: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.expect("checked");
    assert_eq!(check, "ok");
    database.close().await.expect("closed");
    assert_eq!(users("ajwt.db"), "\"before\"\"billing\"");
    assert_eq!(users("old/ajwt.db"), "\"after\"\"before\"\"billing\"", "for what was revoked since");
}
