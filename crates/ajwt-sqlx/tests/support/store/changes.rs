//! What holds of changes: they raise the revision, and are noted.

use super::*;

pub(crate) async fn changes_by_plain_sql_raise_the_revision_and_uses_do_not<S: Store>(truncates: bool) {
    let (database, store, _, _) = service::<S>().await;
    changes_raise_the_revision_and_uses_do_not(&S::url(&database), &store, truncates).await;
}

/// `make` makes the tables in the database of a URL.
pub(crate) async fn tables_made_by_hand_serve_as_well<S: Store>(
    make: impl AsyncFnOnce(&str),
    truncates: bool,
) {
    let database = S::create_empty().await;
    let url = S::url(&database);
    make(&url).await;
    let store = S::open(&url).await;
    assert!(S::initialise(&store.nonces(Arc::new(SystemClock::new()))).await);
    let key = add_guido(&store).await;
    let authenticator = authenticator(&store);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    changes_raise_the_revision_and_uses_do_not(&url, &store, truncates).await;
}

/// Of a store with guido and its key. Runs SQL as another process: on a connection that shares nothing with the
/// test's.
async fn changes_raise_the_revision_and_uses_do_not<S: Store>(url: &str, store: &S, truncates: bool) {
    let other = S::open(url).await;
    store.add_trust(&name("guido"), "https://a.example/jwks.json").await.expect("added");
    let guido = store.number("SELECT id FROM ajwt_user").await;
    let key = S::KEY;
    let revision = async || {
        let polled = store.revision().await.expect("read").expect("a revision");
        let found = store.find_by_username("guido", Freshness::Current).await.expect("read");
        if let Some(found) = found {
            assert_eq!(found.revision(), Some(polled), "read with the user");
        }
        polled
    };
    let mut last = revision().await;
    assert!(last > 1, "adding the user has raised it");

    let mut raising = vec![
        "UPDATE ajwt_user SET active = NOT active".to_owned(),
        "UPDATE ajwt_user SET username = 'guido2'".to_owned(),
        "UPDATE ajwt_user SET username = 'guido'".to_owned(),
        "INSERT INTO ajwt_user (username, created_at) VALUES ('eve', 0)".to_owned(),
        "DELETE FROM ajwt_user WHERE username = 'eve'".to_owned(),
        format!(
            "INSERT INTO ajwt_public_key (user_id, {key}, fingerprint, created_at) VALUES ({guido}, 'x', 'x', 0)"
        ),
        format!("UPDATE ajwt_public_key SET {key} = 'y' WHERE fingerprint = 'x'"),
        "UPDATE ajwt_public_key SET not_before = 1".to_owned(),
        "UPDATE ajwt_public_key SET expires_at = 1".to_owned(),
        "UPDATE ajwt_public_key SET expires_at = NULL".to_owned(),
        "UPDATE ajwt_public_key SET revoked_at = 1, last_used_on = 7".to_owned(),
        "DELETE FROM ajwt_public_key WHERE fingerprint = 'x'".to_owned(),
        format!(
            "INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at) VALUES ({guido}, 'x', 0)"
        ),
        "UPDATE ajwt_jwks_endpoint_trust SET jwks_url = 'y' WHERE jwks_url = 'x'".to_owned(),
        "DELETE FROM ajwt_jwks_endpoint_trust WHERE jwks_url = 'y'".to_owned(),
    ];
    if truncates {
        raising.push("TRUNCATE ajwt_public_key".to_owned());
        raising.push("TRUNCATE ajwt_user CASCADE".to_owned());
    }
    // With a key and a trust that go with it.
    raising.push("DELETE FROM ajwt_user".to_owned());
    for (number, sql) in raising.iter().enumerate() {
        if number % 5 == 0 {
            for sql in [
                "UPDATE ajwt_public_key SET last_used_on = coalesce(last_used_on, 0) + 5",
                "UPDATE ajwt_jwks_endpoint_trust SET last_used_on = coalesce(last_used_on, 0) + 5",
            ] {
                other.execute(sql).await;
                assert_eq!(revision().await, last, "{sql}");
            }
        }
        other.execute(sql).await;
        let now = revision().await;
        assert!(now > last, "{sql}: {last}, then {now}");
        last = now;
    }
    let usage = store.batched_usage();
    let key = add_guido_again(store).await;
    last = revision().await;
    usage.record(KeySource::Key(key), Timestamp::from_millis(5));
    usage.flush().await;
    assert_eq!(store.number("SELECT count(*) FROM ajwt_public_key WHERE last_used_on = 5").await, 1);
    assert_eq!(revision().await, last, "a note of use");

    // Without its row there is none, and nothing else fails.
    other.execute("DELETE FROM ajwt_revision").await;
    assert_eq!(store.revision().await.expect("read"), None);
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    assert_eq!(found.revision(), None);
}

async fn add_guido_again<S: Store>(store: &S) -> i64 {
    store.add_user(&name("guido")).await.expect("added");
    let key = NewKey::of_key(key().public_key().clone());
    store.add_key(&name("guido"), &key).await.expect("added").id
}

/// Whoever reads a user with a new revision reads it with what raised that revision.
pub(crate) async fn a_revision_is_never_ahead_of_the_user_it_is_read_with<S: Store>() {
    let (database, store) = database::<S>().await;
    store.add_user(&name("guido")).await.expect("added");
    let before = store.revision().await.expect("read").expect("a revision");
    let writer = S::open(&S::url(&database)).await;
    let writing = tokio::spawn(async move {
        for _ in 0..20 {
            let key = NewKey::of_key(key().public_key().clone());
            writer.add_key(&name("guido"), &key).await.expect("added");
        }
    });
    let mut seen = 0;
    while !writing.is_finished() || seen == 0 {
        let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
        let raised = found.revision().expect("a revision") - before;
        assert_eq!(i64::try_from(found.user().keys().len()).expect("few"), raised);
        seen += 1;
    }
    writing.await.expect("written");
}

pub(crate) async fn each_change_is_noted_with_its_actor<S: Store>() {
    let (_database, store) = database::<S>().await;
    let store = store.with_actor("ops@example");
    let guido = name("guido");
    store.add_user(&guido).await.expect("done");
    let key = store.add_key(&guido, &NewKey::of_key(key().public_key().clone())).await.expect("done");
    store
        .set_key_expiry(&guido, key.id, Some(Timestamp::from_millis(1_790_000_000_250)))
        .await
        .expect("done");
    store.set_key_expiry(&guido, key.id, None).await.expect("done");
    store.revoke_key(&guido, key.id).await.expect("done");
    let url = "https://a.example/jwks.json";
    let trust = store.add_trust(&guido, url).await.expect("done");
    store.remove_trust(&guido, trust.id).await.expect("done");
    store.set_user_active(&guido, false).await.expect("done");
    let nobody = store.clone().with_actor(&"\u{e9}".repeat(151));
    nobody.set_user_active(&guido, true).await.expect("done");
    store.remove_key(&guido, key.id).await.expect("done");
    store.remove_user(&guido).await.expect("done");

    // What is refused is not noted.
    assert!(store.remove_user(&guido).await.is_err());
    assert!(store.add_trust(&guido, url).await.is_err());
    store.add_user(&guido).await.expect("done");
    assert!(store.add_user(&guido).await.is_err());
    assert!(store.revoke_key(&guido, key.id).await.is_err());

    let records = store.audit(100).await.expect("read");
    let now = SystemClock::new().now().as_millis();
    let (key_id, trust_id) = (key.id, trust.id);
    let due = [
        ("add_user", String::new()),
        ("remove_user", String::new()),
        ("remove_key", format!("key {key_id}")),
        ("activate_user", String::new()),
        ("deactivate_user", String::new()),
        ("remove_trust", format!("trust {trust_id}")),
        ("add_trust", format!("trust {trust_id} {url}")),
        ("revoke_key", format!("key {key_id}")),
        ("set_key_expiry", format!("key {key_id} does not expire")),
        ("set_key_expiry", format!("key {key_id} expires at 1790000000.250")),
        ("add_key", format!("key {key_id} {}", key.fingerprint)),
        ("add_user", String::new()),
    ];
    let found: Vec<_> = records.iter().map(|record| (&*record.action, record.detail.clone())).collect();
    assert_eq!(found, due);
    for record in &records {
        let actor = if record.action == "activate_user" { &*"\u{e9}".repeat(150) } else { "ops@example" };
        assert_eq!((&*record.actor, &*record.username), (actor, "guido"), "{record:?}");
        assert!((record.at.as_millis() - now).abs() < 60_000, "{record:?}");
    }
    assert!(records.is_sorted_by(|newer, older| newer.id > older.id));
    assert_eq!(store.audit(1).await.expect("read"), records[..1]);
}

pub(crate) async fn a_change_that_cannot_be_noted_is_not_made<S: Store>() {
    let (_database, store, _, _) = service::<S>().await;
    store.execute("DROP TABLE ajwt_audit").await;
    let key_id = store.keys(&name("guido")).await.expect("listed")[0].id;
    let new = NewKey::of_key(key().public_key().clone());
    fn failed<T: Debug>(result: Result<T, AdminError>) {
        assert!(matches!(result, Err(AdminError::Repository(_))), "{result:?}");
    }
    failed(store.add_user(&name("eve")).await);
    failed(store.set_user_active(&name("guido"), false).await);
    failed(store.add_key(&name("guido"), &new).await);
    failed(store.revoke_key(&name("guido"), key_id).await);
    failed(store.remove_key(&name("guido"), key_id).await);
    failed(store.add_trust(&name("guido"), "https://a.example/").await);
    failed(store.remove_user(&name("guido")).await);
    let keys = store.keys(&name("guido")).await.expect("listed");
    assert!(keys.len() == 1 && keys[0].revoked_at.is_none(), "{keys:?}");
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    assert!(found.user().is_active() && found.user().jwks_urls().is_empty());
    assert_eq!(store.number("SELECT count(*) FROM ajwt_user").await, 1);
}

/// Not even where several are added at once. Of those that plain SQL has added the newest count.
pub(crate) async fn no_more_trusts_are_added_than_count<S: Store>() {
    let (_database, store) = database::<S>().await;
    let guido = name("guido");
    store.add_user(&guido).await.expect("added");
    let url = |number: usize| format!("https://a.example/{number}");
    for number in 0..MAX_TRUSTS - 2 {
        store.add_trust(&guido, &url(number)).await.expect("added");
    }
    let mut adding = JoinSet::new();
    for number in 0..8 {
        let (store, guido, url) = (store.clone(), guido.clone(), url(MAX_TRUSTS + number));
        adding.spawn(async move { store.add_trust(&guido, &url).await });
    }
    let outcomes = adding.join_all().await;
    // Where the machine stalls, some may wait for the others in vain.
    let added = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let listed = store.trusts(&guido).await.expect("listed").len();
    assert!(added <= 2 && listed == MAX_TRUSTS - 2 + added, "{listed} are listed: {outcomes:?}");

    let id = store.number("SELECT id FROM ajwt_user").await;
    for number in 100..140 {
        let sql = format!(
            "INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at) VALUES ({id}, '{}', 0)",
            url(number)
        );
        store.execute(&sql).await;
    }
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    let found: Vec<_> = found.user().jwks_urls().iter().map(|url| url.url().to_owned()).collect();
    let newest: Vec<_> = (100..140).rev().take(MAX_TRUSTS).map(url).collect();
    assert_eq!(found, newest);
    let error = store.add_trust(&guido, &url(200)).await.expect_err("too many");
    let listed = store.trusts(&guido).await.expect("all of them").len();
    assert_eq!(listed, MAX_TRUSTS - 2 + added + 40);
    assert!(
        matches!(error, AdminError::TooManyTrusts { trusts, max: MAX_TRUSTS } if trusts == listed),
        "{error:?}"
    );
}

/// Not even where several are added at once.
pub(crate) async fn no_more_keys_are_added_than_count<S: Store>() {
    let (_database, store) = database::<S>().await;
    let guido = name("guido");
    store.add_user(&guido).await.expect("added");
    let new = || NewKey::of_key(key().public_key().clone());
    for _ in 0..MAX_KEYS - 2 {
        store.add_key(&guido, &new()).await.expect("added");
    }
    let mut adding = JoinSet::new();
    for _ in 0..8 {
        let (store, guido, new) = (store.clone(), guido.clone(), new());
        adding.spawn(async move { store.add_key(&guido, &new).await });
    }
    let outcomes = adding.join_all().await;
    // Where the machine stalls, some may wait for the others in vain.
    let added = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let listed = store.keys(&guido).await.expect("listed").len();
    assert!(added <= 2 && listed == MAX_KEYS - 2 + added, "{listed} are listed: {outcomes:?}");
}

/// The oldest counts as long as there are not as many newer ones that are not revoked.
pub(crate) async fn of_keys_that_plain_sql_adds_the_newest_count<S: Store>() {
    let (_database, store, authenticator, oldest) = service::<S>().await;
    let guido = name("guido");
    let id = store.number("SELECT id FROM ajwt_user").await;
    let mut fingerprints = vec![oldest.public_key().fingerprint().as_str().to_owned()];
    let mut add = async |revoked_at: &str| {
        let key = key();
        let (pem, fingerprint) = (key.public_key().to_pem(), fingerprints.len());
        let sql = format!(
            "INSERT INTO ajwt_public_key (user_id, {}, fingerprint, created_at, revoked_at)
            VALUES ({id}, '{pem}', '{fingerprint}', 0, {revoked_at})",
            S::KEY
        );
        store.execute(&sql).await;
        fingerprints.push(key.public_key().fingerprint().as_str().to_owned());
    };
    for _ in 1..MAX_KEYS {
        // As many again that are revoked.
        add("0").await;
        add("NULL").await;
    }
    assert_eq!(authenticate(&authenticator, &sign("guido", &oldest)).await.as_deref(), Ok("guido"));
    add("NULL").await;
    assert_eq!(authenticate(&authenticator, &sign("guido", &oldest)).await, Err(Reason::BadSignature));

    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    let found: Vec<_> =
        found.user().keys().iter().map(|key| key.key().fingerprint().as_str().to_owned()).collect();
    let newest: Vec<_> = std::iter::once(&fingerprints[2 * MAX_KEYS - 1])
        .chain(fingerprints[1..2 * MAX_KEYS - 1].iter().rev().step_by(2))
        .take(MAX_KEYS)
        .cloned()
        .collect();
    assert_eq!(found, newest);
    let new = NewKey::of_key(key().public_key().clone());
    let error = store.add_key(&guido, &new).await.expect_err("too many");
    assert!(
        matches!(error, AdminError::TooManyKeys { keys, max: MAX_KEYS } if keys == MAX_KEYS + 1),
        "{error:?}"
    );
}
