use ajwt_core::{PublicKey, Timestamp};

use super::{Findings, with_sources};
use crate::{KeySource, KeyedUser, PublicKeyRepository, StoredKey};

/// What every [`PublicKeyRepository`] must do, given users and the keys that are due to each of them, newest
/// first: a user gets keys of its own alone, in their order, and the one that `kid` names is among them, whatever
/// other users are asked for in between; a `kid` narrows what is returned and never widens it; the unknown user
/// has no keys.
///
/// Give it two users at least, one of them with several keys, and no key to two users.
///
/// # Panics
/// With what it did wrong, or if the users are not as asked for.
pub async fn public_key_repository<U: KeyedUser>(
    repository: &dyn PublicKeyRepository<U>,
    users: &[(U, Vec<StoredKey>)],
) {
    let are_enough = users.len() > 1 && users.iter().any(|(_, due)| due.len() > 1);
    assert!(are_enough, "public_key_repository needs two users, one of them with several keys");
    let mut suite = Suite { repository, findings: Findings::default() };
    let ids: Vec<_> = users.iter().flat_map(|(_, due)| due.iter().map(StoredKey::key_id)).collect();
    let ids = ids.into_iter().map(Some).chain([None, Some(""), Some("suite-unknown")]);
    // Each twice: what an answer leaves behind must not change the next.
    for key_id in ids.clone().chain(ids) {
        for (user, due) in users {
            suite.expect(Some(user), due, key_id).await;
            suite.expect(None, &[], key_id).await;
        }
    }
    suite.findings.finish("public_key_repository");
}

struct Suite<'a, U> {
    repository: &'a dyn PublicKeyRepository<U>,
    findings: Findings,
}

/// What the engine sees of a key.
type Shown<'a> = (&'a PublicKey, &'a str, KeySource, Option<Timestamp>, Option<Timestamp>);

fn shown(keys: &[StoredKey]) -> Vec<Shown<'_>> {
    let show = |key| -> Shown<'_> {
        let key: &StoredKey = key;
        (key.key(), key.key_id(), key.source(), key.not_before(), key.expires_at())
    };
    keys.iter().map(show).collect()
}

impl<U: KeyedUser> Suite<'_, U> {
    async fn expect(&mut self, user: Option<&U>, due: &[StoredKey], key_id: Option<&str>) {
        let asked = format!("asked for {:?} and the kid {key_id:?}", user.map(KeyedUser::username));
        let found = match self.repository.candidates(user, key_id).await {
            Ok(found) => found,
            Err(error) => return self.findings.add(format!("{asked}: {}", with_sources(&error))),
        };
        let (found, due) = (shown(&found), shown(due));
        for named in due.iter().filter(|key| Some(key.1) == key_id) {
            self.findings.check(found.contains(named), || format!("{asked}: {found:?} lacks {named:?}"));
        }
        // All that are found stand among those due, in the same order, each once.
        let mut rest = due.iter();
        for key in &found {
            let is_due = rest.any(|due| due == key);
            self.findings.check(is_due, || format!("{asked}: {key:?} is not due, or not there, of {due:?}"));
        }
    }
}
