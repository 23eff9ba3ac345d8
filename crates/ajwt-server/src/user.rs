use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use ajwt_core::PublicKey;
use async_trait::async_trait;

use crate::{KeySource, RepositoryError, StoredKey, shown_url::shown_url};

/// Keys of a user that are looked at: the newest of those that are not revoked.
pub const MAX_KEYS: usize = 32;

/// Trusted URLs of a user that are looked at: the newest.
pub const MAX_TRUSTS: usize = 32;

/// Finds users by name.
///
/// Users, their keys and their JWKS URLs are read together, in one query; the keys then cost the
/// engine nothing. A repository around another one hands its answers on by [`Found::map`].
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use ajwt_core::PublicKey;
/// use ajwt_server::{
///     Found, Freshness, KeySource, KeyedUser, RepositoryError, StoredKey, TrustedUrl, UserRepository,
/// };
/// use async_trait::async_trait;
///
/// /// The application's own user.
/// #[derive(Debug)]
/// struct Account {
///     email: String,
///     suspended: bool,
///     keys: Vec<StoredKey>,
/// }
///
/// impl KeyedUser for Account {
///     fn username(&self) -> &str {
///         &self.email
///     }
///
///     fn is_active(&self) -> bool {
///         !self.suspended
///     }
///
///     fn keys(&self) -> &[StoredKey] {
///         &self.keys
///     }
///
///     fn jwks_urls(&self) -> &[TrustedUrl] {
///         &[]
///     }
/// }
///
/// #[derive(Debug)]
/// struct Accounts(HashMap<String, Arc<Account>>);
///
/// impl Accounts {
///     /// The key is in no row, so no use of it is recorded.
///     fn add(&mut self, email: &str, key: PublicKey) {
///         let keys = vec![StoredKey::new(key, KeySource::Unrecorded)];
///         let account = Account { email: email.to_owned(), suspended: false, keys };
///         self.0.insert(email.to_owned(), Arc::new(account));
///     }
/// }
///
/// #[async_trait]
/// impl UserRepository for Accounts {
///     type User = Account;
///
///     async fn find_by_username(
///         &self,
///         username: &str,
///         _freshness: Freshness,
///     ) -> Result<Option<Found<Account>>, RepositoryError> {
///         Ok(self.0.get(username).cloned().map(Found::current))
///     }
/// }
/// ```
#[async_trait]
pub trait UserRepository: Debug + Send + Sync + 'static {
    /// The application's user type.
    type User: KeyedUser;

    /// The user whose name equals `username` byte for byte. `Ok(None)`: the store was read, and
    /// there is none; a cache never says so.
    ///
    /// # Errors
    /// [`RepositoryError`] if the store failed.
    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<Self::User>>, RepositoryError>;
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A cache may answer.
    MayBeCached,
    /// The store itself, read after the call began.
    Current,
}

/// A user, and whether the store was read for it.
#[derive(Debug)]
pub struct Found<U> {
    user: Arc<U>,
    freshness: Freshness,
    revision: Option<i64>,
    is_after_failed_read: bool,
}

impl<U> Clone for Found<U> {
    fn clone(&self) -> Self {
        Self { user: Arc::clone(&self.user), ..*self }
    }
}

impl<U> Found<U> {
    /// Read from the store during this call.
    #[must_use]
    pub const fn current(user: Arc<U>) -> Self {
        Self { user, freshness: Freshness::Current, revision: None, is_after_failed_read: false }
    }

    /// Taken from a cache.
    #[must_use]
    pub const fn cached(user: Arc<U>) -> Self {
        Self { user, freshness: Freshness::MayBeCached, revision: None, is_after_failed_read: false }
    }

    /// With the store's revision, read in the same statement as the user: see [`RevisionSource`].
    ///
    /// Everything that the user type holds must raise it, an application's own columns too: while it stands, a
    /// [`CachedUserRepository`](crate::CachedUserRepository) keeps the user for a minute. Where something does not
    /// raise it leave it out, and the user is kept for `max_staleness`.
    #[must_use]
    pub const fn with_revision(mut self, revision: Option<i64>) -> Self {
        self.revision = revision;
        self
    }

    /// Taken from a cache since the store failed when it was read during this call. A token that its keys do not
    /// verify is answered with 503 then, and the store is not read for it again: for a user that nobody
    /// knows it is read once, too.
    #[must_use]
    pub const fn after_failed_read(mut self) -> Self {
        self.is_after_failed_read = true;
        self
    }

    /// Another user made of this one: as fresh, and after a failed read if this one is. So a repository around one
    /// that may cache hands its answers on. Were they [`current`](Self::current) there, the engine would refuse by what
    /// a cache said: a key that was just added would not work, and a refusal would cost a read of the store only for
    /// names that are not cached, which tells strangers which are.
    ///
    /// Without the revision, for it says nothing of what the new user holds besides;
    /// [`with_revision`](Self::with_revision) puts it back where all of that raises it.
    #[must_use]
    pub fn map<V>(self, make: impl FnOnce(Arc<U>) -> Arc<V>) -> Found<V> {
        Found {
            user: make(self.user),
            freshness: self.freshness,
            revision: None,
            is_after_failed_read: self.is_after_failed_read,
        }
    }

    /// The user.
    #[must_use]
    pub const fn user(&self) -> &Arc<U> {
        &self.user
    }

    /// The user, where nothing else of it is needed.
    #[must_use]
    pub fn into_user(self) -> Arc<U> {
        self.user
    }

    /// Whether the store was read for it.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Whether the store failed when it was read during this call.
    #[must_use]
    pub const fn is_after_failed_read(&self) -> bool {
        self.is_after_failed_read
    }

    /// The store's revision when the user was read, where the store has one.
    #[must_use]
    pub const fn revision(&self) -> Option<i64> {
        self.revision
    }
}

/// Tells whether anything has changed in a store of users, keys and trusts, at less cost than
/// reading it. The suite `testing::revision_source` tests one. For stores that cannot tell there is [`NoRevision`].
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex, PoisonError}};
/// use ajwt_server::{Found, Freshness, RepositoryError, RevisionSource, User, UserRepository};
/// use async_trait::async_trait;
///
/// /// Users, and a number that rises with each change of them, behind one lock.
/// #[derive(Debug, Default)]
/// struct Users(Mutex<(HashMap<String, Arc<User>>, i64)>);
///
/// impl Users {
///     fn put(&self, user: User) {
///         let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         let (users, revision) = &mut *guard;
///         users.insert(user.username().to_owned(), Arc::new(user));
///         *revision += 1;
///     }
/// }
///
/// #[async_trait]
/// impl UserRepository for Users {
///     type User = User;
///
///     async fn find_by_username(
///         &self,
///         username: &str,
///         _freshness: Freshness,
///     ) -> Result<Option<Found<User>>, RepositoryError> {
///         let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         let (users, revision) = &*guard;
///         let user = users.get(username).cloned();
///         Ok(user.map(|user| Found::current(user).with_revision(Some(*revision))))
///     }
/// }
///
/// #[async_trait]
/// impl RevisionSource for Users {
///     async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
///         Ok(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).1))
///     }
/// }
/// ```
#[async_trait]
pub trait RevisionSource: Debug + Send + Sync + 'static {
    /// A number that rises with every change to users, keys and trusts (not with the note of a
    /// key's last use), whoever makes it, and to whatever else the user type holds that carries it
    /// ([`Found::with_revision`]). `None`: this store has no such number.
    ///
    /// # Errors
    /// [`RepositoryError`] if the store failed.
    async fn revision(&self) -> Result<Option<i64>, RepositoryError>;

    /// Waits until the store says by itself that it may have changed, or that it may have been
    /// unable to say so. A store that cannot say waits for ever. One cache waits here; what is said need not reach a
    /// second one.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Tells no revision: a [`CachedUserRepository`](crate::CachedUserRepository) uses what it read for `max_staleness`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRevision;

#[async_trait]
impl RevisionSource for NoRevision {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        Ok(None)
    }
}

/// What the engine needs of a user type.
pub trait KeyedUser: Debug + Send + Sync + 'static {
    /// The name as it is stored.
    fn username(&self) -> &str;

    /// Whether the user may authenticate at all.
    fn is_active(&self) -> bool;

    /// The user's own keys, newest first, the revoked left out; at most the [`MAX_KEYS`] newest.
    fn keys(&self) -> &[StoredKey];

    /// The JWKS URLs that are trusted to name this user's keys, newest first. A store that
    /// [`KeyAdmin`](crate::KeyAdmin) writes to hands out the [`MAX_TRUSTS`] newest, whoever has added more.
    fn jwks_urls(&self) -> &[TrustedUrl];
}

/// A URL whose keys count as a user's. `Debug` shows it without user, query and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedUrl {
    source: KeySource,
    url: Box<str>,
}

impl TrustedUrl {
    /// `id` is the row's, for [`KeySource::Trust`].
    #[must_use]
    pub fn new(id: i64, url: impl Into<Box<str>>) -> Self {
        Self { source: KeySource::Trust(id), url: url.into() }
    }

    /// Of no row: the use of its keys is not recorded.
    #[must_use]
    pub fn unrecorded(url: impl Into<Box<str>>) -> Self {
        Self { source: KeySource::Unrecorded, url: url.into() }
    }

    /// Where its keys come from: what their use is recorded by.
    #[must_use]
    pub const fn source(&self) -> KeySource {
        self.source
    }

    /// The URL of a JWK Set.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for TrustedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedUrl")
            .field("source", &self.source)
            .field("url", &shown_url(&self.url))
            .finish()
    }
}

/// Lists the URLs that are trusted, so that their key sets can be fetched before the first request.
///
/// ```
/// use std::collections::{BTreeMap, BTreeSet};
/// use ajwt_server::{RepositoryError, TrustedUrls};
/// use async_trait::async_trait;
///
/// /// The URL of each active user, by name.
/// #[derive(Debug)]
/// struct Configured(BTreeMap<String, Box<str>>);
///
/// #[async_trait]
/// impl TrustedUrls for Configured {
///     async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
///         // Several may trust the same one.
///         let urls: BTreeSet<_> = self.0.values().cloned().collect();
///         Ok(urls.into_iter().collect())
///     }
/// }
/// ```
#[async_trait]
pub trait TrustedUrls: Debug + Send + Sync + 'static {
    /// The URLs that active users trust, each once, in any order.
    ///
    /// # Errors
    /// [`RepositoryError`] if the store failed.
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError>;
}

/// The user type of the repositories that come with ajwt.
#[derive(Clone, Debug)]
pub struct User {
    username: Box<str>,
    active: bool,
    keys: Vec<StoredKey>,
    jwks_urls: Vec<TrustedUrl>,
}

impl User {
    /// An active user without keys.
    #[must_use]
    pub fn new(username: impl Into<Box<str>>) -> Self {
        Self { username: username.into(), active: true, keys: Vec::new(), jwks_urls: Vec::new() }
    }

    /// With these keys, newest first, which come from no row ([`KeySource::Unrecorded`]).
    #[must_use]
    pub fn with_keys(self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let keys = keys.into_iter().map(|key| StoredKey::new(key, KeySource::Unrecorded));
        self.with_stored_keys(keys.collect())
    }

    /// With these keys, newest first.
    #[must_use]
    pub fn with_stored_keys(mut self, keys: Vec<StoredKey>) -> Self {
        self.keys = keys;
        self
    }

    /// With these trusted URLs, newest first.
    #[must_use]
    pub fn with_jwks_urls(mut self, jwks_urls: Vec<TrustedUrl>) -> Self {
        self.jwks_urls = jwks_urls;
        self
    }

    /// Whether the user may authenticate at all. Default: yes.
    #[must_use]
    pub const fn with_active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }

    /// The name as it is stored.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }
}

impl KeyedUser for User {
    fn username(&self) -> &str {
        &self.username
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn keys(&self) -> &[StoredKey] {
        &self.keys
    }

    fn jwks_urls(&self) -> &[TrustedUrl] {
        &self.jwks_urls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_an_answer_is_as_fresh_and_has_no_revision() {
        let user = || Arc::new("guido");
        let answers = [
            Found::current(user()),
            Found::cached(user()),
            Found::current(user()).after_failed_read(),
            Found::cached(user()).after_failed_read(),
        ];
        for answer in answers {
            let (freshness, is_after_failed_read) = (answer.freshness(), answer.is_after_failed_read());
            let made = answer.with_revision(Some(7)).map(|user| Arc::new(user.len()));
            assert_eq!(**made.user(), 5);
            assert_eq!((made.freshness(), made.is_after_failed_read()), (freshness, is_after_failed_read));
            assert_eq!(made.revision(), None);
        }
    }
}
