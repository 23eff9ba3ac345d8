//! Users, keys, trusts and the audit, in a database of SQLite.

use ajwt_core::PrivateKey;
use ajwt_server::MAX_KEYS;
use serde_json::Value;

use crate::support::{Folder, Gateway};

const DATABASE: &str = "--database-url sqlite://ajwt.db";

fn json(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn users() {
    let folder = Folder::with_database();
    let ran = folder.ajwt(&["user", "add", "caf\u{e9} \u{202e}x", "--database-url", "sqlite://ajwt.db"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    folder.good(&format!("user disable billing {DATABASE}"));
    let list = || folder.good(&format!("user list {DATABASE}"));
    assert_eq!(list(), "USERNAME        ACTIVE\nbilling         no\ncaf\u{e9} \\u{202e}x  yes\n");
    let users = json(&folder.good(&format!("user list --json {DATABASE}")));
    assert_eq!(users[1], serde_json::json!({"username": "caf\u{e9} \u{202e}x", "active": true}));
    folder.good(&format!("user enable billing {DATABASE}"));
    assert!(list().contains("billing         yes"));
    folder.good(&format!("user remove billing {DATABASE}"));
    assert!(!list().contains("billing"));

    for words in ["user disable", "user remove", "key list", "trust list"] {
        assert_eq!(
            folder.bad(&format!("{words} billing {DATABASE}")),
            "there is no user \"billing\"; ajwt user list shows who there is",
            "{words}"
        );
    }
    folder.good(&format!("user add billing {DATABASE}"));
    assert_eq!(folder.bad(&format!("user add billing {DATABASE}")), "there is a user \"billing\" already");
}

#[test]
fn keys_of_a_user() {
    let folder = Folder::with_database();
    folder.good("keygen --format openssh -o second");
    let added = folder
        .good(&format!("key add billing second.pub --comment of --expires 2027-01-31 --json {DATABASE}"));
    let added = &json(&added)[0];
    assert_eq!((&added["id"], &added["expires_at"]), (&Value::from(2), &Value::from("2027-01-31T00:00:00Z")));
    assert_eq!((&added["comment"], &added["type"]), (&Value::from("of"), &Value::from("Ed25519")));

    let list = || json(&folder.good(&format!("key list billing --json {DATABASE}")));
    let ids = |keys: &[Value]| keys.iter().map(|key| key["id"].as_i64().expect("an id")).collect::<Vec<_>>();
    assert_eq!(ids(&list()), [2, 1], "the newest first");
    folder.good(&format!("key expire billing 2 never {DATABASE}"));
    folder.good(&format!("key expire billing 1 2030-01-01T12:00:00Z {DATABASE}"));
    assert_eq!(list()[0]["expires_at"], Value::Null);
    assert_eq!(list()[1]["expires_at"], Value::from("2030-01-01T12:00:00Z"));
    folder.good(&format!("key revoke billing 2 {DATABASE}"));
    assert!(list()[0]["revoked_at"].is_string());
    for time in ["never", "2030-01-01"] {
        let ran = folder.ajwt(&["key", "expire", "billing", "2", time, "--database-url", "sqlite://ajwt.db"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), "ajwt: key 2 is revoked, and stays so\n"));
    }
    assert!(list()[0]["revoked_at"].is_string());
    folder.good(&format!("key remove billing 1 {DATABASE}"));
    assert_eq!(ids(&list()), [2]);
    let table = folder.good(&format!("key list billing {DATABASE}"));
    assert!(table.starts_with("ID  TYPE     FINGERPRINT ") && table.lines().count() == 2, "{table}");

    folder.write("jwk", folder.good("key show billing.key --format jwk"));
    folder.good(&format!("key add billing jwk {DATABASE}"));
    let pem = folder.ajwt_with(
        &["key", "add", "billing", "-", "--database-url", "sqlite://ajwt.db"],
        &folder.read("second.pub"),
    );
    assert_eq!(pem.code, Some(1), "it is revoked: {pem:?}");
    assert!(pem.err.contains("already (revoked keys count: make a new one)"), "{pem:?}");
}

#[test]
fn a_key_that_cannot_be_added_is_told() {
    let folder = Folder::with_database();
    folder.write("text", "hello");
    folder.write("set", folder.good("key show billing.key --format jwks"));
    folder.write("json", "{\"a\":1}");
    folder.write("cert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (words, told) in [
        ("nobody billing.key.pub", "there is no user \"nobody\"; ajwt user list shows"),
        ("billing nothing", "nothing cannot be read: No such file or directory (os error 2)"),
        ("billing text", "text holds no usable public key: no key found"),
        (
            "billing set",
            "set holds no usable public key: this is a JWK Set where one key is due; ajwt key show takes its keys out",
        ),
        ("billing json", "json holds no usable public key: member \"kty\" is missing"),
        (
            "billing cert",
            "cert holds no usable public key: this is an X.509 certificate, not a bare key; take the key out: openssl x509",
        ),
        (
            "billing billing.key",
            "billing.key holds no usable public key: this is a private key where a public one is due",
        ),
    ] {
        let found = folder.bad(&format!("key add {words} {DATABASE}"));
        assert!(found.starts_with(told), "{words}: {found}");
    }
    for words in ["revoke billing 7", "remove billing 7", "expire billing 7 never"] {
        let words: Vec<&str> = words.split(' ').collect();
        let words = [&["key"], words.as_slice()].concat().join(" ");
        assert_eq!(folder.bad(&format!("{words} {DATABASE}")), "the user has no key 7");
    }
    let keys = json(&folder.good(&format!("key list billing --json {DATABASE}")));
    assert_eq!(keys.len(), 1, "nothing is half written");
}

/// As in Django's table, where nothing keeps a key from being there twice.
#[tokio::test]
async fn other_rows_of_a_key_that_ends_are_told() {
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    let folder = Folder::with_database();
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db"));
    let mut connection = options.connect().await.expect("connected");
    for values in [
        "user_id, key, 'two', 0, NULL, NULL",
        "user_id, key, 'three', 0, 1, NULL",
        "user_id, 'x', 'four', 0, NULL, NULL",
        "user_id, key, 'five', 0, NULL, 1",
    ] {
        let sql = format!(
            "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at, revoked_at, expires_at)
            SELECT {values} FROM ajwt_public_key WHERE id = 1"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("added");
    }
    connection.close().await.expect("closed");
    for (words, told) in [
        (
            "revoke billing 1",
            "revoked key 1\najwt: key 2 is the same one, and goes on working until it is ended, too",
        ),
        (
            "remove billing 3",
            "removed key 3\najwt: key 2 is the same one, and goes on working until it is ended, too",
        ),
        ("remove billing 4", "removed key 4"),
        ("remove billing 2", "removed key 2"),
    ] {
        let command = format!("key {words} {DATABASE}");
        let ran = folder.ajwt(&command.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.code, ran.err), (Some(0), format!("ajwt: {told}\n")), "{words}");
    }
}

/// Nothing in another row keeps a key from being ended.
#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_no_other_key() {
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    let folder = Folder::with_database();
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db"));
    let mut connection = options.connect().await.expect("connected");
    for add in [
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at)
        SELECT user_id, CAST(x'ff41' AS TEXT), 'two', 0 FROM ajwt_public_key WHERE id = 1",
        // A time that is none, which a table that is not STRICT may hold.
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'ajwt_public_key'",
        "PRAGMA writable_schema = RESET",
        "INSERT INTO ajwt_user (id, username, active, created_at) VALUES (7, 'eve', 1, 0)",
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at) VALUES (7, 'x', 'x', 'once')",
    ] {
        sqlx::query(add).execute(&mut connection).await.expect("added");
    }
    let keys = json(&folder.good(&format!("key list billing --json {DATABASE}")));
    let types: Vec<_> = keys.iter().map(|key| &key["type"]).collect();
    assert_eq!(types, ["no usable key", "Ed25519"], "the newest first");
    let unread = concat!(
        "\najwt: the other keys could not all be read; see whether one of them is the same: ",
        env!("CARGO_PKG_REPOSITORY"),
        "/blob/main/docs/database.md#a-key-that-leaked"
    );
    for (words, told) in [
        // Eve's keys cannot be read.
        ("revoke billing 1", format!("revoked key 1{unread}")),
        ("remove billing 2", "removed key 2".to_owned()),
    ] {
        let command = format!("key {words} {DATABASE}");
        let ran = folder.ajwt(&command.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.code, ran.err), (Some(0), format!("ajwt: {told}\n")), "{words}");
    }
    let left = "SELECT count(*) FROM ajwt_public_key WHERE id = 1 AND revoked_at > 0 OR id = 2";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.expect("read");
    assert_eq!(left, 1);
    connection.close().await.expect("closed");
}

#[test]
fn authorized_keys_are_imported_all_or_none() {
    let folder = Folder::with_database();
    let mut lines =
        vec!["# of the billing service".to_owned(), folder.good("key show billing.key --format openssh")];
    for name in ["a", "b"] {
        folder.good(&format!("keygen --format openssh -o {name}"));
        lines.push(format!("{} {name}@host", folder.read(&format!("{name}.pub")).trim_end()));
    }
    let count = || json(&folder.good(&format!("key list billing --json {DATABASE}"))).len();
    let import = format!("key import billing --authorized-keys keys {DATABASE}");

    folder.write("keys", format!("{}\nno-pty ssh-ed25519 AAAA\n", lines.join("\n")));
    let told = folder.bad(&import);
    assert!(
        told.starts_with("keys is not usable, and no key was added: line 6 has the option \"no-pty\""),
        "{told}"
    );
    assert_eq!(count(), 1);

    folder.write("keys", lines.join("\n"));
    let added = json(&folder.good(&format!("{import} --json")));
    let comments: Vec<_> = added.iter().map(|key| key["comment"].as_str().expect("a comment")).collect();
    assert_eq!((comments, count()), (vec!["a@host", "b@host"], 3), "one was there");
    assert_eq!(json(&folder.good(&format!("{import} --json"))).len(), 0, "again");
    assert_eq!(count(), 3);
    let id = added[0]["id"].as_i64().expect("an id");
    folder.good(&format!("key revoke billing {id} {DATABASE}"));
    let ran = folder.ajwt(&import.split(' ').collect::<Vec<_>>());
    let told = format!("the key {} is revoked", added[0]["fingerprint"].as_str().expect("a fingerprint"));
    assert!(ran.code == Some(0) && ran.err.contains(&told), "{ran:?}");
    assert_eq!(ran.err.matches("is revoked").count(), 1, "{ran:?}");
    assert_eq!(
        folder.bad(&format!("key import nobody --authorized-keys keys {DATABASE}")),
        "there is no user \"nobody\"; ajwt user list shows who there is"
    );
}

#[test]
fn an_import_of_more_keys_than_count_adds_none() {
    let folder = Folder::with_database();
    let lines: Vec<String> = (0..MAX_KEYS)
        .map(|_| PrivateKey::generate_ed25519().expect("a key").public_key().to_openssh("") + "\n")
        .collect();
    let count = || json(&folder.good(&format!("key list billing --json {DATABASE}"))).len();
    let import = format!("key import billing --authorized-keys keys {DATABASE}");

    // Twice in the file, and once in the record, which has a key of its own.
    folder.write("keys", [lines.concat(), lines.concat()].concat());
    let told = |new: usize, counting: usize| {
        format!(
            "no key was added: {new} of the file are new, the user has {counting} that are not revoked, and at most 32 \
             of a user count; revoke or remove keys (ajwt key list), or shorten the file"
        )
    };
    assert_eq!(folder.bad(&import), told(MAX_KEYS, 1));
    assert_eq!(count(), 1);
    folder.good(&format!("key revoke billing 1 {DATABASE}"));
    let ran = folder.ajwt(&import.split(' ').collect::<Vec<_>>());
    let due = "ajwt: added 32 of 64 keys; the user has the others already\n";
    assert_eq!((ran.code, ran.err.as_str(), count()), (Some(0), due, MAX_KEYS + 1), "{}", ran.out);
    // Nothing of it is new.
    assert_eq!(json(&folder.good(&format!("{import} --json"))).len(), 0);
    folder.write("keys", PrivateKey::generate_ed25519().expect("a key").public_key().to_openssh(""));
    assert_eq!(folder.bad(&import), told(1, MAX_KEYS));
}

#[test]
fn trusted_urls() {
    let folder = Folder::with_database();
    folder.good(&format!("trust add --no-fetch billing https://a.example/jwks.json {DATABASE}"));
    let list = folder.good(&format!("trust list billing {DATABASE}"));
    assert_eq!(list, "ID  URL                          LAST USED ON\n1   https://a.example/jwks.json  -\n");
    for (words, told) in [
        ("add --no-fetch billing https://a.example/jwks.json", "the URL is trusted for the user already"),
        ("add billing ftp://a.example/", "\"ftp://a.example/\" is not usable as the URL of a key set"),
        ("add --no-fetch nobody https://a.example/", "there is no user \"nobody\"; ajwt user list shows"),
        ("remove nobody https://a.example/", "there is no user \"nobody\"; ajwt user list shows"),
        (
            "remove billing https://b.example/",
            "the URL is not trusted for that user; ajwt trust list billing",
        ),
    ] {
        let found = folder.bad(&format!("trust {words} {DATABASE}"));
        assert!(found.starts_with(told), "{words}: {found}");
    }
    folder.good(&format!("trust remove billing https://a.example/jwks.json {DATABASE}"));
    assert_eq!(folder.good(&format!("trust list billing {DATABASE}")).lines().count(), 1);
}

#[test]
fn the_audit_tells_who_it_was() {
    let folder = Folder::with_database();
    folder.good(&format!("user disable billing --actor amelie {DATABASE}"));
    let output = folder
        .command(crate::support::AJWT)
        .args(["user", "enable", "billing", "--database-url", "sqlite://ajwt.db"])
        .env("USER", "root")
        .env("SUDO_USER", "guido")
        .output()
        .expect("it runs");
    assert!(output.status.success());
    let audit = json(&folder.good(&format!("audit --limit 2 --json {DATABASE}")));
    let told: Vec<_> = audit.iter().map(|row| (row["actor"].as_str(), row["action"].as_str())).collect();
    let due = [("guido", "activate_user"), ("amelie", "deactivate_user")];
    assert_eq!(told, due.map(|(actor, action)| (Some(actor), Some(action))));
    let all = folder.good(&format!("audit {DATABASE}"));
    assert!(all.starts_with("ID  AT ") && all.lines().count() == 5, "{all}");
}

/// Nobody's name is none.
#[test]
fn the_audit_names_no_empty_actor() {
    let folder = Folder::with_database();
    for (variables, actor) in [
        ([("SUDO_USER", ""), ("USER", "guido"), ("LOGNAME", "amelie")], "guido"),
        ([("SUDO_USER", ""), ("USER", ""), ("LOGNAME", "amelie")], "amelie"),
        ([("SUDO_USER", ""), ("USER", ""), ("LOGNAME", "")], "unknown"),
    ] {
        let mut command = folder.command(crate::support::AJWT);
        command.args(["user", "add", actor]).args(DATABASE.split(' ')).envs(variables);
        assert!(command.output().expect("it runs").status.success());
        let audit = json(&folder.good(&format!("audit --limit 1 --json {DATABASE}")));
        assert_eq!(audit[0]["actor"], actor, "{variables:?}");
    }
    let words = ["user", "disable", "billing", "--actor", "", "--database-url", "sqlite://ajwt.db"];
    let ran = folder.ajwt(&words);
    assert!(ran.code == Some(2) && ran.err.contains("'--actor <NAME>'"), "{ran:?}");
}

#[test]
fn a_database_that_is_not_there_or_not_ready_is_told() {
    let folder = Folder::new();
    assert_eq!(
        folder.bad("user list"),
        "no database: give --database-url or set AJWT_DATABASE_URL, as in sqlite://ajwt.db"
    );
    assert_eq!(
        folder.bad(&format!("user list {DATABASE}")),
        "there is no database ajwt.db; ajwt migrate makes it"
    );
    let gateway = format!("gateway --listen 127.0.0.1:0 --nonce sql {DATABASE}");
    assert_eq!(folder.bad(&gateway), "there is no database ajwt.db; ajwt migrate makes it");
    assert_eq!(folder.names(), [""; 0], "looking makes no file");

    folder.write("ajwt.db", "");
    let old = "the tables of ajwt are missing or of another version; run ajwt migrate (keys beside a users table of \
               your own are not for this program)";
    for words in ["user list", "user add billing", "nonce init --nonce sql", "audit"] {
        assert_eq!(folder.bad(&format!("{words} {DATABASE}")), old, "{words}");
    }
    assert_eq!(folder.bad(&gateway), old);

    folder.write("other.db", "no database at all, and longer than the header of one would be");
    let told = folder.bad("migrate --database-url sqlite://other.db");
    assert!(told.contains("file is not a database"), "{told}");
    let told = folder.bad("user list --database-url postgres://ajwt:geheim@127.0.0.1:1/ajwt");
    assert!(
        told.starts_with("does the server run, at that address and port?: the database cannot be opened"),
        "{told}"
    );
    for url in
        ["oracle://ajwt:geheim@host/ajwt", "geheim", "sqlite:ajwt.db?geheim=1", "postgres://:geheim@[/"]
    {
        let told = folder.bad(&format!("user list --database-url {url}"));
        assert!(!told.contains("ajwt:geheim") && !told.contains(":geheim@"), "{told}");
    }
}

/// `migrate` would say that the tables are up to date, of which nothing is left.
#[test]
fn a_database_without_a_file_is_refused() {
    let folder = Folder::new();
    for url in [
        "sqlite:",
        "sqlite://",
        "sqlite://?mode=rwc",
        "sqlite::memory:",
        "sqlite://:memory:?cache=shared",
        "sqlite:%3Amemory%3A",
        "sqlite://ajwt.db?mode=memory",
        "sqlite://ajwt.db?mode=mem%6Fry",
        "sqlite:file::memory:",
    ] {
        for words in ["migrate", "user list", "gateway --listen 192.0.2.1:1 --nonce sql"] {
            let told = folder.bad(&format!("{words} --database-url {url}"));
            assert!(
                told.starts_with("the database URL names no file, and all would be gone"),
                "{url}: {told}"
            );
        }
    }
    assert_eq!(folder.names(), [""; 0]);
    folder.good("migrate --database-url sqlite://not:memory:");
    folder.good("user list --database-url sqlite://not:memory:");
    assert!(folder.names().contains(&"not:memory:".to_owned()), "{:?}", folder.names());
    folder.good("migrate --database-url sqlite:file:named.db");
    folder.good("user list --database-url sqlite:file:named.db");
    assert!(folder.names().contains(&"named.db".to_owned()), "{:?}", folder.names());
}

/// Django's tables, as far as they are read and written.
const DJANGO: &str = "
CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username VARCHAR(150) UNIQUE NOT NULL, is_active BOOL NOT NULL);
CREATE TABLE asymmetric_jwt_auth_publickey (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL,
    key TEXT NOT NULL, comment VARCHAR(100) NOT NULL, last_used_on DATETIME);
CREATE TABLE asymmetric_jwt_auth_jwksendpointtrust (id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL UNIQUE, jwks_url VARCHAR(200) NOT NULL, last_used_on DATETIME);
INSERT INTO auth_user (username, is_active) VALUES ('billing', 1);";

/// With a database as Django's migrations leave it.
async fn of_django() -> Folder {
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    let folder = Folder::new();
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db")).create_if_missing(true);
    let mut connection = options.connect().await.expect("connected");
    sqlx::raw_sql(DJANGO).execute(&mut connection).await.expect("made");
    connection.close().await.expect("closed");
    folder
}

#[tokio::test]
async fn the_tables_of_django() {
    let folder = of_django().await;
    let django = format!("{DATABASE} --schema django");
    folder.good(&format!("migrate {django}"));
    folder.good(&format!("nonce init --nonce sql {django}"));
    folder.good("keygen -o billing.key");
    folder.good(&format!("key add billing billing.key.pub --comment mine {django}"));
    assert_eq!(folder.good(&format!("user list {django}")), "USERNAME  ACTIVE\nbilling   yes\n");
    assert_eq!(
        folder.bad(&format!("user add amelie {django}")),
        "adding a user is not possible in the tables of this store; add it in Django, and then its key here"
    );
    let gateway = Gateway::start(&folder, &format!("--nonce sql {django}"));
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
    gateway.terminate();
    assert_eq!(gateway.wait().0.code(), Some(0));
    let keys = json(&folder.good(&format!("key list billing --json {django}")));
    assert!(keys[0]["last_used_on"].is_string() && keys[0]["comment"] == "mine", "{keys:?}");
}

/// Django's migrations make the tables of users and keys, and `ajwt migrate` that of used nonces.
#[tokio::test]
async fn beside_django_it_is_told_which_migration_is_missing() {
    let folder = of_django().await;
    let django = format!("{DATABASE} --schema django");
    assert_eq!(folder.good(&format!("user list {django}")), "USERNAME  ACTIVE\nbilling   yes\n");
    // Where it cannot listen, so that it ends in any case.
    let gateway = format!("gateway --listen 192.0.2.1:1 {django}");
    let of_nonces = "the table of used nonces is missing; run ajwt migrate --schema django";
    assert_eq!(folder.bad(&format!("{gateway} --nonce sql")), of_nonces);
    assert_eq!(folder.bad(&format!("nonce init --nonce sql {django}")), of_nonces);
    folder.good(&format!("migrate {django}"));
    let told = folder.bad(&format!("{gateway} --nonce sql"));
    assert!(told.starts_with("cannot listen on 192.0.2.1:1"), "{told}");
    // The gateway has only looked at the table, and not taken it into use.
    folder.good(&format!("nonce init --nonce sql {django}"));

    let folder = Folder::with_database();
    assert_eq!(
        folder.bad(&format!("user list {django}")),
        "Django's tables (auth_user, asymmetric_jwt_auth_*) are missing or of another version; run Django's migrations"
    );
}

/// The first of the two migrations, as an earlier version would have left it.
#[tokio::test]
async fn an_old_schema_is_told_and_migrated() {
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    let folder = Folder::with_database();
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db"));
    let mut connection = options.connect().await.expect("connected");
    for sql in ["DROP TABLE ajwt_revision", "DELETE FROM ajwt_migrations WHERE version = 2"] {
        sqlx::query(sql).execute(&mut connection).await.expect(sql);
    }
    let triggers: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .fetch_all(&mut connection)
        .await
        .expect("triggers");
    for trigger in triggers {
        let drop = sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"));
        sqlx::query(drop).execute(&mut connection).await.expect("dropped");
    }
    connection.close().await.expect("closed");
    let old = "the tables of ajwt are missing or of another version; run ajwt migrate (keys beside a users table of \
               your own are not for this program)";
    assert_eq!(folder.bad(&format!("key list billing {DATABASE}")), old);
    folder.good(&format!("migrate {DATABASE}"));
    assert_eq!(json(&folder.good(&format!("key list billing --json {DATABASE}"))).len(), 1);
}

#[tokio::test]
async fn beside_a_users_table_of_an_application_nothing_is_made() {
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    let folder = Folder::new();
    let options = SqliteConnectOptions::new().filename(folder.path("ajwt.db")).create_if_missing(true);
    let mut connection = options.connect().await.expect("connected");
    let keys = "CREATE TABLE ajwt_public_key (user_id BIGINT REFERENCES accounts (id))";
    sqlx::query(keys).execute(&mut connection).await.expect("made");
    connection.close().await.expect("closed");
    assert_eq!(
        folder.bad(&format!("migrate {DATABASE}")),
        "the database has keys or trusts (ajwt_public_key, ajwt_jwks_endpoint_trust) that are not of users in ajwt_user: \
         they are those of an application's own users, whom this program does not know; migrate by the application \
         (Schema::with_users), or name another database"
    );
}

/// Only MySQL forbids triggers to whoever may make tables.
#[test]
fn triggers_are_not_left_out_where_nobody_forbids_them() {
    let folder = Folder::new();
    assert_eq!(
        folder.bad(&format!("migrate --without-triggers {DATABASE}")),
        "there is no database ajwt.db; ajwt migrate makes it"
    );
    assert_eq!(folder.names(), [""; 0], "no file is made");
    folder.good(&format!("migrate {DATABASE}"));
    assert_eq!(
        folder.bad(&format!("migrate --without-triggers {DATABASE}")),
        "--without-triggers is for MySQL and MariaDB; this database lets whoever makes tables make triggers"
    );
}

#[test]
fn a_nonce_store_is_marked_as_new_once() {
    let folder = Folder::with_database();
    for _ in 0..2 {
        folder.good(&format!("nonce init --nonce sql {DATABASE}"));
    }
    for (nonce, told) in [
        ("--nonce memory", "memory needs no marking: its store is new at each start"),
        ("--nonce file", "--nonce is none of memory, sql, redis://HOST and rediss://HOST"),
        ("--nonce redis://:geheim@[", "the Redis URL with index 0 cannot be used"),
        ("--nonce redis://h --redis-prefix !", "the key prefix \"!\" is not 1 to 64 of the characters"),
    ] {
        let found = folder.bad(&format!("nonce init {nonce} {DATABASE}"));
        assert!(found.starts_with(told) && !found.contains("geheim"), "{nonce}: {found}");
    }
    assert_eq!(
        folder.bad(&format!("nonce init {DATABASE}")),
        "no nonce store: give --nonce or set AJWT_NONCE: memory, sql or redis://HOST"
    );
}
