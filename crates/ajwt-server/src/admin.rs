use std::fmt::{self, Debug};

use ajwt_core::{KeyError, PublicKey, Timestamp, Username};
use async_trait::async_trait;
use thiserror::Error;

use crate::{RepositoryError, authorized_keys::PEM_START, shown_url::shown_url};

/// Characters that a key's comment may have.
pub const MAX_COMMENT_CHARS: usize = 100;

/// Characters that a trusted URL may have.
const MAX_URL_CHARS: usize = 2000;

/// Writing: users, their keys, the URLs that are trusted for them. The authenticator never has it.
///
/// A change is made wholly or not at all. After an error other than [`AdminError::Repository`] it was not made. After
/// that one it may have been, as where the connection broke before the store's word for its commit came: read again,
/// and go on by what is there.
///
/// ```
/// use ajwt_core::{Timestamp, Username};
/// use ajwt_server::{AdminError, KeyAdmin, KeyRecord, NewKey, TrustRecord, UserRecord};
/// use async_trait::async_trait;
///
/// /// Shows what another one has, and changes nothing.
/// #[derive(Debug)]
/// struct ReadOnly<A>(A);
///
/// fn refused<T>() -> Result<T, AdminError> {
///     Err(AdminError::NotInThisSchema { what: "a change", instead: "make it where the users come from" })
/// }
///
/// #[async_trait]
/// impl<A: KeyAdmin> KeyAdmin for ReadOnly<A> {
///     async fn users(&self) -> Result<Vec<UserRecord>, AdminError> {
///         self.0.users().await
///     }
///     async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError> {
///         self.0.keys(username).await
///     }
///     async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError> {
///         self.0.trusts(username).await
///     }
///
///     async fn add_user(&self, _: &Username) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn set_user_active(&self, _: &Username, _: bool) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn remove_user(&self, _: &Username) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn add_key(&self, _: &Username, _: &NewKey) -> Result<KeyRecord, AdminError> {
///         refused()
///     }
///     async fn set_key_expiry(&self, _: &Username, _: i64, _: Option<Timestamp>) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn revoke_key(&self, _: &Username, _: i64) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn remove_key(&self, _: &Username, _: i64) -> Result<(), AdminError> {
///         refused()
///     }
///     async fn add_trust(&self, _: &Username, _: &str) -> Result<TrustRecord, AdminError> {
///         refused()
///     }
///     async fn remove_trust(&self, _: &Username, _: i64) -> Result<(), AdminError> {
///         refused()
///     }
/// }
/// ```
#[async_trait]
pub trait KeyAdmin: Debug + Send + Sync + 'static {
    /// Adds an active user.
    ///
    /// # Errors
    /// [`AdminError::UserExists`]; [`AdminError::Repository`].
    async fn add_user(&self, username: &Username) -> Result<(), AdminError>;

    /// Activates or deactivates a user.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::Repository`].
    async fn set_user_active(&self, username: &Username, active: bool) -> Result<(), AdminError>;

    /// Removes a user with its keys and trusts.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::Repository`].
    async fn remove_user(&self, username: &Username) -> Result<(), AdminError>;

    /// All users, active or not, in the order of their names' bytes.
    ///
    /// # Errors
    /// [`AdminError::Repository`].
    async fn users(&self) -> Result<Vec<UserRecord>, AdminError>;

    /// Adds a key. At most [`MAX_KEYS`](crate::MAX_KEYS) of a user count that are not revoked, expired or not, so
    /// one more is refused: it would take the place of the oldest without a word.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::DuplicateKey`] if the user has that key already,
    /// revoked or not; [`AdminError::TooManyKeys`]; [`AdminError::Repository`].
    async fn add_key(&self, username: &Username, key: &NewKey) -> Result<KeyRecord, AdminError>;

    /// All keys of a user, newest first, revoked and expired ones too.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::Repository`].
    async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError>;

    /// Sets when a key expires, or that it does not.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::UnknownKey`]; [`AdminError::Repository`].
    async fn set_key_expiry(
        &self,
        username: &Username,
        key_id: i64,
        expires_at: Option<Timestamp>,
    ) -> Result<(), AdminError>;

    /// Revokes a key now: it stays on record and is never used again. If a trusted URL of the user publishes
    /// it too, it goes on working from there.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::UnknownKey`]; [`AdminError::Repository`].
    async fn revoke_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError>;

    /// Removes a key from the record.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::UnknownKey`]; [`AdminError::Repository`].
    async fn remove_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError>;

    /// Trusts a JWKS URL to name the user's keys. At most [`MAX_TRUSTS`](crate::MAX_TRUSTS) of a user
    /// count, so one more is refused: it would take the place of the oldest without a word.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::InvalidUrl`]; [`AdminError::DuplicateTrust`];
    /// [`AdminError::TooManyTrusts`]; [`AdminError::Repository`].
    async fn add_trust(&self, username: &Username, url: &str) -> Result<TrustRecord, AdminError>;

    /// The URLs trusted for a user, newest first. All of them, where others have written more than count.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::Repository`].
    async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError>;

    /// Ends a trust.
    ///
    /// # Errors
    /// [`AdminError::UnknownUser`]; [`AdminError::UnknownTrust`]; [`AdminError::Repository`].
    async fn remove_trust(&self, username: &Username, trust_id: i64) -> Result<(), AdminError>;
}

/// A user as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct UserRecord {
    /// The name as it is stored.
    pub username: String,
    /// Whether the user may authenticate at all.
    pub active: bool,
}

impl UserRecord {
    /// A record of a user.
    #[must_use]
    pub fn new(username: impl Into<String>, active: bool) -> Self {
        Self { username: username.into(), active }
    }
}

/// A key that was checked and may be stored.
#[derive(Clone, Debug)]
pub struct NewKey {
    key: PublicKey,
    text: String,
    comment: String,
    not_before: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl NewKey {
    /// Of a PEM or OpenSSH text. An OpenSSH comment becomes the key's, cut to 100 characters.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found.
    pub fn from_text(text: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let (key, comment) = PublicKey::from_text(&text)?;
        // The canonical text: what stood around the key is nobody's business later.
        let is_line = PublicKey::from_openssh(&text).is_ok();
        let full_comment = printable(&comment.unwrap_or_default());
        let comment: String = full_comment.chars().take(MAX_COMMENT_CHARS).collect();
        let text = if is_line { key.to_openssh(&comment) } else { key.to_pem() };
        Ok(Self { key, text, comment, not_before: None, expires_at: None })
    }

    /// Of a key that is loaded already.
    #[must_use]
    pub fn of_key(key: PublicKey) -> Self {
        let text = key.to_pem();
        Self { key, text, comment: String::new(), not_before: None, expires_at: None }
    }

    /// With this comment: which system uses the key, who is responsible. It takes the place of an
    /// OpenSSH line's own. Control characters become spaces.
    ///
    /// # Errors
    /// [`AdminError::CommentTooLong`] above 100 characters.
    pub fn with_comment(mut self, comment: impl Into<String>) -> Result<Self, AdminError> {
        let comment = printable(&comment.into());
        let chars = comment.chars().count();
        if chars > MAX_COMMENT_CHARS {
            return Err(AdminError::CommentTooLong { chars, max: MAX_COMMENT_CHARS });
        }
        if !self.is_pem() {
            self.text = self.key.to_openssh(&comment);
        }
        self.comment = comment;
        Ok(self)
    }

    /// Used only from `not_before` (inclusive) until `expires_at` (exclusive).
    #[must_use]
    pub const fn with_validity(
        mut self,
        not_before: Option<Timestamp>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        self.not_before = not_before;
        self.expires_at = expires_at;
        self
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    fn is_pem(&self) -> bool {
        self.text.as_bytes().starts_with(PEM_START)
    }

    /// The text to store: the SPKI PEM, or the OpenSSH line where it was one.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The comment, perhaps empty.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// From when it is used.
    #[must_use]
    pub const fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// Until when it is used.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}

/// Comments are shown on terminals, which control characters steer.
fn printable(comment: &str) -> String {
    comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A stored key as an administrator sees it. `Debug` leaves the text out.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecord {
    /// The row's id.
    pub id: i64,
    /// 64 characters of hex; empty where another program stored what is no key.
    pub fingerprint: String,
    /// PEM or OpenSSH.
    pub text: String,
    /// At most 100 characters.
    pub comment: String,
    /// When it was added; the epoch where the store's tables do not say.
    pub created_at: Timestamp,
    /// From when it is used.
    pub not_before: Option<Timestamp>,
    /// Until when it is used.
    pub expires_at: Option<Timestamp>,
    /// Since when it is not used any more.
    pub revoked_at: Option<Timestamp>,
    /// Its last use, to the accuracy of the recorder's interval.
    pub last_used_on: Option<Timestamp>,
}

impl KeyRecord {
    /// A record of a key that was just added.
    #[must_use]
    pub fn new(id: i64, key: &NewKey, created_at: Timestamp) -> Self {
        Self {
            fingerprint: key.key().fingerprint().as_str().to_owned(),
            comment: key.comment().to_owned(),
            not_before: key.not_before(),
            expires_at: key.expires_at(),
            ..Self::of_text(id, key.text(), created_at)
        }
    }

    /// A record of a stored text, which may be no key. For what else is on record, set the fields: the
    /// fingerprint and the comment are empty, the times not there.
    #[must_use]
    pub fn of_text(id: i64, text: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            id,
            fingerprint: String::new(),
            text: text.into(),
            comment: String::new(),
            created_at,
            not_before: None,
            expires_at: None,
            revoked_at: None,
            last_used_on: None,
        }
    }
}

impl fmt::Debug for KeyRecord {
    /// Without the text: somebody may have stored a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("id", &self.id)
            .field("fingerprint", &self.fingerprint)
            .field("comment", &self.comment)
            .field("created_at", &self.created_at)
            .field("not_before", &self.not_before)
            .field("expires_at", &self.expires_at)
            .field("revoked_at", &self.revoked_at)
            .field("last_used_on", &self.last_used_on)
            .finish_non_exhaustive()
    }
}

/// A trusted URL as an administrator sees it. `Debug` shows it without user, query and fragment.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustRecord {
    /// The row's id.
    pub id: i64,
    /// The URL of a JWK Set.
    pub url: String,
    /// The last use of one of its keys, to the accuracy of the recorder's interval.
    pub last_used_on: Option<Timestamp>,
}

impl TrustRecord {
    /// A record of a trust.
    #[must_use]
    pub fn new(id: i64, url: impl Into<String>, last_used_on: Option<Timestamp>) -> Self {
        Self { id, url: url.into(), last_used_on }
    }
}

impl fmt::Debug for TrustRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRecord")
            .field("id", &self.id)
            .field("url", &shown_url(&self.url))
            .field("last_used_on", &self.last_used_on)
            .finish()
    }
}

/// Why a change was not made, or is not known to have been.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such user.
    #[error("there is no user {username:?}")]
    UnknownUser {
        /// The name asked for.
        username: String,
    },
    /// There is such a user already.
    #[error("there is a user {username:?} already")]
    UserExists {
        /// The name asked for.
        username: String,
    },
    /// The user has no key of this id.
    #[error("the user has no key {id}")]
    UnknownKey {
        /// The id asked for.
        id: i64,
    },
    /// The user has this key already.
    #[error("the user has the key {fingerprint} already (revoked keys count: make a new one)")]
    DuplicateKey {
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// The user has as many keys as count, or, where others wrote to the store, more.
    #[error(
        "the user has {keys} keys that are not revoked, and at most {max} of a user count; revoke or remove keys, such as have expired, until fewer than {max} are left"
    )]
    TooManyKeys {
        /// Keys that the user has, without those that are revoked.
        keys: usize,
        /// Keys that count.
        max: usize,
    },
    /// The user has no trust of this id.
    #[error("the user has no trusted URL {id}")]
    UnknownTrust {
        /// The id asked for.
        id: i64,
    },
    /// The user has this trust already.
    #[error("the URL is trusted for the user already")]
    DuplicateTrust,
    /// The user has as many trusts as count, or, where others wrote to the store, more.
    #[error(
        "the user has {trusts} trusted URLs, and at most {max} of a user count; end trusts until fewer than {max} are left"
    )]
    TooManyTrusts {
        /// Trusts that the user has.
        trusts: usize,
        /// Trusts that count.
        max: usize,
    },
    /// Not the URL of a JWK Set.
    #[error(
        "{url:?} is not usable as the URL of a key set: it must begin with https://, name no user, have no spaces, and have at most {max} characters"
    )]
    InvalidUrl {
        /// The URL, cut to 200 characters, without user, query and fragment: they may hold secrets.
        url: String,
        /// Characters allowed.
        max: usize,
    },
    /// The comment is too long.
    #[error("the comment has {chars} characters; at most {max} are stored")]
    CommentTooLong {
        /// Characters found.
        chars: usize,
        /// Characters allowed.
        max: usize,
    },
    /// The store's tables are another program's, and have no place for it.
    #[error("{what} is not possible in the tables of this store; {instead}")]
    NotInThisSchema {
        /// What was asked for.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The store failed. A change that was asked for may have been made: read again.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl AdminError {
    /// There is no such user.
    #[must_use]
    pub fn unknown_user(username: &Username) -> Self {
        Self::UnknownUser { username: username.as_str().to_owned() }
    }

    /// Checks the form of a URL to be trusted. Which addresses it may lead to is checked when it
    /// is fetched. `http://` is let through for development; fetching it is an opt-in.
    ///
    /// # Errors
    /// [`AdminError::InvalidUrl`].
    pub fn check_trust_url(url: &str) -> Result<(), Self> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        // RFC 3986 section 3.2; a backslash ends the authority too, as parsers of URLs have it.
        let authority = rest.and_then(|rest| rest.split(['/', '\\', '?', '#']).next());
        let names_user = authority.is_some_and(|authority| authority.contains('@'));
        let is_clean = !url.chars().any(|c| c.is_whitespace() || c.is_control());
        if has_host && !names_user && is_clean && url.chars().count() <= MAX_URL_CHARS {
            return Ok(());
        }
        Err(Self::InvalidUrl { url: shown_url(url), max: MAX_URL_CHARS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_key_has_its_comment_and_nothing_else() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        let key = NewKey::from_text(format!("{line} me@work\n")).expect("a key");
        assert_eq!((key.text(), key.comment()), (format!("{line} me@work").as_str(), "me@work"));
        let key = key.with_comment("billing").expect("a comment");
        assert_eq!((key.text(), key.comment()), (format!("{line} billing").as_str(), "billing"));

        let pem = key.key().to_pem();
        let key = NewKey::from_text(format!("of guido\n{pem}-- \n")).expect("a key");
        let key = key.with_comment("billing").expect("a comment");
        assert_eq!((key.text(), key.comment()), (pem.as_str(), "billing"));
    }

    #[test]
    fn a_url_that_is_refused_is_told_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://svc:pa55@idp.example/jwks?token=pa55 # prod", "https://idp.example/jwks"),
            ("https://svc:pa55@idp.example", "https://idp.example"),
            ("https://svc@idp.example/a@b", "https://"),
            ("https://idp.example/jwks#pa55 ", "https://idp.example/jwks"),
            ("svc:pa55@idp.example", "idp.example"),
            ("ftp://svc:pa?5#5@idp.example", "ftp://"),
            ("https://svc:pa55@idp.example/jwks?token=ab@pa55", "https://"),
            ("idp.example/jwks?token=pa55&next=https://x", "idp.example/jwks"),
            ("svc:pa55@idp.example/jwks?next=https://x", "idp.example/jwks"),
            ("svc:pa55@idp.example/https://x", "idp.example/https://x"),
            ("ftp://idp.example/jwks", "ftp://idp.example/jwks"),
        ] {
            let error = AdminError::check_trust_url(url).expect_err(url);
            assert!(matches!(&error, AdminError::InvalidUrl { url: told, .. } if told == shown), "{error:?}");
        }
        for url in ["https://idp.example/@svc", "http://idp.example?a=b@c", "https://idp.example\\@svc"] {
            AdminError::check_trust_url(url).expect(url);
        }
    }

    #[test]
    fn a_comment_has_at_most_100_characters() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        let key = NewKey::from_text(line).expect("a key");
        assert!(key.clone().with_comment("\u{1f511}".repeat(100)).is_ok());
        let error = key.with_comment("\u{1f511}".repeat(101)).expect_err("too long");
        assert!(matches!(error, AdminError::CommentTooLong { chars: 101, max: 100 }), "{error:?}");
        let long = NewKey::from_text(format!("{line} {}", "\u{1f511}".repeat(101))).expect("a key");
        assert_eq!(long.comment().chars().count(), 100);
    }
}
