use std::fmt;

use ajwt_core::Timestamp;
use ajwt_server::AdminError;
use sqlx::SqlStr;

/// The actor of a repository that was not told one.
pub(crate) const UNKNOWN_ACTOR: &str = "unknown";

/// Characters of an actor's name that are kept.
const MAX_ACTOR_CHARS: usize = 150;

/// A change as it was noted in the transaction that made it. `Debug` leaves the detail out.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The row's id: later changes have higher ones.
    pub id: i64,
    /// When, by the repository's clock.
    pub at: Timestamp,
    /// Who: what the repository was told, else `unknown`.
    pub actor: String,
    /// What: `add_user`, `activate_user`, `deactivate_user`, `remove_user`, `add_key`,
    /// `set_key_expiry`, `revoke_key`, `remove_key`, `add_trust`, `remove_trust`.
    pub action: String,
    /// The user that was changed.
    pub username: String,
    /// Which key or trust, and the new value.
    pub detail: String,
}

impl fmt::Debug for AuditRecord {
    /// Without the detail, which has the URLs of trusts whole: their queries may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditRecord")
            .field("id", &self.id)
            .field("at", &self.at)
            .field("actor", &self.actor)
            .field("action", &self.action)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What is noted of a change.
pub(crate) struct Entry {
    pub(crate) action: &'static str,
    pub(crate) detail: String,
}

impl Entry {
    pub(crate) const fn of_user(action: &'static str) -> Self {
        Self { action, detail: String::new() }
    }

    pub(crate) fn activation(active: bool) -> Self {
        Self::of_user(if active { "activate_user" } else { "deactivate_user" })
    }

    pub(crate) fn added_key(id: i64, fingerprint: &str) -> Self {
        Self { action: "add_key", detail: format!("key {id} {fingerprint}") }
    }

    pub(crate) fn added_trust(id: i64, url: &str) -> Self {
        Self { action: "add_trust", detail: format!("trust {id} {url}") }
    }
}

/// A change to one row that belongs to a user.
pub(crate) struct RowChange {
    pub(crate) sql: SqlStr,
    pub(crate) id: i64,
    /// The statement's argument besides the user and the row, if it has one.
    pub(crate) argument: Option<Option<Timestamp>>,
    /// The error if there is no such row.
    pub(crate) missing: AdminError,
    pub(crate) entry: Entry,
}

impl RowChange {
    pub(crate) fn key_expiry(sql: SqlStr, id: i64, expires_at: Option<Timestamp>) -> Self {
        let detail = match expires_at {
            Some(expires_at) => format!("key {id} expires at {expires_at}"),
            None => format!("key {id} does not expire"),
        };
        Self {
            argument: Some(expires_at),
            ..Self::of_key(sql, id, Entry { action: "set_key_expiry", detail })
        }
    }

    pub(crate) fn key_revocation(sql: SqlStr, id: i64, at: Timestamp) -> Self {
        let entry = Entry { action: "revoke_key", detail: format!("key {id}") };
        Self { argument: Some(Some(at)), ..Self::of_key(sql, id, entry) }
    }

    pub(crate) fn key_removal(sql: SqlStr, id: i64) -> Self {
        Self::of_key(sql, id, Entry { action: "remove_key", detail: format!("key {id}") })
    }

    pub(crate) fn trust_removal(sql: SqlStr, id: i64) -> Self {
        let entry = Entry { action: "remove_trust", detail: format!("trust {id}") };
        Self { sql, id, argument: None, missing: AdminError::UnknownTrust { id }, entry }
    }

    fn of_key(sql: SqlStr, id: i64, entry: Entry) -> Self {
        Self { sql, id, argument: None, missing: AdminError::UnknownKey { id }, entry }
    }
}

/// As much of an actor's name as every database keeps.
pub(crate) fn actor(name: &str) -> String {
    name.chars().take(MAX_ACTOR_CHARS).collect()
}
