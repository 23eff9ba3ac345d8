use std::collections::BTreeMap;

use super::{Findings, fresh_user, remove_if_there, with_sources};
use crate::{KeyAdmin, TrustedUrls};

/// What every [`TrustedUrls`] must do, given what writes to its store: each URL of an active user is
/// listed once, however many users trust it, and byte for byte; those of inactive and removed users
/// are not. What other users of the store trust is left aside.
///
/// # Panics
/// With what it did wrong.
pub async fn trusted_urls(admin: &dyn KeyAdmin, urls: &dyn TrustedUrls) {
    let mut findings = Findings::default();
    let one = fresh_user(admin, "suite-trust-1").await;
    let two = fresh_user(admin, "suite-trust-2").await;
    expect(urls, &[], "no trust", &mut findings).await;

    let [shared, other, upper] = ["k", "k?a=1", "K"].map(|path| format!("https://suite.example/all/{path}"));
    for (user, url) in [(&one, &shared), (&two, &shared), (&one, &other), (&two, &upper)] {
        findings.ok("trusting", admin.add_trust(user, url).await);
    }
    let all = [shared.as_str(), &other, &upper];
    expect(urls, &all, "two users that share a URL", &mut findings).await;

    findings.ok("deactivating", admin.set_user_active(&one, false).await);
    expect(urls, &[&shared, &upper], "an inactive user", &mut findings).await;
    findings.ok("activating", admin.set_user_active(&one, true).await);
    expect(urls, &all, "a user that is active again", &mut findings).await;

    let trusts = findings.ok("listing trusts", admin.trusts(&one).await).unwrap_or_default();
    for trust in trusts.iter().filter(|trust| trust.url == other) {
        findings.ok("ending a trust", admin.remove_trust(&one, trust.id).await);
    }
    expect(urls, &[&shared, &upper], "a trust that was ended", &mut findings).await;

    remove_if_there(admin, &two).await;
    expect(urls, &[&shared], "a user that was removed", &mut findings).await;
    remove_if_there(admin, &one).await;
    findings.finish("trusted_urls");
}

async fn expect(urls: &dyn TrustedUrls, due: &[&str], when: &str, findings: &mut Findings) {
    let mut found: BTreeMap<Box<str>, usize> = BTreeMap::new();
    match urls.all().await {
        Ok(all) => {
            for url in all.into_iter().filter(|url| url.starts_with("https://suite.example/all/")) {
                *found.entry(url).or_default() += 1;
            }
        }
        Err(error) => findings.add(format!("listing URLs: {}", with_sources(&error))),
    }
    let expected: BTreeMap<Box<str>, usize> = due.iter().map(|url| ((*url).into(), 1)).collect();
    findings.check(found == expected, || format!("with {when} it lists {found:?}, not {expected:?}"));
}
