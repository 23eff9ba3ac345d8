use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use ajwt_core::{Timestamp, Username};
use async_trait::async_trait;

use crate::{
    AdminError, Clock, Found, Freshness, KeyAdmin, KeyRecord, KeySource, KeyedUser, NewKey, RepositoryError,
    StoredKey, SystemClock, TrustRecord, TrustedUrl, TrustedUrls, UsageRecorder, User, UserRecord,
    UserRepository,
    sync::{lock, read, write},
    user::{MAX_KEYS, MAX_TRUSTS},
};

/// Users, keys and trusts in memory: for tests, and for services whose callers are configured.
#[derive(Debug)]
pub struct MemoryRepository {
    clock: Arc<dyn Clock>,
    next_id: AtomicI64,
    accounts: RwLock<HashMap<Box<str>, Account>>,
    /// Apart from the records, for it is written on the request path.
    last_uses: Mutex<HashMap<KeySource, Timestamp>>,
}

/// What is on record, and the user made of it for the engine.
#[derive(Debug)]
struct Account {
    active: bool,
    /// Oldest first.
    keys: Vec<(StoredKey, KeyRecord)>,
    /// Oldest first.
    trusts: Vec<TrustRecord>,
    user: Arc<User>,
}

impl MemoryRepository {
    /// With these users. Their keys get new ids.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        let repository = Self {
            clock: Arc::new(SystemClock::new()),
            next_id: AtomicI64::new(1),
            accounts: RwLock::default(),
            last_uses: Mutex::default(),
        };
        for user in users {
            repository.insert(&user);
        }
        repository
    }

    /// On this clock, which dates changes.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a user, or replaces the one of that name.
    pub fn insert(&self, user: &User) {
        let now = self.clock.now();
        let keys = user
            .keys()
            .iter()
            .rev()
            .map(|key| {
                let id = self.next_id();
                let new = NewKey::of_key(key.key().clone()).with_validity(key.not_before(), key.expires_at());
                let record = KeyRecord::new(id, &new, now);
                (key.clone().with_source(KeySource::Key(id)), record)
            })
            .collect();
        let trusts =
            user.jwks_urls().iter().rev().map(|url| TrustRecord::new(self.next_id(), url.url(), None));
        let mut account = Account {
            active: user.is_active(),
            keys,
            trusts: trusts.collect(),
            user: Arc::new(User::new(user.username())),
        };
        account.rebuild(user.username());
        self.write().insert(user.username().into(), account);
    }

    fn next_id(&self) -> i64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    // A panic elsewhere leaves the map whole: each change is one step, after all checks.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, Account>> {
        read(&self.accounts)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Box<str>, Account>> {
        write(&self.accounts)
    }

    fn last_uses(&self) -> MutexGuard<'_, HashMap<KeySource, Timestamp>> {
        lock(&self.last_uses)
    }

    fn change<T>(
        &self,
        username: &Username,
        change: impl FnOnce(&mut Account) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        let mut accounts = self.write();
        let account =
            accounts.get_mut(username.as_str()).ok_or_else(|| AdminError::unknown_user(username))?;
        let result = change(account)?;
        account.rebuild(username.as_str());
        Ok(result)
    }

    fn look<T>(&self, username: &Username, look: impl FnOnce(&Account) -> T) -> Result<T, AdminError> {
        self.read().get(username.as_str()).map(look).ok_or_else(|| AdminError::unknown_user(username))
    }
}

impl Account {
    /// Makes the engine's view anew: the newest first, and no more than count; revoked keys left out.
    fn rebuild(&mut self, username: &str) {
        let live = self.keys.iter().rev().filter(|(_, record)| record.revoked_at.is_none());
        let keys = live
            .take(MAX_KEYS)
            .map(|(key, record)| key.clone().with_validity(record.not_before, record.expires_at))
            .collect();
        let newest = self.trusts.iter().rev().take(MAX_TRUSTS);
        let urls = newest.map(|trust| TrustedUrl::new(trust.id, trust.url.as_str()));
        self.user = Arc::new(
            User::new(username)
                .with_active(self.active)
                .with_stored_keys(keys)
                .with_jwks_urls(urls.collect()),
        );
    }

    fn key(&mut self, id: i64) -> Result<&mut KeyRecord, AdminError> {
        let record = self.keys.iter_mut().map(|(_, record)| record).find(|record| record.id == id);
        record.ok_or(AdminError::UnknownKey { id })
    }
}

#[async_trait]
impl UserRepository for MemoryRepository {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        Ok(self.read().get(username).map(|account| Found::current(Arc::clone(&account.user))))
    }
}

#[async_trait]
impl TrustedUrls for MemoryRepository {
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
        let accounts = self.read();
        let trusts = accounts.values().filter(|account| account.active).flat_map(|account| &account.trusts);
        let urls: BTreeSet<&str> = trusts.map(|trust| trust.url.as_str()).collect();
        Ok(urls.into_iter().map(Into::into).collect())
    }
}

#[async_trait]
impl UsageRecorder for MemoryRepository {
    fn record(&self, source: KeySource, at: Timestamp) {
        if source == KeySource::Unrecorded {
            return;
        }
        let mut last_uses = self.last_uses();
        let last_used_on = last_uses.entry(source).or_insert(at);
        *last_used_on = at.max(*last_used_on);
    }

    async fn flush(&self) {}
}

#[async_trait]
impl KeyAdmin for MemoryRepository {
    async fn add_user(&self, username: &Username) -> Result<(), AdminError> {
        let mut accounts = self.write();
        if accounts.contains_key(username.as_str()) {
            return Err(AdminError::UserExists { username: username.as_str().to_owned() });
        }
        let user = Arc::new(User::new(username.as_str()));
        let account = Account { active: true, keys: Vec::new(), trusts: Vec::new(), user };
        accounts.insert(username.as_str().into(), account);
        Ok(())
    }

    async fn set_user_active(&self, username: &Username, active: bool) -> Result<(), AdminError> {
        self.change(username, |account| {
            account.active = active;
            Ok(())
        })
    }

    async fn remove_user(&self, username: &Username) -> Result<(), AdminError> {
        let removed = self.write().remove(username.as_str());
        removed.map(drop).ok_or_else(|| AdminError::unknown_user(username))
    }

    async fn users(&self) -> Result<Vec<UserRecord>, AdminError> {
        let accounts = self.read();
        let records = accounts.iter().map(|(name, account)| UserRecord::new(&**name, account.active));
        let mut records: Vec<_> = records.collect();
        records.sort();
        Ok(records)
    }

    async fn add_key(&self, username: &Username, key: &NewKey) -> Result<KeyRecord, AdminError> {
        let record = KeyRecord::new(self.next_id(), key, self.clock.now());
        self.change(username, |account| {
            if account.keys.iter().any(|(_, known)| known.fingerprint == record.fingerprint) {
                return Err(AdminError::DuplicateKey { fingerprint: record.fingerprint.clone() });
            }
            let keys = account.keys.iter().filter(|(_, known)| known.revoked_at.is_none()).count();
            if keys >= MAX_KEYS {
                return Err(AdminError::TooManyKeys { keys, max: MAX_KEYS });
            }
            let stored = StoredKey::new(key.key().clone(), KeySource::Key(record.id));
            account.keys.push((stored, record.clone()));
            Ok(record)
        })
    }

    async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError> {
        let mut keys: Vec<_> = self.look(username, |account| {
            account.keys.iter().rev().map(|(_, record)| record.clone()).collect()
        })?;
        let last_uses = self.last_uses();
        for key in &mut keys {
            key.last_used_on = last_uses.get(&KeySource::Key(key.id)).copied();
        }
        Ok(keys)
    }

    async fn set_key_expiry(
        &self,
        username: &Username,
        key_id: i64,
        expires_at: Option<Timestamp>,
    ) -> Result<(), AdminError> {
        self.change(username, |account| {
            account.key(key_id)?.expires_at = expires_at;
            Ok(())
        })
    }

    async fn revoke_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        let now = self.clock.now();
        self.change(username, |account| {
            account.key(key_id)?.revoked_at.get_or_insert(now);
            Ok(())
        })
    }

    async fn remove_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        self.change(username, |account| {
            account.key(key_id)?;
            account.keys.retain(|(_, record)| record.id != key_id);
            Ok(())
        })
    }

    async fn add_trust(&self, username: &Username, url: &str) -> Result<TrustRecord, AdminError> {
        AdminError::check_trust_url(url)?;
        let record = TrustRecord::new(self.next_id(), url, None);
        self.change(username, |account| {
            if account.trusts.iter().any(|known| known.url == url) {
                return Err(AdminError::DuplicateTrust);
            }
            let trusts = account.trusts.len();
            if trusts >= MAX_TRUSTS {
                return Err(AdminError::TooManyTrusts { trusts, max: MAX_TRUSTS });
            }
            account.trusts.push(record.clone());
            Ok(record)
        })
    }

    async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError> {
        let mut trusts: Vec<_> =
            self.look(username, |account| account.trusts.iter().rev().cloned().collect())?;
        let last_uses = self.last_uses();
        for trust in &mut trusts {
            trust.last_used_on = last_uses.get(&KeySource::Trust(trust.id)).copied();
        }
        Ok(trusts)
    }

    async fn remove_trust(&self, username: &Username, trust_id: i64) -> Result<(), AdminError> {
        self.change(username, |account| {
            let before = account.trusts.len();
            account.trusts.retain(|trust| trust.id != trust_id);
            if account.trusts.len() == before {
                return Err(AdminError::UnknownTrust { id: trust_id });
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use ajwt_core::PrivateKey;

    use super::*;

    #[tokio::test]
    async fn inserted_users_keep_what_their_keys_carry() {
        let (from, until) = (Some(Timestamp::from_secs(5)), Some(Timestamp::from_secs(9)));
        let keys = [1, 2].map(|id| {
            let key = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
            StoredKey::new(key, KeySource::Key(id)).with_validity(from, until)
        });
        let user =
            User::new("guido").with_active(false).with_stored_keys(keys.to_vec()).with_jwks_urls(vec![
                TrustedUrl::new(7, "https://a.example/"),
                TrustedUrl::new(6, "https://b.example/"),
            ]);
        let repository = MemoryRepository::new([user.clone()]);
        let found =
            repository.find_by_username("guido", Freshness::Current).await.expect("memory").expect("a user");
        let found = found.user();
        assert!(!found.is_active());
        assert!(found.keys().iter().map(StoredKey::key).eq(keys.iter().map(StoredKey::key)));
        assert!(found.keys().iter().all(|key| (key.not_before(), key.expires_at()) == (from, until)));
        let urls = |user: &User| user.jwks_urls().iter().map(|url| url.url().to_owned()).collect::<Vec<_>>();
        assert_eq!(urls(found), urls(&user));
        let records = repository.keys(&Username::new("guido").expect("a name")).await.expect("records");
        assert!(records.iter().all(|key| (key.not_before, key.expires_at) == (from, until)));
    }

    /// As in SQL, whose rows may be any number.
    #[tokio::test]
    async fn of_the_keys_and_urls_of_an_inserted_user_the_newest_count_and_all_are_listed() {
        let keys: Vec<_> = (0..MAX_KEYS + 8)
            .map(|_| PrivateKey::generate_ed25519().expect("a key").public_key().clone())
            .collect();
        let urls: Vec<_> = (0..MAX_TRUSTS + 8).map(|number| format!("https://a.example/{number}")).collect();
        let trusts = urls.iter().map(|url| TrustedUrl::new(1, url.as_str())).collect();
        let user = User::new("guido").with_keys(keys.iter().cloned()).with_jwks_urls(trusts);
        let repository = MemoryRepository::new([user]);
        let found =
            repository.find_by_username("guido", Freshness::Current).await.expect("memory").expect("a user");
        let found = found.user();
        assert!(found.keys().iter().map(StoredKey::key).eq(&keys[..MAX_KEYS]));
        assert!(found.jwks_urls().iter().map(TrustedUrl::url).eq(&urls[..MAX_TRUSTS]));

        let guido = Username::new("guido").expect("a name");
        assert_eq!(repository.keys(&guido).await.expect("listed").len(), keys.len());
        let new = NewKey::of_key(PrivateKey::generate_ed25519().expect("a key").public_key().clone());
        let error = repository.add_key(&guido, &new).await.expect_err("too many");
        let count = keys.len();
        assert!(
            matches!(error, AdminError::TooManyKeys { keys, max: MAX_KEYS } if keys == count),
            "{error:?}"
        );
        assert_eq!(repository.trusts(&guido).await.expect("listed").len(), urls.len());
        let error = repository.add_trust(&guido, "https://b.example/").await.expect_err("too many");
        let count = urls.len();
        assert!(
            matches!(error, AdminError::TooManyTrusts { trusts, max: MAX_TRUSTS } if trusts == count),
            "{error:?}"
        );
    }
}
