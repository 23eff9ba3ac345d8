use ajwt_core::{PublicKey, Timestamp, Username};

use super::{Findings, at, fresh_user, new_key, remove_if_there, username, with_sources};
use crate::{
    AdminError, Clock, KeyAdmin, KeyRecord, MAX_COMMENT_CHARS, MAX_KEYS, MAX_TRUSTS, NewKey, SystemClock,
    TrustRecord, UserRecord,
};

/// How far the store's clock may be off, in milliseconds.
const CLOCK_SLACK_MS: i64 = 60_000;

/// An id that no row has.
const NO_ID: i64 = i64::MAX;

/// What every [`KeyAdmin`] must do: each method, each error but that of a store that failed, and that these leave all
/// as it was.
///
/// # Panics
/// With what it did wrong.
pub async fn key_admin(admin: &dyn KeyAdmin) {
    let mut findings = Findings::default();
    users(admin, &mut findings).await;
    listed_users(admin, &mut findings).await;
    unknown_users(admin, &mut findings).await;
    records(admin, &mut findings).await;
    comments(admin, &mut findings).await;
    duplicate_keys(admin, &mut findings).await;
    key_changes(admin, &mut findings).await;
    too_many_keys(admin, &mut findings).await;
    trusts(admin, &mut findings).await;
    too_many_trusts(admin, &mut findings).await;
    findings.finish("key_admin");
}

macro_rules! expect_error {
    ($findings:expr, $what:expr, $result:expr, $pattern:pat $(if $guard:expr)?) => {{
        let result = $result;
        let told = match &result {
            Ok(_) => "was done".to_owned(),
            Err(error) => format!("is refused with {error:?}"),
        };
        $findings.check(matches!(&result, Err($pattern) $(if $guard)?), || {
            format!("{}: it {told}, not refused with {}", $what, stringify!($pattern))
        });
    }};
}

async fn users(admin: &dyn KeyAdmin, findings: &mut Findings) {
    // Quotes and wildcards of SQL are letters like others.
    let user = fresh_user(admin, "suite'\"\\%_;--").await;
    let key = NewKey::of_key(new_key());
    findings.ok("adding a key", admin.add_key(&user, &key).await);
    expect_error!(
        findings,
        "adding a user that is there",
        admin.add_user(&user).await,
        AdminError::UserExists { username } if username == user.as_str()
    );
    findings.ok("deactivating a user", admin.set_user_active(&user, false).await);
    expect_error!(
        findings,
        "adding a user that is there, inactive",
        admin.add_user(&user).await,
        AdminError::UserExists { .. }
    );
    let keys = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
    findings.check(keys.len() == 1, || format!("a refused add_user left {} of 1 keys", keys.len()));
    for (active, what) in [(false, "again"), (true, "and activating"), (true, "and activating again")] {
        findings.ok(&format!("deactivating {what}"), admin.set_user_active(&user, active).await);
    }

    findings.ok("removing a user", admin.remove_user(&user).await);
    expect_error!(
        findings,
        "removing a user twice",
        admin.remove_user(&user).await,
        AdminError::UnknownUser { username } if username == user.as_str()
    );
    findings.ok("adding a user that was removed", admin.add_user(&user).await);
    let keys = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
    findings.check(keys.is_empty(), || "a user that was removed and added anew has its old keys".to_owned());
    remove_if_there(admin, &user).await;
}

async fn listed_users(admin: &dyn KeyAdmin, findings: &mut Findings) {
    // In this order by their bytes, which no collation keeps to.
    let names = ["suite-list B", "suite-list a", "suite-list b", "suite-list \u{e9}", "suite-list \u{1f600}"];
    for name in names {
        let user = fresh_user(admin, name).await;
        let active = name.len() % 2 == 0;
        findings.ok("activating a user", admin.set_user_active(&user, active).await);
    }
    let mut due: Vec<_> = names.map(|name| UserRecord::new(name, name.len() % 2 == 0)).into();
    let mut list = async |due: &[UserRecord]| {
        let mut listed = findings.ok("listing users", admin.users().await).unwrap_or_default();
        // The store may have others.
        listed.retain(|user| user.username.starts_with("suite-list "));
        findings.check(listed == due, || format!("the users are listed as {listed:?}, not {due:?}"));
    };
    list(&due).await;
    remove_if_there(admin, &username(names[1])).await;
    due.remove(1);
    list(&due).await;
    for name in names {
        remove_if_there(admin, &username(name)).await;
    }
}

async fn unknown_users(admin: &dyn KeyAdmin, findings: &mut Findings) {
    // The store may compare by its collation; the name is still unknown.
    let known = fresh_user(admin, "suite-known").await;
    let key = NewKey::of_key(new_key());
    let own = findings.ok("adding a key", admin.add_key(&known, &key).await).map_or(1, |key| key.id);
    let trust = findings.ok("adding a trust", admin.add_trust(&known, "https://suite.example/jwks").await);
    let trust = trust.map_or(1, |trust| trust.id);
    for name in ["suite-unknown", "SUITE-KNOWN", "suite-known "] {
        let user = username(name);
        let is_it =
            |error: &AdminError| matches!(error, AdminError::UnknownUser { username } if username == name);
        let results = [
            ("set_user_active", admin.set_user_active(&user, true).await),
            ("remove_user", admin.remove_user(&user).await),
            ("add_key", admin.add_key(&user, &key).await.map(drop)),
            ("keys", admin.keys(&user).await.map(drop)),
            ("set_key_expiry", admin.set_key_expiry(&user, own, None).await),
            ("revoke_key", admin.revoke_key(&user, own).await),
            ("remove_key", admin.remove_key(&user, own).await),
            ("add_trust", admin.add_trust(&user, "https://suite.example/other").await.map(drop)),
            ("trusts", admin.trusts(&user).await.map(drop)),
            ("remove_trust", admin.remove_trust(&user, trust).await),
        ];
        for (method, result) in results {
            findings.check(result.as_ref().is_err_and(is_it), || {
                format!("{method} of the unknown user {name:?} is {result:?}, not UnknownUser of that name")
            });
        }
    }
    let keys = findings.ok("listing keys", admin.keys(&known).await).unwrap_or_default();
    findings.check(keys.len() == 1 && keys.iter().all(|key| key.revoked_at.is_none()), || {
        "a change to an unknown user touched another's key".to_owned()
    });
    remove_if_there(admin, &known).await;
}

async fn records(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-records").await;
    let pem = new_key().to_pem();
    let openssh = new_key().to_openssh("me@work");
    let mut added = Vec::new();
    for (text, not_before, expires_at) in
        [(&pem, None, None), (&openssh, Some(at(1)), Some(at(2))), (&new_key().to_pem(), None, Some(at(-3)))]
    {
        let new = new_key_of(text).with_validity(not_before, expires_at);
        let Some(record) = findings.ok("adding a key", admin.add_key(&user, &new).await) else { continue };
        let now = SystemClock::new().now().as_millis();
        findings.check((record.created_at.as_millis() - now).abs() <= CLOCK_SLACK_MS, || {
            format!("a key was created at {} by its record, and added at {now} ms", record.created_at)
        });
        let due = KeyRecord { created_at: record.created_at, ..KeyRecord::new(record.id, &new, at(0)) };
        findings.check(record == due, || format!("add_key returns {record:?}, not {due:?}"));
        added.insert(0, record);
    }
    let listed = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
    findings.check(listed == added, || format!("the keys, newest first, are {listed:?}, not {added:?}"));
    for record in listed {
        let read = PublicKey::from_text(&record.text).map(|(key, _)| key.fingerprint().as_str().to_owned());
        findings.check(read.as_ref() == Ok(&record.fingerprint), || {
            format!("the stored text of {record:?} reads as {read:?}")
        });
    }
    remove_if_there(admin, &user).await;
}

async fn comments(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-comments").await;
    let longest = "\u{1f511}".repeat(MAX_COMMENT_CHARS);
    let cases = [
        ("of a PEM text", new_key_of(&new_key().to_pem()), ""),
        ("of an OpenSSH line", new_key_of(&new_key().to_openssh("me@work two words")), "me@work two words"),
        ("of an OpenSSH line without one", new_key_of(&new_key().to_openssh("")), ""),
        ("too long in an OpenSSH line", new_key_of(&new_key().to_openssh(&format!("{longest}x"))), &longest),
        ("besides an OpenSSH line's", commented(&new_key().to_openssh("me@work"), "explicit"), "explicit"),
        ("none, instead of an OpenSSH line's", commented(&new_key().to_openssh("me@work"), ""), ""),
        ("of 100 characters", commented(&new_key().to_pem(), &longest), &longest),
        ("of SQL", commented(&new_key().to_pem(), "'); --\"\\%_ \u{e9}"), "'); --\"\\%_ \u{e9}"),
    ];
    for (what, new, due) in cases {
        let Some(record) = findings.ok(&format!("a comment {what}"), admin.add_key(&user, &new).await) else {
            continue;
        };
        let listed = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
        let listed = listed.into_iter().find(|listed| listed.id == record.id).map(|listed| listed.comment);
        findings.check(record.comment == due && listed.as_deref() == Some(due), || {
            format!(
                "a comment {what} is returned as {:?} and listed as {listed:?}, not {due:?}",
                record.comment
            )
        });
    }
    remove_if_there(admin, &user).await;
}

async fn duplicate_keys(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-duplicates").await;
    let other = fresh_user(admin, "suite-duplicates-2").await;
    // Nobody has the private half of this one, and nobody need have.
    let modulus = [0xc5; 256];
    let rsa = PublicKey::from_rsa_components(&modulus, &[1, 0, 1]);
    let rsa = rsa.unwrap_or_else(|error| panic!("an RSA key: {error}"));
    for key in [new_key(), rsa] {
        let what = format!("{:?}", key.key_type());
        let texts = [key.to_pem(), key.to_openssh("first"), key.to_openssh("second")];
        let first = findings.ok("adding a key", admin.add_key(&user, &new_key_of(&texts[0])).await);
        let Some(first) = first else { continue };
        for revoked in [false, true] {
            if revoked {
                findings.ok("revoking a key", admin.revoke_key(&user, first.id).await);
            }
            let before = findings.ok("listing keys", admin.keys(&user).await);
            for text in &texts {
                expect_error!(
                    findings,
                    format!("adding {what} again (revoked: {revoked}) as {text:?}"),
                    admin.add_key(&user, &commented(text, "another comment")).await,
                    AdminError::DuplicateKey { fingerprint } if *fingerprint == first.fingerprint
                );
            }
            let after = findings.ok("listing keys", admin.keys(&user).await);
            findings.check(before == after, || {
                format!("a refused duplicate changed the keys from {before:?} to {after:?}")
            });
        }
        findings.ok("adding another user's key", admin.add_key(&other, &new_key_of(&texts[1])).await);
        findings.ok("removing a key", admin.remove_key(&user, first.id).await);
        let again =
            findings.ok("adding a key that was removed", admin.add_key(&user, &new_key_of(&texts[1])).await);
        findings.check(again.is_none_or(|again| again.revoked_at.is_none()), || {
            "a key that was revoked, removed and added is revoked".to_owned()
        });
    }
    remove_if_there(admin, &user).await;
    remove_if_there(admin, &other).await;
}

async fn key_changes(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-changes").await;
    let other = fresh_user(admin, "suite-changes-2").await;
    let mut ids = Vec::new();
    for owner in [&user, &user, &other] {
        let new = NewKey::of_key(new_key()).with_validity(Some(at(1)), None);
        ids.extend(findings.ok("adding a key", admin.add_key(owner, &new).await).map(|record| record.id));
    }
    let [older, newer, foreign] = ids[..] else { return };

    for expires_at in [Some(at(5)), Some(at(-5)), None, Some(at(7))] {
        findings.ok("setting an expiry", admin.set_key_expiry(&user, older, expires_at).await);
        let record = record(admin, &user, older, findings).await;
        findings.check(
            record.as_ref().is_some_and(|key| key.expires_at == expires_at && key.not_before == Some(at(1))),
            || format!("after set_key_expiry to {expires_at:?} the key is {record:?}"),
        );
    }

    findings.ok("revoking a key", admin.revoke_key(&user, older).await);
    let revoked_at = record(admin, &user, older, findings).await.and_then(|key| key.revoked_at);
    let now = SystemClock::new().now().as_millis();
    findings.check(revoked_at.is_some_and(|at| (at.as_millis() - now).abs() <= CLOCK_SLACK_MS), || {
        format!("a key was revoked at {revoked_at:?} by its record, and now is {now} ms")
    });
    findings.ok("revoking a revoked key", admin.revoke_key(&user, older).await);
    let again = record(admin, &user, older, findings).await.and_then(|key| key.revoked_at);
    findings.check(again == revoked_at, || {
        format!("revoking a key again moved the time from {revoked_at:?} to {again:?}")
    });
    findings.ok("setting a revoked key's expiry", admin.set_key_expiry(&user, older, None).await);
    let still = record(admin, &user, older, findings).await.and_then(|key| key.revoked_at);
    findings.check(still == revoked_at, || "set_key_expiry un-revoked a key".to_owned());

    let before = (admin.keys(&user).await.ok(), admin.keys(&other).await.ok());
    for (id, what) in [(foreign, "another user's"), (NO_ID, "no"), (0, "no"), (-1, "no")] {
        let results = [
            ("set_key_expiry", admin.set_key_expiry(&user, id, Some(at(9))).await),
            ("revoke_key", admin.revoke_key(&user, id).await),
            ("remove_key", admin.remove_key(&user, id).await),
        ];
        for (method, result) in results {
            expect_error!(
                findings,
                format!("{method} with {what} key's id"),
                result,
                AdminError::UnknownKey { id: told } if *told == id
            );
        }
    }
    let after = (admin.keys(&user).await.ok(), admin.keys(&other).await.ok());
    findings.check(before == after, || "a change by another's key id changed something".to_owned());

    findings.ok("removing a key", admin.remove_key(&user, newer).await);
    let left = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
    findings.check(left.iter().map(|key| key.id).eq([older]), || {
        format!("after the removal of key {newer} there are {left:?}, not {older} alone")
    });
    expect_error!(
        findings,
        "removing a key twice",
        admin.remove_key(&user, newer).await,
        AdminError::UnknownKey { .. }
    );
    remove_if_there(admin, &user).await;
    remove_if_there(admin, &other).await;
}

/// A key beyond those that count would end the oldest one without a word.
async fn too_many_keys(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-keys-3").await;
    let other = fresh_user(admin, "suite-keys-4").await;
    let mut added = Vec::new();
    for _ in 0..MAX_KEYS {
        let new = NewKey::of_key(new_key());
        added.extend(findings.ok("adding a key", admin.add_key(&user, &new).await));
    }
    let [oldest, second, ..] = &added[..] else { return };
    let more = NewKey::of_key(new_key());
    findings.ok("adding another's key", admin.add_key(&other, &more).await);
    expect_error!(
        findings,
        "adding one key more than count",
        admin.add_key(&user, &more).await,
        AdminError::TooManyKeys { keys: MAX_KEYS, max: MAX_KEYS }
    );
    expect_error!(
        findings,
        "adding a key again, where no other is taken any more",
        admin.add_key(&user, &new_key_of(&oldest.text)).await,
        AdminError::DuplicateKey { .. }
    );
    let listed = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
    findings.check(listed.iter().eq(added.iter().rev()), || {
        format!("after a refusal the keys are {listed:?}, not, the newest first, {added:?}")
    });

    // The revoked do not count, but the expired do.
    findings.ok("revoking a key", admin.revoke_key(&user, oldest.id).await);
    findings.ok("adding a key in place of a revoked one", admin.add_key(&user, &more).await);
    let more = NewKey::of_key(new_key());
    expect_error!(
        findings,
        "adding one key more than count, besides a revoked one",
        admin.add_key(&user, &more).await,
        AdminError::TooManyKeys { keys: MAX_KEYS, max: MAX_KEYS }
    );
    let past = Timestamp::from_millis(1_000);
    findings.ok("ending a key", admin.set_key_expiry(&user, second.id, Some(past)).await);
    expect_error!(
        findings,
        "adding one key more than count, besides an expired one",
        admin.add_key(&user, &more).await,
        AdminError::TooManyKeys { keys: MAX_KEYS, max: MAX_KEYS }
    );
    findings.ok("removing a key", admin.remove_key(&user, second.id).await);
    findings.ok("adding a key in place of a removed one", admin.add_key(&user, &more).await);
    remove_if_there(admin, &user).await;
    remove_if_there(admin, &other).await;
}

async fn record(
    admin: &dyn KeyAdmin,
    user: &Username,
    id: i64,
    findings: &mut Findings,
) -> Option<KeyRecord> {
    let keys = findings.ok("listing keys", admin.keys(user).await)?;
    keys.into_iter().find(|key| key.id == id)
}

async fn trusts(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-trusts").await;
    let other = fresh_user(admin, "suite-trusts-2").await;
    let start = "https://suite.example/";
    let longest = format!("{start}{}", "a".repeat(2000 - start.len()));
    let urls = [
        "https://suite.example/a",
        // Paths differ by case, and names with a final dot are others.
        "https://suite.example/A",
        "https://suite.example/a/",
        "http://127.0.0.1:8080/.well-known/jwks.json?a='\"%25_\\",
        &longest,
    ];
    let mut added: Vec<TrustRecord> = Vec::new();
    for url in urls {
        let Some(record) = findings.ok(&format!("trusting {url:?}"), admin.add_trust(&user, url).await)
        else {
            continue;
        };
        findings.check(record.url == url && record.last_used_on.is_none(), || {
            format!("trusting {url:?} returns {record:?}")
        });
        added.insert(0, record);
    }
    let foreign = findings.ok("another's trust in the same URL", admin.add_trust(&other, urls[0]).await);

    for url in urls {
        expect_error!(
            findings,
            format!("trusting {url:?} again"),
            admin.add_trust(&user, url).await,
            AdminError::DuplicateTrust
        );
    }
    let too_long = format!("{longest}a");
    let with_user = "https://user@suite.example/";
    for url in [
        "",
        "suite.example",
        "ftp://suite.example/",
        "https://",
        "https:///a",
        "https://a b/",
        with_user,
        &too_long,
    ] {
        expect_error!(
            findings,
            format!("trusting {url:?}"),
            admin.add_trust(&user, url).await,
            AdminError::InvalidUrl { .. }
        );
    }
    let foreign_id = foreign.map_or(NO_ID, |trust| trust.id);
    for id in [foreign_id, NO_ID, 0, -1] {
        expect_error!(
            findings,
            format!("ending trust {id}, which is not the user's"),
            admin.remove_trust(&user, id).await,
            AdminError::UnknownTrust { id: told } if *told == id
        );
    }
    let listed = findings.ok("listing trusts", admin.trusts(&user).await).unwrap_or_default();
    findings.check(listed == added, || format!("the trusts, newest first, are {listed:?}, not {added:?}"));
    let others = findings.ok("listing trusts", admin.trusts(&other).await).unwrap_or_default();
    findings.check(others.len() == 1, || "another's trust was removed by its id".to_owned());

    if let Some(first) = added.pop() {
        findings.ok("ending a trust", admin.remove_trust(&user, first.id).await);
        let listed = findings.ok("listing trusts", admin.trusts(&user).await).unwrap_or_default();
        findings
            .check(listed == added, || format!("after a removal the trusts are {listed:?}, not {added:?}"));
        findings.ok("trusting a URL anew", admin.add_trust(&user, &first.url).await);
    }
    remove_if_there(admin, &user).await;
    remove_if_there(admin, &other).await;
}

/// A trust beyond those that count would end the oldest one without a word.
async fn too_many_trusts(admin: &dyn KeyAdmin, findings: &mut Findings) {
    let user = fresh_user(admin, "suite-trusts-3").await;
    let other = fresh_user(admin, "suite-trusts-4").await;
    let url = |number: usize| format!("https://suite.example/many/{number}");
    let mut added = Vec::new();
    for number in 0..MAX_TRUSTS {
        if let Some(record) = findings.ok("trusting", admin.add_trust(&user, &url(number)).await) {
            added.insert(0, record);
        }
    }
    findings.ok("another's trust", admin.add_trust(&other, &url(MAX_TRUSTS)).await);
    expect_error!(
        findings,
        "trusting one URL more than count",
        admin.add_trust(&user, &url(MAX_TRUSTS)).await,
        AdminError::TooManyTrusts { trusts: MAX_TRUSTS, max: MAX_TRUSTS }
    );
    expect_error!(
        findings,
        "trusting a URL again, where no other is taken any more",
        admin.add_trust(&user, &url(0)).await,
        AdminError::DuplicateTrust
    );
    let listed = findings.ok("listing trusts", admin.trusts(&user).await).unwrap_or_default();
    findings.check(listed == added, || format!("after a refusal the trusts are {listed:?}, not {added:?}"));
    if let Some(oldest) = added.last() {
        findings.ok("ending a trust", admin.remove_trust(&user, oldest.id).await);
        findings.ok("trusting a URL in its place", admin.add_trust(&user, &url(MAX_TRUSTS)).await);
    }
    remove_if_there(admin, &user).await;
    remove_if_there(admin, &other).await;
}

fn new_key_of(text: &str) -> NewKey {
    NewKey::from_text(text).unwrap_or_else(|error| panic!("{text:?} is a key: {}", with_sources(&error)))
}

fn commented(text: &str, comment: &str) -> NewKey {
    new_key_of(text).with_comment(comment).unwrap_or_else(|error| panic!("{comment:?} is a comment: {error}"))
}
