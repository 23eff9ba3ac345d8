use ajwt_core::{Timestamp, Username};

use super::{Findings, at, fresh_user, new_key, remove_if_there};
use crate::{AdminError, KeyAdmin, KeySource, NewKey, UsageRecorder, UsageStore};

/// What every [`UsageRecorder`] must do: what was recorded is on record after a flush, the newest
/// time wins, rows that are gone do no harm and do not come back, and a key that has no row is noted at none.
///
/// # Panics
/// With what it did wrong.
pub async fn usage(admin: &dyn KeyAdmin, recorder: &dyn UsageRecorder) {
    let mut findings = Findings::default();
    let user = fresh_user(admin, "suite-usage").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let added = admin.add_key(&user, &NewKey::of_key(new_key())).await;
        ids.extend(findings.ok("adding a key", added).map(|key| key.id));
    }
    for url in ["https://suite.example/usage/1", "https://suite.example/usage/2"] {
        ids.extend(findings.ok("adding a trust", admin.add_trust(&user, url).await).map(|trust| trust.id));
    }
    if let [key, idle_key, gone_key, trust, gone_trust] = ids[..] {
        recorder.flush().await;
        let mut due = Due { key: None, trust: None };
        due.check("before any use", admin, &user, [key, idle_key, trust], &mut findings).await;

        recorder.record(KeySource::Key(key), at(10));
        recorder.record(KeySource::Trust(trust), at(20));
        recorder.flush().await;
        due = Due { key: Some(at(10)), trust: Some(at(20)) };
        due.check("after a use of each", admin, &user, [key, idle_key, trust], &mut findings).await;

        // Uses of one batch in any order, and in a later batch an older one.
        for seconds in [30, 50, 40] {
            recorder.record(KeySource::Key(key), at(seconds));
        }
        recorder.flush().await;
        recorder.record(KeySource::Key(key), at(45));
        recorder.record(KeySource::Trust(trust), at(15));
        recorder.flush().await;
        due = Due { key: Some(at(50)), trust: Some(at(20)) };
        due.check("after newer and older uses", admin, &user, [key, idle_key, trust], &mut findings).await;

        recorder.record(KeySource::Unrecorded, at(55));
        recorder.flush().await;
        due.check("after a use of a key without a row", admin, &user, [key, idle_key, trust], &mut findings)
            .await;

        recorder.record(KeySource::Key(gone_key), at(60));
        recorder.record(KeySource::Trust(gone_trust), at(60));
        findings.ok("removing a key", admin.remove_key(&user, gone_key).await);
        findings.ok("removing a trust", admin.remove_trust(&user, gone_trust).await);
        recorder.record(KeySource::Key(gone_key), at(61));
        recorder.record(KeySource::Trust(gone_trust), at(61));
        recorder.record(KeySource::Key(i64::MAX), at(61));
        recorder.record(KeySource::Key(key), at(62));
        recorder.record(KeySource::Trust(trust), at(63));
        recorder.flush().await;
        due = Due { key: Some(at(62)), trust: Some(at(63)) };
        due.check("after uses of removed rows", admin, &user, [key, idle_key, trust], &mut findings).await;

        recorder.record(KeySource::Key(key), at(70));
        findings.ok("revoking a key", admin.revoke_key(&user, key).await);
        recorder.flush().await;
        due.key = Some(at(70));
        due.check("after a use just before revocation", admin, &user, [key, idle_key, trust], &mut findings)
            .await;
        let keys = findings.ok("listing keys", admin.keys(&user).await).unwrap_or_default();
        findings.check(keys.iter().any(|listed| listed.id == key && listed.revoked_at.is_some()), || {
            "noting a use un-revoked a key".to_owned()
        });

        findings.ok("removing a user", admin.remove_user(&user).await);
        recorder.record(KeySource::Key(key), at(80));
        recorder.flush().await;
    }
    remove_if_there(admin, &user).await;
    findings.finish("usage");
}

/// What every [`UsageStore`] must do: the newest time of a row wins, within one write too and in whatever order, and
/// a row that is not there does no harm to the others.
///
/// # Panics
/// With what it did wrong.
pub async fn usage_store(admin: &dyn KeyAdmin, store: &dyn UsageStore) {
    let mut findings = Findings::default();
    let user = fresh_user(admin, "suite-usage-store").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let added = admin.add_key(&user, &NewKey::of_key(new_key())).await;
        ids.extend(findings.ok("adding a key", added).map(|key| key.id));
    }
    let added = admin.add_trust(&user, "https://suite.example/usage").await;
    ids.extend(findings.ok("adding a trust", added).map(|trust| trust.id));
    if let [key, idle_key, trust] = ids[..] {
        for (when, seconds, newest) in [
            ("after a write with the newest last", [10, 20, 30], 30),
            ("after a write with the newest first", [60, 50, 40], 60),
            ("after a write with the newest in the middle", [70, 90, 80], 90),
            ("after a write of older uses", [75, 85, 80], 90),
        ] {
            let mut uses = vec![(KeySource::Key(i64::MAX), at(100))];
            for second in seconds {
                uses.push((KeySource::Key(key), at(second)));
                uses.push((KeySource::Trust(trust), at(second + 1)));
            }
            findings.ok("writing uses", store.write(&uses).await.map_err(AdminError::from));
            let due = Due { key: Some(at(newest)), trust: Some(at(newest + 1)) };
            due.check(when, admin, &user, [key, idle_key, trust], &mut findings).await;
        }
    }
    remove_if_there(admin, &user).await;
    findings.finish("usage_store");
}

/// The last uses that must be on record.
struct Due {
    key: Option<Timestamp>,
    trust: Option<Timestamp>,
}

impl Due {
    async fn check(
        &self,
        when: &str,
        admin: &dyn KeyAdmin,
        user: &Username,
        [key, idle_key, trust]: [i64; 3],
        findings: &mut Findings,
    ) {
        let keys = findings.ok("listing keys", admin.keys(user).await).unwrap_or_default();
        let trusts = findings.ok("listing trusts", admin.trusts(user).await).unwrap_or_default();
        let of_key = |id| keys.iter().find(|listed| listed.id == id).map(|listed| listed.last_used_on);
        let of_trust = trusts.iter().find(|listed| listed.id == trust).map(|listed| listed.last_used_on);
        for (what, found, due) in [
            ("the key", of_key(key), self.key),
            ("a key that was not used", of_key(idle_key), None),
            ("the trust", of_trust, self.trust),
        ] {
            findings.check(found == Some(due), || {
                format!("{when}: {what} was last used at {found:?} by its record, not {due:?}")
            });
        }
        findings.check(keys.len() <= 3 && trusts.len() <= 2, || {
            format!("{when}: there are more rows than were added")
        });
    }
}
