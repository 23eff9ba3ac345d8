use ajwt_core::{PublicKey, Username};

use super::{Findings, at, fresh_user, new_key, remove_if_there, username, with_sources};
use crate::{
    Freshness, KeyAdmin, KeySource, KeyedUser, MAX_KEYS, MAX_TRUSTS, NewKey, StoredKey, UserRepository,
};

/// What every [`UserRepository`] must do, given what writes to its store: names are compared byte
/// for byte, keys and URLs come newest first and as they were stored, what was revoked or removed
/// is gone at once for a read that must be [`Freshness::Current`].
///
/// # Panics
/// With what it did wrong.
pub async fn user_repository<U: KeyedUser>(admin: &dyn KeyAdmin, users: &dyn UserRepository<User = U>) {
    let mut findings = Findings::default();
    let mut suite = Suite { admin, users, findings: &mut findings };
    suite.names().await;
    suite.active().await;
    suite.keys().await;
    suite.trusted_urls().await;
    suite.removal().await;
    findings.finish("user_repository");
}

struct Suite<'a, U: KeyedUser> {
    admin: &'a dyn KeyAdmin,
    users: &'a dyn UserRepository<User = U>,
    findings: &'a mut Findings,
}

/// Names that some collation, trimming or normalisation takes for one another.
fn lookalikes() -> Vec<String> {
    let astral = "\u{1f600}".repeat(149);
    let mut names: Vec<String> = [
        "suite-amelie",
        "SUITE-AMELIE",
        "Suite-Amelie",
        "suite-am\u{e9}lie",
        "suite-ame\u{301}lie",
        " suite-amelie",
        "suite-amelie ",
        "suite-amelie  ",
        "suite-amelie\u{a0}",
        "suite-amelie\u{200b}",
        "suite-a\u{ad}melie",
        "\u{ff53}\u{ff55}\u{ff49}\u{ff54}\u{ff45}-amelie",
        "suite-\u{b5}",
        "suite-\u{3bc}",
        "suite-strasse",
        "suite-stra\u{df}e",
        "suite-k",
        "suite-\u{212a}",
        "suite-i",
        "suite-\u{131}",
        "suite-\u{130}",
        "suite-\u{fb01}",
        "suite-fi",
        "suite-\u{1f600}",
        "suite-\u{1f601}",
        "suite-'\"\\%_",
        "suite-'\"\\%%",
        "s",
        " ",
    ]
    .map(Into::into)
    .into();
    names.extend([format!("{astral}\u{1f600}"), format!("{astral}\u{1f601}"), astral]);
    names
}

/// Names of nobody, close to those of somebody.
const UNKNOWN: [&str; 7] =
    ["suite-nobody", "suite-ameliE", "suite-am\u{c9}lie", "suite-%", "suite-ameli_", "  ", "\u{ff53}"];

impl<U: KeyedUser> Suite<'_, U> {
    async fn names(&mut self) {
        let names = lookalikes();
        for name in &names {
            remove_if_there(self.admin, &username(name)).await;
        }
        let mut keys = Vec::new();
        for name in &names {
            // One that a collation confuses with another is refused here.
            let user = username(name);
            self.findings.ok(&format!("adding the user {name:?}"), self.admin.add_user(&user).await);
            let key = new_key();
            let added = self.admin.add_key(&user, &NewKey::of_key(key.clone())).await;
            self.findings.ok(&format!("adding a key of {name:?}"), added);
            keys.push(key);
        }
        for freshness in [Freshness::Current, Freshness::MayBeCached, Freshness::MayBeCached] {
            for (name, key) in names.iter().zip(&keys) {
                let found = self.find(name, freshness).await;
                let named = found.as_deref().map(KeyedUser::username);
                self.findings.check(named == Some(name), || {
                    format!("asked for the user {name:?} ({freshness:?}) it finds {named:?}")
                });
                let keys: Vec<_> = found.iter().flat_map(|user| user.keys()).map(StoredKey::key).collect();
                self.findings.check(keys == [key], || format!("{name:?} has the keys {keys:?}, not {key:?}"));
            }
            for name in UNKNOWN {
                let found = self.find(name, freshness).await;
                self.findings.check(found.is_none(), || {
                    format!("asked for the unknown user {name:?} ({freshness:?}) it finds {found:?}")
                });
            }
        }
        for name in &names {
            remove_if_there(self.admin, &username(name)).await;
        }
    }

    async fn active(&mut self) {
        let user = fresh_user(self.admin, "suite-active").await;
        self.expect_active(&user, true, "that was added").await;
        for active in [false, true, false] {
            self.findings.ok("activating", self.admin.set_user_active(&user, active).await);
            self.expect_active(&user, active, "that was made so").await;
        }
        remove_if_there(self.admin, &user).await;
    }

    async fn expect_active(&mut self, user: &Username, active: bool, what: &str) {
        // What comes from a cache says so, and that there is no such user never does.
        if let Ok(found) = self.users.find_by_username(user.as_str(), Freshness::MayBeCached).await {
            let is_cached = found.as_ref().is_some_and(|found| found.freshness() == Freshness::MayBeCached);
            let told = found.map(|found| found.user().is_active());
            self.findings.check(is_cached || told == Some(active), || {
                format!("a user {what} is active, as read for one who takes it from a cache: {told:?}, not {active}")
            });
        }
        let found = self.current(user).await.map(|user| user.is_active());
        self.findings
            .check(found == Some(active), || format!("a user {what} is active: {found:?}, not {active}"));
    }

    async fn keys(&mut self) {
        let user = fresh_user(self.admin, "suite-keys").await;
        self.expect_keys(&user, &[], "without keys").await;

        // Newest first.
        let mut due: Vec<StoredKey> = Vec::new();
        for number in 0..32 {
            self.add_key(&user, number, &mut due).await;
        }
        if due.len() < MAX_KEYS {
            return;
        }
        self.expect_keys(&user, &due, "with as many keys as count").await;

        // Revoked keys take no places of the 32.
        for index in [30, 20, 10, 1, 0] {
            let revoked = due.remove(index);
            self.findings.ok("revoking a key", self.admin.revoke_key(&user, id(&revoked)).await);
        }
        self.expect_keys(&user, &due, "of whose 32 keys five were revoked").await;
        for number in 32..37 {
            self.add_key(&user, number, &mut due).await;
        }
        self.expect_keys(&user, &due, "of whose 37 keys five were revoked").await;
        let removed = due.remove(0);
        self.findings.ok("removing a key", self.admin.remove_key(&user, id(&removed)).await);
        self.expect_keys(&user, &due, "of whose keys one was removed").await;

        for expires_at in [Some(at(99)), None] {
            let newest = due.remove(0);
            let changed = self.admin.set_key_expiry(&user, id(&newest), expires_at).await;
            self.findings.ok("setting an expiry", changed);
            let not_before = newest.not_before();
            due.insert(0, newest.with_validity(not_before, expires_at));
            self.expect_keys(&user, &due, "of whose keys one's expiry was set").await;
        }
        remove_if_there(self.admin, &user).await;
    }

    /// Adds a key, the newest of those that are due.
    async fn add_key(&mut self, user: &Username, number: i64, due: &mut Vec<StoredKey>) {
        let key = new_key();
        let (not_before, expires_at) = match number % 4 {
            0 => (None, None),
            1 => (Some(at(number)), None),
            2 => (None, Some(at(number))),
            _ => (Some(at(-number)), Some(at(number))),
        };
        let text = if number % 3 == 0 { key.to_openssh("suite") } else { key.to_pem() };
        let new = NewKey::from_text(text).unwrap_or_else(|error| panic!("a key: {error}"));
        let new = new.with_validity(not_before, expires_at);
        if let Some(record) = self.findings.ok("adding a key", self.admin.add_key(user, &new).await) {
            let stored = StoredKey::new(key, KeySource::Key(record.id));
            due.insert(0, stored.with_validity(not_before, expires_at));
        }
    }

    async fn expect_keys(&mut self, user: &Username, due: &[StoredKey], what: &str) {
        type Shown = (KeySource, PublicKey, Option<ajwt_core::Timestamp>, Option<ajwt_core::Timestamp>);
        let shown = |keys: &[StoredKey]| -> Vec<Shown> {
            let all = |key: &StoredKey| (key.source(), key.key().clone(), key.not_before(), key.expires_at());
            keys.iter().map(all).collect()
        };
        let Some(found) = self.current(user).await else { return };
        let (found, due) = (shown(found.keys()), shown(due));
        let differs = found.iter().zip(&due).position(|(found, due)| found != due);
        self.findings.check(found == due, || {
            let at = differs.unwrap_or(found.len().min(due.len()));
            format!(
                "a user {what} has {} keys, not {}; the first that differs is number {at}: {:?}, not {:?}",
                found.len(),
                due.len(),
                found.get(at),
                due.get(at)
            )
        });
    }

    async fn trusted_urls(&mut self) {
        let user = fresh_user(self.admin, "suite-urls").await;
        let mut due = Vec::new();
        self.expect_urls(&user, &due, "without").await;
        // A user with keys and URLs: a join must not multiply them.
        for _ in 0..2 {
            let added = self.admin.add_key(&user, &NewKey::of_key(new_key())).await;
            self.findings.ok("adding a key", added);
        }
        for path in ["b", "a", "A", "c"] {
            let url = format!("https://suite.example/{path}");
            if let Some(trust) = self.findings.ok("trusting", self.admin.add_trust(&user, &url).await) {
                due.insert(0, (trust.id, url));
            }
        }
        self.expect_urls(&user, &due, "with four").await;
        let keys = self.current(&user).await.map(|user| user.keys().len());
        self.findings
            .check(keys == Some(2), || format!("a user with two keys and four URLs has {keys:?} keys"));
        if due.len() == 4 {
            let (removed, _) = due.remove(1);
            self.findings.ok("ending a trust", self.admin.remove_trust(&user, removed).await);
        }
        self.expect_urls(&user, &due, "of which one was removed").await;

        // Each of as many as may be there counts.
        for number in due.len()..MAX_TRUSTS {
            let url = format!("https://suite.example/{number}");
            if let Some(trust) = self.findings.ok("trusting", self.admin.add_trust(&user, &url).await) {
                due.insert(0, (trust.id, url));
            }
        }
        self.expect_urls(&user, &due, "with as many as count").await;
        remove_if_there(self.admin, &user).await;
    }

    async fn expect_urls(&mut self, user: &Username, due: &[(i64, String)], what: &str) {
        let Some(found) = self.current(user).await else { return };
        let found: Vec<_> = found.jwks_urls().iter().map(|url| (url.source(), url.url())).collect();
        let due: Vec<_> = due.iter().map(|(id, url)| (KeySource::Trust(*id), url.as_str())).collect();
        self.findings.check(found == due, || {
            format!("the trusted URLs of a user {what}, newest first, are {found:?}, not {due:?}")
        });
    }

    async fn removal(&mut self) {
        let user = fresh_user(self.admin, "suite-removal").await;
        let added = self.admin.add_key(&user, &NewKey::of_key(new_key())).await;
        self.findings.ok("adding a key", added);
        let added = self.admin.add_trust(&user, "https://suite.example/removal").await;
        self.findings.ok("trusting", added);
        self.findings.ok("removing a user", self.admin.remove_user(&user).await);
        let found = self.find(user.as_str(), Freshness::Current).await;
        self.findings.check(found.is_none(), || format!("a removed user is found: {found:?}"));

        self.findings.ok("adding a user anew", self.admin.add_user(&user).await);
        self.expect_keys(&user, &[], "that was removed and added anew").await;
        self.expect_urls(&user, &[], "that was removed and added anew").await;
        remove_if_there(self.admin, &user).await;
    }

    /// The user as the store has it now; that there is none is a finding.
    async fn current(&mut self, user: &Username) -> Option<std::sync::Arc<U>> {
        let found = self.find(user.as_str(), Freshness::Current).await;
        self.findings.check(found.is_some(), || format!("the user {user:?} is not found"));
        found
    }

    async fn find(&mut self, name: &str, freshness: Freshness) -> Option<std::sync::Arc<U>> {
        match self.users.find_by_username(name, freshness).await {
            Ok(found) => {
                let told = found.as_ref().map(crate::Found::freshness);
                let is_honest = freshness == Freshness::MayBeCached || told != Some(Freshness::MayBeCached);
                self.findings.check(is_honest, || format!("{name:?} must be Current, and is {told:?}"));
                found.map(|found| std::sync::Arc::clone(found.user()))
            }
            Err(error) => {
                self.findings.add(format!("finding {name:?}: {}", with_sources(&error)));
                None
            }
        }
    }
}

fn id(key: &StoredKey) -> i64 {
    match key.source() {
        KeySource::Key(id) | KeySource::Trust(id) => id,
        KeySource::Unrecorded => panic!("the suite's own keys have rows"),
    }
}
