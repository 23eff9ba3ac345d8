use ajwt_core::Username;

use super::{Findings, at, fresh_user, new_key, remove_if_there, with_sources};
use crate::{Freshness, KeyAdmin, KeyedUser, NewKey, RevisionSource, UserRepository};

/// What every [`RevisionSource`] must do that has a revision, given what writes to its store and what reads
/// users of it: it rises with every change of users, keys and trusts, and a user that is read carries the
/// revision of what was read. A store whose revision misses a change lets a revoked key work for a minute.
///
/// Nothing else may write to the store meanwhile.
///
/// # Panics
/// With what it did wrong.
pub async fn revision_source<U: KeyedUser>(
    admin: &dyn KeyAdmin,
    users: &dyn UserRepository<User = U>,
    revisions: &dyn RevisionSource,
) {
    let user = fresh_user(admin, "suite-revision").await;
    let last = revisions.revision().await.ok().flatten();
    let mut suite = Suite { users, revisions, last, findings: Findings::default() };
    suite.check(last.is_some(), "the store has no revision");
    suite.stays(&user, "nothing").await;

    let (first, second) = (NewKey::of_key(new_key()), NewKey::of_key(new_key()));
    let first = suite.done("adding a key", &user, admin.add_key(&user, &first).await).await;
    let second = suite.done("adding another key", &user, admin.add_key(&user, &second).await).await;
    if let (Some(first), Some(second)) = (first, second) {
        for time in [Some(at(0)), Some(at(1)), None] {
            let set = admin.set_key_expiry(&user, first.id, time).await;
            suite.done("setting a key's expiry", &user, set).await;
        }
        suite.done("revoking a key", &user, admin.revoke_key(&user, first.id).await).await;
        suite.done("removing a key", &user, admin.remove_key(&user, second.id).await).await;
    }
    let trust = admin.add_trust(&user, "https://suite.example/jwks.json").await;
    if let Some(trust) = suite.done("adding a trust", &user, trust).await {
        suite.done("removing a trust", &user, admin.remove_trust(&user, trust.id).await).await;
    }
    for active in [false, true] {
        let set = admin.set_user_active(&user, active).await;
        suite.done("activating or deactivating a user", &user, set).await;
    }
    suite.stays(&user, "reading").await;
    suite.done("removing a user", &user, admin.remove_user(&user).await).await;
    suite.done("adding a user", &user, admin.add_user(&user).await).await;
    remove_if_there(admin, &user).await;
    suite.findings.finish("revision_source");
}

struct Suite<'a, U> {
    users: &'a dyn UserRepository<User = U>,
    revisions: &'a dyn RevisionSource,
    last: Option<i64>,
    findings: Findings,
}

impl<U: KeyedUser> Suite<'_, U> {
    fn check(&mut self, holds: bool, finding: &str) {
        self.findings.check(holds, || finding.to_owned());
    }

    /// After a change.
    async fn done<T>(
        &mut self,
        what: &str,
        user: &Username,
        result: Result<T, crate::AdminError>,
    ) -> Option<T> {
        let done = self.findings.ok(what, result);
        let (before, now) = (self.last, self.now(user, what).await);
        self.findings.check(now > before, || format!("{what}: the revision was {before:?}, and is {now:?}"));
        done
    }

    async fn stays(&mut self, user: &Username, what: &str) {
        let (before, now) = (self.last, self.now(user, what).await);
        self.findings.check(now == before, || format!("{what}: the revision was {before:?}, and is {now:?}"));
    }

    /// The revision, which a user that is read carries too.
    async fn now(&mut self, user: &Username, what: &str) -> Option<i64> {
        let now = match self.revisions.revision().await {
            Ok(now) => now,
            Err(error) => {
                self.findings.add(format!("after {what}: {}", with_sources(&error)));
                None
            }
        };
        let found = self.users.find_by_username(user.as_str(), Freshness::Current).await;
        if let Ok(Some(found)) = found {
            let read = found.revision();
            self.findings.check(read == now, || {
                format!("after {what} the revision is {now:?}; the user that is read carries {read:?}")
            });
        }
        self.last = now;
        now
    }
}
