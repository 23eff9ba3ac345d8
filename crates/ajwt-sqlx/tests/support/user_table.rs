//! Keys and trusts beside a users table of the application's own.

use std::{error::Error, iter, sync::Arc};

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    AdminError, Authenticator, Freshness, KeyAdmin, KeyRecord, KeySource, KeyedUser as _, NewKey, Reason,
    RepositoryError, SystemClock, TrustRecord, UsageRecorder as _, UserRecord, testing,
};
use ajwt_sqlx::{MigrationError, MissingTables, Schema, UserTable};
use async_trait::async_trait;

use crate::{
    plans,
    store::{self, Store, authenticate, key, name, sign},
};

/// What a database's application has.
pub(crate) trait Application: Store {
    /// The migration that the application copies.
    const KEYS_AND_TRUSTS: &'static str;
    /// How it declares the column that refers to a user.
    const USER_ID: &'static str;
    /// The types that ids of users have, and what makes one.
    const IDS: [(&'static str, &'static str); 3];
    /// The column of names: where the database can, blind to case and accents.
    const EMAIL: &'static str;
    /// SQL for the schema or database that the tables are in.
    const NAMESPACE: &'static str;
    /// The source of the library's statements.
    const STATEMENTS: &'static str;
    /// SQL that counts what the tables hold, for plans.
    const ANALYZE: &'static str;

    /// The type of a column that refers to ids of this one.
    fn referring(id_type: &str) -> &str {
        id_type
    }
    /// Runs several statements.
    async fn run(&self, sql: &str);
    /// The steps by which a statement finds the user `user777`.
    async fn plan(&self, find_user: &str) -> Vec<String>;
}

fn accounts() -> UserTable {
    UserTable::new("Accounts").with_id("account id").with_name("e-mail").with_active("enabled")
}

/// Quotes a name.
fn quoted<S: Application>(name: &str) -> String {
    if S::KEY.starts_with('`') { format!("`{name}`") } else { format!("\"{name}\"") }
}

/// A database with the application's tables and ajwt's.
pub(crate) async fn database<S: Application>((id_type, new_id): (&str, &str)) -> (S::Database, S) {
    let (database, store) = S::create().await;
    let accounts = quoted::<S>("Accounts");
    let (id, email) = (quoted::<S>("account id"), quoted::<S>("e-mail"));
    store
        .run(&format!(
            "CREATE TABLE {accounts} (
                {id} {id_type} {new_id},
                {email} {},
                enabled BOOLEAN DEFAULT TRUE,
                PRIMARY KEY ({id})
            );
            CREATE INDEX accounts_email ON {accounts} ({email});",
            S::EMAIL
        ))
        .await;
    let reference = format!("REFERENCES {accounts} ({id})");
    let migration = S::KEYS_AND_TRUSTS.replace("REFERENCES accounts (id)", &reference);
    assert_eq!(migration.matches(&reference).count(), 2);
    assert_eq!(migration.matches(S::USER_ID).count(), 2);
    store.run(&migration.replace(S::USER_ID, &format!("user_id {} NOT NULL", S::referring(id_type)))).await;
    let store = store.with_schema(Schema::with_users(self::accounts()));
    store::set_up(&store).await;
    (database, store)
}

pub(crate) async fn add_account<S: Application>(store: &S, email: &str) {
    let (accounts, column) = (quoted::<S>("Accounts"), quoted::<S>("e-mail"));
    let email = email.replace('\'', "''").replace('\\', if S::KEY == "key" { "\\" } else { "\\\\" });
    store.execute(&format!("INSERT INTO {accounts} ({column}) VALUES ('{email}')")).await;
}

/// An error and what it comes of.
fn told(error: &(dyn Error + 'static)) -> Vec<String> {
    iter::successors(Some(error), |error| (**error).source()).map(ToString::to_string).collect()
}

/// The store, with what only the application can do done by it.
#[derive(Debug)]
struct Whole<S>(S);

#[async_trait]
impl<S: Application> KeyAdmin for Whole<S> {
    async fn add_user(&self, username: &Username) -> Result<(), AdminError> {
        let refused = self.0.add_user(username).await;
        assert!(matches!(refused, Err(AdminError::NotInThisSchema { .. })), "{refused:?}");
        if self.0.keys(username).await.is_ok() {
            return Err(AdminError::UserExists { username: username.as_str().to_owned() });
        }
        add_account(&self.0, username.as_str()).await;
        Ok(())
    }

    async fn set_user_active(&self, username: &Username, active: bool) -> Result<(), AdminError> {
        self.0.set_user_active(username, active).await
    }

    async fn remove_user(&self, username: &Username) -> Result<(), AdminError> {
        let refused = self.0.remove_user(username).await;
        assert!(matches!(refused, Err(AdminError::NotInThisSchema { .. })), "{refused:?}");
        self.0.keys(username).await?;
        let bytes: String = username.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
        let email = quoted::<S>("e-mail");
        let hex = if S::KEY == "key" && S::TRUE == "TRUE" {
            format!("encode(convert_to({email}::TEXT, 'UTF8'), 'hex')")
        } else {
            format!("lower(hex({email}))")
        };
        let accounts = quoted::<S>("Accounts");
        let deleted = self.0.execute(&format!("DELETE FROM {accounts} WHERE {hex} = '{bytes}'")).await;
        assert_eq!(deleted, 1, "{username:?}");
        Ok(())
    }

    async fn users(&self) -> Result<Vec<UserRecord>, AdminError> {
        self.0.users().await
    }

    async fn add_key(&self, username: &Username, key: &NewKey) -> Result<KeyRecord, AdminError> {
        self.0.add_key(username, key).await
    }

    async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError> {
        self.0.keys(username).await
    }

    async fn set_key_expiry(
        &self,
        username: &Username,
        key_id: i64,
        expires_at: Option<Timestamp>,
    ) -> Result<(), AdminError> {
        self.0.set_key_expiry(username, key_id, expires_at).await
    }

    async fn revoke_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        self.0.revoke_key(username, key_id).await
    }

    async fn remove_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        self.0.remove_key(username, key_id).await
    }

    async fn add_trust(&self, username: &Username, url: &str) -> Result<TrustRecord, AdminError> {
        self.0.add_trust(username, url).await
    }

    async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError> {
        self.0.trusts(username).await
    }

    async fn remove_trust(&self, username: &Username, trust_id: i64) -> Result<(), AdminError> {
        self.0.remove_trust(username, trust_id).await
    }
}

/// The suites hold with ids of each type.
pub(crate) async fn the_suites_hold_with_ids_of_each_type<S: Application>() {
    for id in S::IDS {
        let (_database, store) = database::<S>(id).await;
        let whole = Whole(store.clone());
        testing::key_admin(&whole).await;
        testing::user_repository(&whole, &store).await;
        testing::trusted_urls(&whole, &store).await;
        assert_eq!(store.number("SELECT count(*) FROM ajwt_public_key").await, 0, "{id:?}: the cascade");
    }
}

pub(crate) async fn a_user_authenticates_and_its_use_is_noted<S: Application>() {
    for id in S::IDS {
        let (_database, store) = database::<S>(id).await;
        add_account(&store, "guido@example").await;
        let guido = name("guido@example");
        let key = key();
        let stored = store.add_key(&guido, &NewKey::of_key(key.public_key().clone())).await.expect("added");
        let usage = Arc::new(store.batched_usage());
        let nonces = Arc::new(store.nonces(Arc::new(SystemClock::new())));
        let authenticator = Authenticator::builder(Arc::new(store.clone()), nonces)
            .usage(usage.clone())
            .build()
            .expect("built");
        let token = sign(guido.as_str(), &key);
        assert_eq!(authenticate(&authenticator, &token).await.as_deref(), Ok("guido@example"));
        assert_eq!(authenticate(&authenticator, &token).await, Err(Reason::Replayed));
        usage.record(KeySource::Key(stored.id), Timestamp::from_millis(5));
        authenticator.close().await;
        assert!(store.keys(&guido).await.expect("listed")[0].last_used_on.is_some());

        // The application's own doing counts, and nobody is active by default.
        for (enabled, due) in [
            ("FALSE", Err(Reason::InactiveUser)),
            ("NULL", Err(Reason::InactiveUser)),
            ("TRUE", Ok("guido@example".to_owned())),
        ] {
            store.execute(&format!("UPDATE {} SET enabled = {enabled}", quoted::<S>("Accounts"))).await;
            assert_eq!(authenticate(&authenticator, &sign(guido.as_str(), &key)).await, due, "{enabled}");
            let users = store.users().await.expect("listed");
            let due = UserRecord::new("guido@example", due.is_ok());
            assert_eq!(users, [due], "{enabled}");
        }
        assert_eq!(store.revision().await.expect("read"), None);
    }
}

pub(crate) async fn a_name_of_two_rows_authenticates_nobody<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    add_account(&store, "guido").await;
    let key = key();
    store.add_key(&name("guido"), &NewKey::of_key(key.public_key().clone())).await.expect("added");
    add_account(&store, "guido").await;
    assert!(store.find_by_username("guido", Freshness::Current).await.is_err());
    let authenticator = store::authenticator(&store);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await, Err(Reason::StoreUnavailable));

    // Nor is one of them chosen to be administered.
    let another = NewKey::of_key(store::key().public_key().clone());
    for (what, result) in [
        ("add_key", store.add_key(&name("guido"), &another).await.map(drop)),
        ("set_user_active", store.set_user_active(&name("guido"), false).await),
        ("keys", store.keys(&name("guido")).await.map(drop)),
    ] {
        let error = result.expect_err(what);
        assert!(matches!(error, AdminError::Repository(_)), "{what}: {error:?}");
        let told = told(&error);
        assert!(told.iter().any(|told| told.contains("several users have this name")), "{what}: {told:?}");
    }
    assert_eq!(store.number("SELECT count(*) FROM ajwt_public_key").await, 1);
    let users = store.users().await.expect("listed");
    assert_eq!(users, [UserRecord::new("guido", true), UserRecord::new("guido", true)]);
}

pub(crate) async fn a_row_without_a_name_is_no_user<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    add_account(&store, "guido").await;
    let (accounts, column) = (quoted::<S>("Accounts"), quoted::<S>("e-mail"));
    store.execute(&format!("INSERT INTO {accounts} ({column}) VALUES (NULL)")).await;
    let users = store.users().await.expect("listed");
    assert_eq!(users, [UserRecord::new("guido", true)]);
}

pub(crate) async fn a_table_may_do_without_a_column_of_who_is_active<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    add_account(&store, "guido").await;
    let namespace = store.texts(S::NAMESPACE).await.remove(0);
    let users = accounts().in_namespace(namespace).without_active();
    let store = store.with_schema(Schema::with_users(users));
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    assert!(found.user().is_active());
    let error = store.set_user_active(&name("guido"), false).await.expect_err("no such column");
    assert!(matches!(error, AdminError::NotInThisSchema { .. }), "{error:?}");
}

pub(crate) async fn a_column_that_is_not_there_is_told<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    add_account(&store, "guido").await;
    for users in
        [accounts().with_id("misspelt"), accounts().with_name("misspelt"), accounts().with_active("misspelt")]
    {
        let store = store.clone().with_schema(Schema::with_users(users));
        let error = store.find_by_username("guido", Freshness::Current).await.expect_err("no such column");
        let told = told(&error);
        assert!(told.iter().any(|told| told.contains("misspelt")), "{told:?}");
    }
}

pub(crate) async fn migrating_makes_what_the_application_does_not<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    Store::migrate(&store).await.expect("nothing to do");
    let mut tables = store.texts(S::TABLES).await;
    tables.sort_unstable();
    let due = [
        "Accounts",
        "ajwt_audit",
        "ajwt_beside_migrations",
        "ajwt_jwks_endpoint_trust",
        "ajwt_nonce",
        "ajwt_public_key",
    ];
    assert_eq!(tables, due);

    add_account(&store, "guido").await;
    let key = NewKey::of_key(key().public_key().clone());
    let store = store.with_actor("ops@example");
    let key = store.add_key(&name("guido"), &key).await.expect("added");
    store.revoke_key(&name("guido"), key.id).await.expect("revoked");
    let audit = store.audit(10).await.expect("read");
    let audit: Vec<_> =
        audit.iter().map(|record| (&*record.action, &*record.actor, &*record.username)).collect();
    assert_eq!(audit, [("revoke_key", "ops@example", "guido"), ("add_key", "ops@example", "guido")]);

    store.execute("DROP TABLE ajwt_public_key").await;
    let error: RepositoryError =
        store.find_by_username("guido", Freshness::Current).await.expect_err("no table of keys");
    let source = error.source().expect("a source");
    assert!(source.is::<MissingTables>(), "{source}");
}

/// On MySQL and MariaDB its keys would become those of ajwt's users of the same ids, and theirs its own.
pub(crate) async fn ajwts_own_tables_are_not_made_beside_it<S: Application>() {
    let (_database, store) = database::<S>(S::IDS[0]).await;
    let own = store.with_schema(Schema::ajwt());
    let error = Store::migrate(&own).await.expect_err("the keys are of the application's users");
    assert!(matches!(error, MigrationError::OtherUsers { table: "ajwt_public_key" }), "{error:?}");
    let tables = own.texts(S::TABLES).await;
    assert!(!tables.iter().any(|table| table == "ajwt_user"), "{tables:?}");

    // Nor where ajwt's users were made all the same: the keys are not theirs.
    own.execute("CREATE TABLE ajwt_user (id BIGINT PRIMARY KEY, username VARCHAR(150), active SMALLINT)")
        .await;
    let error = Store::migrate(&own).await.expect_err("the keys refer to the application's users");
    // The others do not make what is there.
    let is_mysql = quoted::<S>("a").starts_with('`');
    assert!(!is_mysql || matches!(error, MigrationError::OtherUsers { .. }), "{error:?}");
    own.execute("DROP TABLE ajwt_user").await;

    // Once the application has done without, and not with a half of them.
    own.execute("DROP TABLE ajwt_public_key").await;
    let error = Store::migrate(&own).await.expect_err("the trusts are of the application's users");
    assert!(matches!(error, MigrationError::OtherUsers { .. }), "{error:?}");
    own.execute("DROP TABLE ajwt_jwks_endpoint_trust").await;
    Store::migrate(&own).await.expect("migrated");
    own.add_user(&name("guido")).await.expect("a whole schema");
}

pub(crate) async fn beside_ajwts_own_tables_nothing_is_made_for_it<S: Application>() {
    let (_database, store) = store::database::<S>().await;
    let store = store.with_schema(Schema::with_users(accounts()));
    let error = Store::migrate(&store).await.expect_err("the keys are of ajwt's users");
    assert!(matches!(error, MigrationError::OtherUsers { table: "ajwt_user" }), "{error:?}");
    let tables = store.texts(S::TABLES).await;
    assert!(!tables.iter().any(|table| table == "ajwt_beside_migrations"), "{tables:?}");
}

/// Thousands of users, each with three keys and a trust.
pub(crate) async fn finding_a_user_reads_no_table_whole<S: Application>() {
    for id in S::IDS {
        let (_database, store) = database::<S>(id).await;
        let (accounts, key) = (quoted::<S>("Accounts"), S::KEY);
        let (id, email) = (quoted::<S>("account id"), quoted::<S>("e-mail"));
        let numbers = plans::numbers(5000);
        for sql in [
            &*format!("INSERT INTO {accounts} ({email}) SELECT concat('user', n) FROM {numbers}"),
            &*format!(
                "INSERT INTO ajwt_public_key (user_id, {key}, fingerprint, created_at)
                SELECT {id}, 'no key', concat('f', k), 0
                FROM {accounts} CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2 UNION ALL SELECT 3) AS three"
            ),
            &*format!(
                "INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at)
                SELECT {id}, 'https://a.example/jwks.json', 0 FROM {accounts}"
            ),
            S::ANALYZE,
        ] {
            store.execute(sql).await;
        }
        let users =
            plans::Users { table: &accounts, id: &id, name: &email, active: "enabled", revision: "NULL" };
        let plan = store.plan(&plans::statement(S::STATEMENTS, "FIND_USER", &users)).await;
        plans::assert_searched(&plan, ["Accounts", "ajwt_public_key", "ajwt_jwks_endpoint_trust"]);
    }
}

/// The tests of one store, by name.
#[macro_export]
macro_rules! user_table_tests {
    ($store:ty; $($test:ident)*) => {
        $(#[tokio::test]
        async fn $test() {
            user_table::$test::<$store>().await;
        })*
    };
    ($store:ty) => {
        $crate::user_table_tests! { $store;
            the_suites_hold_with_ids_of_each_type
            a_user_authenticates_and_its_use_is_noted
            a_name_of_two_rows_authenticates_nobody
            a_row_without_a_name_is_no_user
            a_table_may_do_without_a_column_of_who_is_active
            a_column_that_is_not_there_is_told
            migrating_makes_what_the_application_does_not
            ajwts_own_tables_are_not_made_beside_it
            beside_ajwts_own_tables_nothing_is_made_for_it
            finding_a_user_reads_no_table_whole
        }
    };
}
