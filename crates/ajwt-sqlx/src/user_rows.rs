use std::{collections::BTreeSet, sync::Arc};

use ajwt_core::Timestamp;
use ajwt_server::{Found, KeySource, StoredKey, TrustedUrl, User};

use crate::key_cache::KeyCache;

/// The error of a name that several rows have.
pub(crate) fn ambiguous() -> sqlx::Error {
    const WHAT: &str =
        "several users have this name, and a key may be any one's: make the column of names unique";
    sqlx::Error::Decode(WHAT.into())
}

/// A row of the statement that finds a user: the user itself, one of its keys, or one of its trusts.
pub(crate) struct UserRow<'r> {
    /// `user`, `key` or `trust`.
    pub(crate) kind: &'r str,
    pub(crate) id: i64,
    /// The name, the key, or the URL. Bytes, for SQLite lets a column of texts hold any.
    pub(crate) text: &'r [u8],
    pub(crate) active: Option<bool>,
    pub(crate) not_before: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    /// The store's, in the row of the user.
    pub(crate) revision: Option<i64>,
}

/// The user that the rows make, in whatever order the kinds come. No row of a user: there is none.
pub(crate) fn found<'r>(
    rows: impl Iterator<Item = Result<UserRow<'r>, sqlx::Error>>,
    cache: &KeyCache,
) -> Result<Option<Found<User>>, sqlx::Error> {
    let (mut user, mut revision, mut keys, mut trusts) = (None, None, Vec::new(), Vec::new());
    for row in rows {
        let row = row?;
        match row.kind {
            "user" => {
                if user.is_some() {
                    return Err(ambiguous());
                }
                // A state that cannot be read is not an active one.
                let name = str::from_utf8(row.text).map_err(|error| sqlx::Error::Decode(error.into()))?;
                user = Some(User::new(name).with_active(row.active == Some(true)));
                revision = row.revision;
            }
            "key" => keys.extend(cache.parse(row.id, row.text).map(|key| {
                let time = |millis: Option<i64>| millis.map(Timestamp::from_millis);
                StoredKey::new(key, KeySource::Key(row.id))
                    .with_validity(time(row.not_before), time(row.expires_at))
            })),
            _ => match str::from_utf8(row.text) {
                Ok(url) => trusts.push(TrustedUrl::new(row.id, url)),
                Err(error) if cache.is_new_trust(row.id, row.text) => {
                    tracing::warn!(row = row.id, %error, "a trusted URL is skipped, for it is no text in UTF-8");
                }
                Err(_) => {}
            },
        }
    }
    let user = user.map(|user| user.with_stored_keys(keys).with_jwks_urls(trusts));
    Ok(user.map(|user| Found::current(Arc::new(user)).with_revision(revision)))
}

/// Each URL once. They are compared here, for a database may compare them by a collation.
pub(crate) fn trusted_urls<'r>(
    rows: impl Iterator<Item = Result<&'r [u8], sqlx::Error>>,
) -> Result<Vec<Box<str>>, sqlx::Error> {
    let rows: BTreeSet<&[u8]> = rows.collect::<Result<_, _>>()?;
    // One that is no text was told when its user was read.
    Ok(rows.into_iter().filter_map(|url| str::from_utf8(url).ok()).map(Into::into).collect())
}
