use std::sync::Arc;

use ajwt_server::{AdminError, KeyRecord, MAX_KEYS, MAX_TRUSTS, NewKey, RepositoryError, TrustRecord};
use sqlx::SqlStr;
use thiserror::Error;

use crate::{
    failure::CustomUserModel,
    key_cache::KeyCache,
    user_table::{Dialect, UserTable},
};

/// Characters of a URL that Django's column has room for.
const MAX_DJANGO_URL_CHARS: usize = 200;

/// The number that every change to ajwt's own tables raises.
pub(crate) const REVISION: &str = "SELECT revision FROM ajwt_revision WHERE id = 1";

/// Whose tables a repository works on. By default they are ajwt's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema(Tables);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Tables {
    #[default]
    Ajwt,
    BesideUsers(UserTable),
    Django,
}

impl Schema {
    /// ajwt's own tables, `ajwt_*`, which `migrate` makes.
    #[must_use]
    pub const fn ajwt() -> Self {
        Self(Tables::Ajwt)
    }

    /// A users table of the application's own. The tables of keys and trusts are ajwt's, but for the
    /// type of `user_id`, and a migration of the application makes them:
    /// `migrations/{postgres,mysql,sqlite}/beside/keys_and_trusts.sql` is that migration, to be copied.
    ///
    /// - `migrate` makes the tables of used nonces and of changes, and `ajwt_beside_migrations`.
    /// - There is no revision: a cached user is used for as long as the cache's `max_staleness`.
    /// - Users are added and removed by the application: [`AdminError::NotInThisSchema`]. Its foreign
    ///   keys take the user's keys and trusts along.
    #[must_use]
    pub const fn with_users(users: UserTable) -> Self {
        Self(Tables::BesideUsers(users))
    }

    /// The tables of a Django deployment with the Python library `asymmetric_jwt_auth` (1.3.0), as
    /// Django's own migrations made them: `auth_user`, `asymmetric_jwt_auth_publickey` and
    /// `asymmetric_jwt_auth_jwksendpointtrust`. Django goes on using them at the same time.
    ///
    /// - `migrate` makes the table of used nonces and `ajwt_django_migrations`; it leaves Django's
    ///   tables alone. A token that was used at the Django service is not known here, nor the other
    ///   way round.
    /// - There is no revision: a cached user is used for as long as the cache's `max_staleness`.
    /// - Expiry, revocation, new or removed users and a second trusted URL for a user have no place
    ///   there: [`AdminError::NotInThisSchema`]. Changes are not audited.
    /// - `last_used_on` is written as Django writes it with `USE_TZ = True`, its default. With
    ///   `USE_TZ = False` on SQLite or MySQL Django takes it for local time.
    /// - The user model is Django's own, or one whose table is `auth_user` as well. Where Django's keys refer to users in
    ///   another table, `migrate` and `check` fail ([`CustomUserModel`]). **Whoever calls neither** is not told, and there
    ///   a key of one person counts as that of whoever has the same id in an `auth_user` that was left over.
    /// - A column of names that is blind to case (SQLite's `NOCASE`, PostgreSQL's `citext`, MySQL's
    ///   usual collations) is compared byte for byte all the same. With `citext` no index serves that.
    ///
    /// The database's account needs to read the three tables and to update `last_used_on`; for
    /// [`KeyAdmin`](ajwt_server::KeyAdmin) it needs to write.
    #[must_use]
    pub const fn django() -> Self {
        Self(Tables::Django)
    }

    pub(crate) const fn is_django(&self) -> bool {
        matches!(self.0, Tables::Django)
    }

    /// Whether a row says which state of users, keys and trusts was read.
    pub(crate) const fn has_revision(&self) -> bool {
        matches!(self.0, Tables::Ajwt)
    }

    /// Whose users these are.
    pub(crate) const fn owner(&self) -> Owner {
        match self.0 {
            Tables::Ajwt => Owner::Ajwt,
            Tables::BesideUsers(_) => Owner::Application,
            Tables::Django => Owner::Django,
        }
    }

    /// Whether the users are in the application's table of this name.
    pub(crate) fn has_users_in(&self, table: &str) -> bool {
        matches!(&self.0, Tables::BesideUsers(users) if users.is_table(table))
    }

    /// The statements for these tables, by those for tables of ajwt's and of Django's.
    pub(crate) fn statements(
        &self,
        dialect: &Dialect,
        ajwt: &Statements<&'static str>,
        django: &Statements<&'static str>,
    ) -> Arc<Statements> {
        const NO_REVISION: &str = "NULL";
        Arc::new(match &self.0 {
            Tables::Ajwt => UserTable::new("ajwt_user").fill(dialect, ajwt, REVISION),
            Tables::BesideUsers(users) => users.fill(dialect, ajwt, NO_REVISION),
            Tables::Django => {
                let users = UserTable::new("auth_user").with_active("is_active");
                users.fill(dialect, django, NO_REVISION)
            }
        })
    }

    pub(crate) fn check_add_user(&self) -> Result<(), AdminError> {
        match self.0 {
            Tables::Ajwt => Ok(()),
            Tables::BesideUsers(_) => {
                Err(no_place("adding a user", "add it in the application, and then its key here"))
            }
            Tables::Django => Err(no_place("adding a user", "add it in Django, and then its key here")),
        }
    }

    /// Other tables refer to a user, and it is their owner that follows them.
    pub(crate) fn check_remove_user(&self) -> Result<(), AdminError> {
        const WHAT: &str = "removing a user";
        match self.0 {
            Tables::Ajwt => Ok(()),
            Tables::BesideUsers(_) => {
                Err(no_place(WHAT, "remove it in the application, or its keys and trusts here"))
            }
            Tables::Django => Err(no_place(WHAT, "remove it in Django, or deactivate it here")),
        }
    }

    pub(crate) fn check_set_user_active(&self) -> Result<(), AdminError> {
        match &self.0 {
            Tables::BesideUsers(users) if !users.has_active() => Err(no_place(
                "activating or deactivating a user",
                "remove the keys and trusts of a user who is to be refused",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_new_key(&self, key: &NewKey) -> Result<(), AdminError> {
        if self.is_django() && key.expires_at().is_some() {
            return Err(no_expiry());
        }
        if self.is_django() && key.not_before().is_some() {
            return Err(no_place(
                "a time before which a key is not used",
                "add the key when it is due, or move to ajwt's own tables",
            ));
        }
        Ok(())
    }

    pub(crate) fn check_new_trust(&self, url: &str) -> Result<(), AdminError> {
        if self.is_django() && url.chars().count() > MAX_DJANGO_URL_CHARS {
            return Err(no_place(
                "a URL of more than 200 characters",
                "publish the key set under a shorter one",
            ));
        }
        Ok(())
    }

    /// The error of a user that has a trusted URL already, where it may have no other.
    pub(crate) fn trust_exists(&self, is_the_same: bool) -> AdminError {
        if is_the_same || !self.is_django() {
            return AdminError::DuplicateTrust;
        }
        no_place(
            "a second trusted URL for a user",
            "remove the other one first, or publish the keys of both in one key set",
        )
    }

    pub(crate) fn check_audit(&self, what: &'static str) -> Result<(), RepositoryError> {
        if self.is_django() { Err(RepositoryError::new(what, NoAudit)) } else { Ok(()) }
    }

    /// Refuses keys and trusts of users that are in another table than the one that is read.
    pub(crate) const fn check_user_model(&self, has_others: bool) -> Result<(), CustomUserModel> {
        if self.is_django() && has_others { Err(CustomUserModel) } else { Ok(()) }
    }

    /// Fills in the fingerprints, which Django's tables do not have.
    pub(crate) fn complete(&self, mut records: Vec<KeyRecord>, keys: &KeyCache) -> Vec<KeyRecord> {
        if self.is_django() {
            for record in &mut records {
                if let Some(key) = keys.parse(record.id, record.text.as_bytes()) {
                    key.fingerprint().as_str().clone_into(&mut record.fingerprint);
                }
            }
        }
        records
    }
}

/// Refuses a key that was just added where the user, which is locked, has it already, as Django's tables let happen,
/// or has as many others as count. `keys` are all of the user's.
pub(crate) fn check_keys(keys: &[KeyRecord], added: i64, fingerprint: &str) -> Result<(), AdminError> {
    let others: Vec<&KeyRecord> = keys.iter().filter(|key| key.id != added).collect();
    if others.iter().any(|key| key.fingerprint == fingerprint) {
        return Err(AdminError::DuplicateKey { fingerprint: fingerprint.to_owned() });
    }
    let others = others.iter().filter(|key| key.revoked_at.is_none()).count();
    if others >= MAX_KEYS {
        return Err(AdminError::TooManyKeys { keys: others, max: MAX_KEYS });
    }
    Ok(())
}

/// Refuses a trust that was just added where the user, which is locked, has as many others as count. `trusts` are
/// all of the user's.
pub(crate) fn check_trusts(trusts: &[TrustRecord], added: i64) -> Result<(), AdminError> {
    let others = trusts.iter().filter(|trust| trust.id != added).count();
    if others >= MAX_TRUSTS {
        return Err(AdminError::TooManyTrusts { trusts: others, max: MAX_TRUSTS });
    }
    Ok(())
}

pub(crate) const fn no_expiry() -> AdminError {
    no_place("an expiry of a key", "remove the key when it is due, or move to ajwt's own tables")
}

pub(crate) const fn no_revocation() -> AdminError {
    no_place("revoking a key", "remove the key, which ends its use unless another row holds it")
}

const fn no_place(what: &'static str, instead: &'static str) -> AdminError {
    AdminError::NotInThisSchema { what, instead }
}

pub(crate) enum Owner {
    Ajwt,
    Application,
    Django,
}

/// The statements that differ by whose tables they are for. A user is told by its name, since its id
/// may be of any type. Arguments come in the same order; those that only ajwt's own tables of keys and
/// trusts have a column for come last.
#[derive(Debug, Default)]
pub(crate) struct Statements<T = SqlStr> {
    pub(crate) find_user: T,
    pub(crate) user_exists: T,
    /// As `user_exists`, so that nothing that was read in the transaction can change under it.
    pub(crate) lock_user: T,
    pub(crate) list_users: T,
    pub(crate) set_user_active: T,
    pub(crate) add_key: T,
    pub(crate) list_keys: T,
    /// `None` where the table has no column for it.
    pub(crate) set_key_expiry: Option<T>,
    /// `None` where the table has no column for it.
    pub(crate) revoke_key: Option<T>,
    pub(crate) remove_key: T,
    pub(crate) add_trust: T,
    pub(crate) list_trusts: T,
    /// Those of active users.
    pub(crate) trusted_urls: T,
    pub(crate) remove_trust: T,
    pub(crate) key_used: T,
    pub(crate) trust_used: T,
}

impl Statements<&'static str> {
    pub(crate) fn map(&self, sql: impl Fn(&'static str) -> SqlStr) -> Statements {
        Statements {
            find_user: sql(self.find_user),
            user_exists: sql(self.user_exists),
            lock_user: sql(self.lock_user),
            list_users: sql(self.list_users),
            set_user_active: sql(self.set_user_active),
            add_key: sql(self.add_key),
            list_keys: sql(self.list_keys),
            set_key_expiry: self.set_key_expiry.map(&sql),
            revoke_key: self.revoke_key.map(&sql),
            remove_key: sql(self.remove_key),
            add_trust: sql(self.add_trust),
            list_trusts: sql(self.list_trusts),
            trusted_urls: sql(self.trusted_urls),
            remove_trust: sql(self.remove_trust),
            key_used: sql(self.key_used),
            trust_used: sql(self.trust_used),
        }
    }
}

/// What Django's tables have no place for.
#[derive(Debug, Error)]
#[error("Django's tables have no audit; Django's admin keeps a log of its own, django_admin_log")]
struct NoAudit;

#[cfg(test)]
mod tests {
    use ajwt_core::Timestamp;

    use super::*;

    #[test]
    fn the_errors_say_what_to_do() {
        let error = Schema::django().check_add_user().expect_err("Django's");
        assert_eq!(
            error.to_string(),
            "adding a user is not possible in the tables of this store; \
             add it in Django, and then its key here"
        );
        assert!(Schema::ajwt().check_add_user().is_ok());
    }

    #[test]
    fn that_a_key_is_there_is_told_before_that_there_are_too_many() {
        let key = |id: i64, fingerprint: &str| {
            let mut key = KeyRecord::of_text(id, "", Timestamp::from_millis(0));
            fingerprint.clone_into(&mut key.fingerprint);
            key
        };
        let added = 0;
        let mut keys: Vec<_> = (1..).take(MAX_KEYS).map(|id| key(id, &format!("key {id}"))).collect();
        keys.push(key(added, "key 1"));
        let refused = check_keys(&keys, added, "key 1");
        assert!(matches!(refused, Err(AdminError::DuplicateKey { .. })), "{refused:?}");
        let refused = check_keys(&keys, added, "another");
        assert!(matches!(refused, Err(AdminError::TooManyKeys { .. })), "{refused:?}");
        keys.retain(|key| key.id != 1);
        let allowed = check_keys(&keys, added, "key 1");
        assert!(allowed.is_ok(), "it is not taken for another: {allowed:?}");
    }
}
