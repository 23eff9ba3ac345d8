use std::{borrow::Cow, sync::Arc};

use ajwt_server::{KeyedUser, PublicKeyRepository, RepositoryError, StoredKey};
use async_trait::async_trait;

use crate::{
    JwksCache,
    sync::atomic::{AtomicBool, Ordering},
};

/// Hands the engine the keys of a user's trusted URLs. Selection always goes from the user to its
/// URLs, to their sets, to the `kid`: a set of another user is never looked at.
///
/// Added by `AuthenticatorBuilder::keys` it comes before the keys that came with the user, as in the
/// Python library. For another order:
///
/// ```
/// use std::sync::Arc;
/// use ajwt_jwks::{JwksCache, JwksKeyRepository};
/// use ajwt_server::{AuthenticatorBuilder, UserKeys};
///
/// fn own_keys_first(builder: AuthenticatorBuilder, cache: Arc<JwksCache>) -> AuthenticatorBuilder {
///     builder
///         .without_user_keys()
///         .keys(Arc::new(UserKeys))
///         .keys(Arc::new(JwksKeyRepository::new(cache)))
/// }
/// ```
///
/// A `kid` is known here if it is that of a key in [`KeyedUser::keys`]. Any other may be that of a key that was added
/// to a set a moment ago, and has the user's URLs fetched, every 30 s at most. So keys that users have beside trusted
/// URLs belong in `KeyedUser::keys`; or, if a repository of your own holds them, put it before this one: the engine
/// asks no further repository once a key that the `kid` names has verified.
///
/// A token without `kid` never meets a key of a set. Closing the authenticator closes the cache, unless another
/// repository on it is open still: one that was neither closed nor dropped. So authenticators that share a cache have
/// a repository each: one that two of them share is closed with the first, and the cache with it, for both.
#[derive(Debug)]
pub struct JwksKeyRepository {
    cache: Arc<JwksCache>,
    is_open: AtomicBool,
}

impl JwksKeyRepository {
    /// Over a cache, which other repositories may share.
    #[must_use]
    pub fn new(cache: Arc<JwksCache>) -> Self {
        cache.join();
        Self { cache, is_open: AtomicBool::new(true) }
    }

    /// Returns whether it was the last one on the cache that was open.
    fn leave(&self) -> bool {
        self.is_open.swap(false, Ordering::SeqCst) && self.cache.leave()
    }
}

#[async_trait]
impl<U: KeyedUser> PublicKeyRepository<U> for JwksKeyRepository {
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a U>,
        key_id: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        let (Some(user), Some(key_id)) = (user, key_id) else { return Ok(Cow::Borrowed(&[])) };
        let urls = user.jwks_urls();
        if urls.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let is_known = user.keys().iter().any(|key| key.key_id() == key_id);
        Ok(Cow::Owned(self.cache.keys(urls, key_id, is_known).await))
    }

    async fn close(&self) {
        if self.leave() {
            self.cache.close().await;
        }
    }
}

impl Drop for JwksKeyRepository {
    fn drop(&mut self) {
        self.leave();
    }
}
