//! A database that Django migrated and fills, with ajwt and Django working on it side by side: on
//! SQLite, and on the servers that `./scripts/test` starts, PostgreSQL and MariaDB.

#[path = "support/django_store.rs"]
mod django_store;
#[path = "../../../crates/ajwt-sqlx/tests/support/mysql_plan.rs"]
mod mysql_plan;
#[path = "../../../crates/ajwt-sqlx/tests/support/plans.rs"]
mod plans;
#[path = "../../../crates/ajwt-sqlx/tests/support/postgres_plan.rs"]
mod postgres_plan;
#[path = "../../../crates/ajwt-sqlx/tests/support/sqlite_plan.rs"]
mod sqlite_plan;

use std::{error::Error as _, sync::Arc};

use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, RsaKeySize, Timestamp, Token, Username};
use ajwt_interop::Python;
use ajwt_server::{
    AdminError, Authenticator, Clock as _, Freshness, KeySource, NewKey, Reason, SystemClock,
    UsageRecorder as _,
};
use ajwt_sqlx::{CustomUserModel, MigrationError, MissingTables, Schema};
use django_store::Store;
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};

const URL: &str = "https://a.example/jwks.json";

/// Django and ajwt on one database.
struct Both<S: Store> {
    django: Python,
    store: S,
    authenticator: Authenticator,
    /// The last to go.
    _database: S::Database,
}

impl<S: Store> Both<S> {
    /// With the user guido.
    async fn start() -> Self {
        let (database, url, settings) = S::create().await;
        let mut django = Python::start_on(&settings);
        // It answers once it has migrated.
        django.ask(&json!({"action": "create_user", "username": "guido"}));
        let store = S::open(&url).await.with_schema(Schema::django());
        store.migrate().await.expect("migrated");
        let authenticator = authenticator(&store).await;
        Self { django, store, authenticator, _database: database }
    }

    async fn authenticate(&self, authorization: &str) -> Result<String, Reason> {
        let accepted = self.authenticator.authenticate([authorization.as_bytes()]).await;
        accepted.map(|accepted| accepted.user().username().to_owned()).map_err(|error| error.reason())
    }

    /// What Django has of guido.
    fn records(&mut self) -> Value {
        self.django.ask(&json!({"action": "records", "username": "guido"}))
    }
}

async fn authenticator<S: Store>(store: &S) -> Authenticator {
    Authenticator::builder(Arc::new(store.clone()), store.nonces().await).build().expect("built")
}

fn name(username: &str) -> Username {
    Username::new(username).expect("a name")
}

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

fn new_key(key: &PrivateKey) -> NewKey {
    NewKey::of_key(key.public_key().clone())
}

fn sign(username: &str, key: &PrivateKey) -> String {
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    let claims = Claims::new(name(username), SystemClock::new().now(), nonce);
    format!("JWT {}", Token::sign(&claims, key).expect("signed").as_str())
}

fn str<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}

async fn keys_of_djangos_orm_work_here_at_once<S: Store>() {
    let mut both = Both::<S>::start().await;
    let kinds = [json!({"type": "rsa", "bits": 2048}), json!({"type": "ed25519"})];
    for (number, kind) in kinds.iter().enumerate() {
        let mut generate = kind.clone();
        generate["action"] = "generate".into();
        let key = both.django.ask(&generate);
        let public = PublicKey::from_pem(str(&key, "public_pem")).expect("Python's key");
        // As the form of Django's admin stores what is pasted there: with the line ends of HTTP, its ends stripped.
        let pasted = public.to_pem().trim().replace('\n', "\r\n");
        for (form, text) in [public.to_pem(), public.to_openssh("from a test"), pasted].iter().enumerate() {
            let username = format!("user-{number}-{form}");
            let sign = json!({"action": "sign", "username": username, "private_pem": key["private_pem"]});
            let early = both.django.ask(&sign);
            let early = str(&early, "authorization");
            assert_eq!(both.authenticate(early).await, Err(Reason::UnknownUser), "{text}");
            // A bad row before and after it: the ORM, unlike the admin, takes anything.
            for row in ["no key", text, "-----BEGIN PUBLIC KEY-----"] {
                both.django.ask(&json!({"action": "add_user", "username": username, "key": row}));
            }
            assert_eq!(both.authenticate(early).await.as_ref(), Ok(&username), "{text}");
            assert_eq!(both.authenticate(early).await, Err(Reason::Replayed), "{text}");

            for active in [false, true] {
                both.django.ask(&json!({"action": "set_active", "username": username, "active": active}));
                let signed = both.django.ask(&sign);
                let expected = if active { Ok(username.clone()) } else { Err(Reason::InactiveUser) };
                assert_eq!(both.authenticate(str(&signed, "authorization")).await, expected, "{text}");
            }
            let records = both.store.keys(&name(&username)).await.expect("listed");
            let fingerprints: Vec<_> = records.iter().map(|record| &*record.fingerprint).collect();
            assert_eq!(fingerprints, ["", str(&key, "fingerprint"), ""], "bad rows are shown, to be removed");
        }
    }
}

async fn keys_that_are_added_here_work_in_django<S: Store>() {
    let mut both = Both::<S>::start().await;
    let guido = name("guido");
    let serve = both.django.ask(&json!({"action": "serve"}));
    let client = Client::builder().no_proxy().build().expect("a client");
    let ask_django = async |key: &PrivateKey| {
        let request = client.get(str(&serve, "url")).header(AUTHORIZATION, sign("guido", key));
        request.send().await.expect("an answer").status()
    };
    let (pem, openssh) = (key(), PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"));
    let line = NewKey::from_text(openssh.public_key().to_openssh("me@work")).expect("a key");
    let texts = [new_key(&pem).with_comment("b\u{fc}ro").expect("a comment"), line];
    for (key, text) in [&pem, &openssh].into_iter().zip(&texts) {
        assert_eq!(ask_django(key).await, StatusCode::UNAUTHORIZED);
        let record = both.store.add_key(&guido, text).await.expect("added");
        assert_eq!(both.store.keys(&guido).await.expect("listed").first(), Some(&record));
        assert_eq!(ask_django(key).await, StatusCode::OK);
        assert_eq!(both.authenticate(&sign("guido", key)).await.as_deref(), Ok("guido"));
        for again in [key.public_key().to_pem(), key.public_key().to_openssh("again")] {
            let error = both.store.add_key(&guido, &NewKey::from_text(again).expect("a key")).await;
            assert!(matches!(error, Err(AdminError::DuplicateKey { .. })), "{error:?}");
        }
    }
    let records = both.records();
    let comments: Vec<_> =
        records["keys"].as_array().expect("keys").iter().map(|key| &key["comment"]).collect();
    assert_eq!(comments, ["b\u{fc}ro", "me@work"]);
    assert_eq!(records["keys"][0]["key"], pem.public_key().to_pem());

    let id = both.store.keys(&guido).await.expect("listed")[1].id;
    both.store.remove_key(&guido, id).await.expect("removed");
    assert_eq!(ask_django(&pem).await, StatusCode::UNAUTHORIZED);
    assert_eq!(both.authenticate(&sign("guido", &pem)).await, Err(Reason::NoCandidateKey));
    assert_eq!(ask_django(&openssh).await, StatusCode::OK);
    let error = both.store.remove_key(&guido, id).await.expect_err("gone");
    assert!(matches!(error, AdminError::UnknownKey { .. }), "{error:?}");

    both.store.set_user_active(&guido, false).await.expect("set");
    assert_eq!(both.records()["active"], false);
    assert_eq!(both.authenticate(&sign("guido", &openssh)).await, Err(Reason::InactiveUser));
}

async fn uses_show_in_django_at_the_right_time<S: Store>() {
    let mut both = Both::<S>::start().await;
    let guido = name("guido");
    let key_id = both.store.add_key(&guido, &new_key(&key())).await.expect("added").id;
    let trust = both.django.ask(&json!({"action": "add_trust", "username": "guido", "url": URL}));
    let trust_id = trust["id"].as_i64().expect("an id");
    assert_eq!(both.records()["keys"][0]["last_used_on"], Value::Null);
    let sources = [KeySource::Key(key_id), KeySource::Trust(trust_id)];
    let usage = both.store.batched_usage();
    // A whole second, and on either side of the end of daylight saving time in the peer's time zone.
    let times = [1_730_615_399_007, 1_730_617_200_000, 1_730_617_200_050, 1_730_620_800_999];
    for at in times {
        for earlier in [0, 1, 3_600_000] {
            for source in sources {
                usage.record(source, Timestamp::from_millis(at - earlier));
            }
            usage.flush().await;
        }
        let records = both.records();
        for row in [&records["keys"][0], &records["trusts"][0]] {
            assert_eq!(row["last_used_on"], at * 1000, "{records}");
            assert_eq!(row["found_by_it"], true, "{records}");
        }
        let time = Some(Timestamp::from_millis(at));
        assert_eq!(both.store.keys(&guido).await.expect("listed")[0].last_used_on, time);
        assert_eq!(both.store.trusts(&guido).await.expect("listed")[0].last_used_on, time);
    }

    // Django's own note, to the microsecond, is read here and not put back to its millisecond.
    let now = SystemClock::new().now();
    let used = both.django.ask(&json!({"action": "use_keys", "username": "guido"}));
    let micros = used["keys"][0]["last_used_on"].as_i64().expect("a time");
    let millis = Timestamp::from_millis(micros / 1000);
    assert!(millis >= now, "{used}");
    assert_eq!(both.store.keys(&guido).await.expect("listed")[0].last_used_on, Some(millis));
    usage.record(KeySource::Key(key_id), millis);
    usage.flush().await;
    assert_eq!(both.records()["keys"][0]["last_used_on"], micros);

    // A row that is gone is no error, and stays gone.
    both.store.remove_key(&guido, key_id).await.expect("removed");
    usage.record(KeySource::Key(key_id), SystemClock::new().now());
    usage.flush().await;
    assert_eq!(both.records()["keys"], json!([]));
}

async fn names_are_compared_byte_for_byte<S: Store>() {
    let mut both = Both::<S>::start().await;
    let keys: Vec<_> = S::NAMES.iter().map(|_| key()).collect();
    for (username, key) in S::NAMES.iter().zip(&keys) {
        let key = key.public_key().to_pem();
        both.django.ask(&json!({"action": "add_user", "username": username, "key": key}));
    }
    for (number, username) in S::NAMES.iter().enumerate() {
        for (other, key) in keys.iter().enumerate() {
            let outcome = both.authenticate(&sign(username, key)).await;
            assert_eq!(outcome.is_ok(), number == other, "{username:?} {other}: {outcome:?}");
        }
    }

    for statements in S::case_blind() {
        let mut both = Both::<S>::start().await;
        let key = key();
        both.store.add_key(&name("guido"), &new_key(&key)).await.expect("added");
        for sql in &statements {
            both.store.execute(sql).await;
        }
        let found = both.store.texts("SELECT username FROM auth_user WHERE username = 'GUIDO'").await;
        assert_eq!(found, ["guido"], "the column is blind to case");
        assert_eq!(both.authenticate(&sign("guido", &key)).await.as_deref(), Ok("guido"), "{statements:?}");
        for other in ["GUIDO", "guid\u{f3}", "guido ", "Guido", "guido\u{1f511}", "\u{1f511}"] {
            assert_eq!(both.authenticate(&sign(other, &key)).await, Err(Reason::UnknownUser), "{other:?}");
            let found = both.store.find_by_username(other, Freshness::Current).await.expect("read");
            assert!(found.is_none(), "{other:?}");
        }
        let error = both.store.remove_key(&name("GUIDO"), 1).await.expect_err("another user");
        assert!(matches!(error, AdminError::UnknownUser { .. }), "{error:?}");
        for other in ["GUIDO", "guido\u{1f511}"] {
            let error = both.store.keys(&name(other)).await.expect_err("another user");
            assert!(matches!(error, AdminError::UnknownUser { .. }), "{other:?}: {error:?}");
        }
        assert_eq!(both.records()["keys"].as_array().map(Vec::len), Some(1));
    }
}

async fn what_django_has_no_place_for_is_told<S: Store>() {
    let mut both = Both::<S>::start().await;
    let guido = name("guido");
    let id = both.store.add_key(&guido, &new_key(&key())).await.expect("added").id;
    let at = Timestamp::from_millis(1_730_617_200_000);
    let store = &both.store;
    store.add_trust(&guido, URL).await.expect("added");
    let refused = [
        ("add_user", store.add_user(&name("eve")).await, "in Django"),
        ("remove_user", store.remove_user(&guido).await, "deactivate"),
        ("set_key_expiry", store.set_key_expiry(&guido, id, Some(at)).await, "remove the key"),
        ("revoke_key", store.revoke_key(&guido, id).await, "remove the key"),
        (
            "expires_at",
            store.add_key(&guido, &new_key(&key()).with_validity(None, Some(at))).await.map(drop),
            "remove the key",
        ),
        (
            "not_before",
            store.add_key(&guido, &new_key(&key()).with_validity(Some(at), None)).await.map(drop),
            "when it is due",
        ),
        (
            "second trust",
            store.add_trust(&guido, "https://b.example/").await.map(drop),
            "remove the other one",
        ),
        (
            "long URL",
            store.add_trust(&guido, &format!("https://a.example/{}", "x".repeat(183))).await.map(drop),
            "200 characters",
        ),
    ];
    for (what, result, instead) in refused {
        let error = result.expect_err(what);
        assert!(matches!(error, AdminError::NotInThisSchema { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(instead), "{what}: {error}");
    }
    let error = store.add_trust(&guido, URL).await.expect_err("there");
    assert!(matches!(error, AdminError::DuplicateTrust), "{error:?}");
    let error = store.audit(1).await.expect_err("no audit");
    let error = error.source().expect("why").to_string();
    assert!(error.contains("django_admin_log"), "{error}");
    assert_eq!(store.revision().await.expect("none"), None);

    let trusts = store.trusts(&guido).await.expect("listed");
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("there");
    assert_eq!(found.revision(), None);
    assert_eq!(ajwt_server::KeyedUser::jwks_urls(&**found.user()).len(), 1);
    assert_eq!(store.all().await.expect("listed"), [Box::<str>::from(URL)]);
    both.django.ask(&json!({"action": "set_active", "username": "guido", "active": false}));
    assert!(store.all().await.expect("listed").is_empty(), "nobody active trusts it");
    assert_eq!(both.records()["keys"].as_array().map(Vec::len), Some(1), "nothing was half written");
    assert_eq!(both.records()["trusts"][0]["url"], URL);
    both.store.remove_trust(&guido, trusts[0].id).await.expect("removed");
    assert_eq!(both.records()["trusts"], json!([]));
    both.store.add_trust(&guido, &format!("https://a.example/{}", "x".repeat(182))).await.expect("it fits");
}

async fn migrations_leave_djangos_tables_alone<S: Store>() {
    let (_database, url, settings) = S::create().await;
    let mut django = Python::start_on(&settings);
    django.ask(&json!({"action": "create_user", "username": "guido"}));
    let store = S::open(&url).await.with_schema(Schema::django());
    let before = store.texts(S::TABLES).await;
    for _ in 0..2 {
        store.migrate().await.expect("migrated");
    }
    let added = |tables: &[String]| -> Vec<String> {
        let added = tables.iter().filter(|table| !before.contains(table));
        added.map(|table| table.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let after = store.texts(S::TABLES).await;
    assert_eq!(added(&after), ["ajwt_django_migrations", "ajwt_nonce"]);
    assert_eq!(after.len(), before.len() + 2, "none is gone");

    // A database that goes over to ajwt's own tables keeps its used nonces.
    let key = key();
    store.add_key(&name("guido"), &new_key(&key)).await.expect("added");
    let token = sign("guido", &key);
    let accepted = authenticator(&store).await.authenticate([token.as_bytes()]).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let own = store.clone().with_schema(Schema::ajwt());
    own.migrate().await.expect("migrated");
    own.add_user(&name("guido")).await.expect("added");
    own.add_key(&name("guido"), &new_key(&key)).await.expect("added");
    let replay = authenticator(&own).await.authenticate([token.as_bytes()]).await;
    assert_eq!(replay.expect_err("used").reason(), Reason::Replayed);
    store.migrate().await.expect("in either order");
}

/// Tables as Django makes them for a user model of the project's own, as far as they are looked at.
async fn keys_of_users_in_another_table_are_refused<S: Store>() {
    for (keys, trusts, is_refused) in [
        ("auth_user", "auth_user", false),
        ("accounts_user", "auth_user", true),
        ("auth_user", "accounts_user", true),
        // A copy without foreign keys does not tell.
        ("", "", false),
    ] {
        let (_database, url, _) = S::create().await;
        let store = S::open(&url).await.with_schema(Schema::django());
        let error = store.check().await.expect_err("there are no tables");
        assert!(error.source().is_some_and(|source| source.is::<MissingTables>()), "{error:?}");
        let of = |users: &str| match users {
            "" => String::new(),
            users => format!(", FOREIGN KEY (user_id) REFERENCES {users} (id)"),
        };
        for sql in [
            "CREATE TABLE auth_user (id BIGINT PRIMARY KEY, username VARCHAR(150), is_active BOOLEAN)",
            "CREATE TABLE accounts_user (id BIGINT PRIMARY KEY)",
            &*format!(
                "CREATE TABLE asymmetric_jwt_auth_publickey
                (id BIGINT PRIMARY KEY, user_id BIGINT, {} TEXT{})",
                S::KEY,
                of(keys)
            ),
            &*format!(
                "CREATE TABLE asymmetric_jwt_auth_jwksendpointtrust
                (id BIGINT PRIMARY KEY, user_id BIGINT UNIQUE, jwks_url VARCHAR(200){})",
                of(trusts)
            ),
        ] {
            store.execute(sql).await;
        }
        if is_refused {
            let error = store.check().await.expect_err("of others");
            assert!(error.source().is_some_and(|source| source.is::<CustomUserModel>()), "{error:?}");
            let error = store.migrate().await.expect_err("of others");
            assert!(matches!(error, MigrationError::CustomUserModel(_)), "{error:?}");
            let tables = store.texts(S::TABLES).await;
            assert!(!tables.iter().any(|table| table.starts_with("ajwt_")), "{tables:?}");
            store.clone().with_schema(Schema::ajwt()).migrate().await.expect("these have users of their own");
        } else {
            store.check().await.expect("of auth_user");
            store.migrate().await.expect("of auth_user");
        }
    }
}

/// Thousands of users, each with three keys and a trust, in the tables and with the indexes of Django's migrations.
async fn finding_a_user_reads_no_table_whole<S: Store>() {
    let both = Both::<S>::start().await;
    let (numbers, key) = (plans::numbers(5000), S::KEY);
    for sql in [
        &*format!(
            "INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff,
                is_active, date_joined)
            SELECT concat('user', n), '', '', '', '', FALSE, FALSE, TRUE, CURRENT_TIMESTAMP FROM {numbers}"
        ),
        &*format!(
            "INSERT INTO asymmetric_jwt_auth_publickey (user_id, {key}, comment) SELECT id, 'no key', ''
            FROM auth_user CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2 UNION ALL SELECT 3) AS three"
        ),
        "INSERT INTO asymmetric_jwt_auth_jwksendpointtrust (user_id, jwks_url)
        SELECT id, 'https://a.example/jwks.json' FROM auth_user",
        S::ANALYZE,
    ] {
        both.store.execute(sql).await;
    }
    let users = plans::Users {
        table: "auth_user",
        id: "id",
        name: "username",
        active: "is_active",
        revision: "NULL",
    };
    let plan = both.store.plan(&plans::statement(S::STATEMENTS, "FIND_USER", &users)).await;
    let tables = ["auth_user", "asymmetric_jwt_auth_publickey", "asymmetric_jwt_auth_jwksendpointtrust"];
    plans::assert_searched(&plan, tables);
}

macro_rules! django_tests {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<ajwt_sqlx::SqliteRepository>().await;
            })*
        }

        mod mysql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<ajwt_sqlx::MySqlRepository>().await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<ajwt_sqlx::PostgresRepository>().await;
            })*
        }
    };
}

django_tests! {
    keys_of_djangos_orm_work_here_at_once
    keys_that_are_added_here_work_in_django
    uses_show_in_django_at_the_right_time
    names_are_compared_byte_for_byte
    what_django_has_no_place_for_is_told
    migrations_leave_djangos_tables_alone
    keys_of_users_in_another_table_are_refused
    finding_a_user_reads_no_table_whole
}
