//! How sets and the cache end, and what is told of them meanwhile.

use std::collections::BTreeMap;

use ajwt_test_support::{Level, Log};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_set_that_nobody_asks_for_is_dropped_after_a_day() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(B, Answer::Keys(vec![key.clone()]));
    fixture.warm_up(&[A, B]).await;
    pass(23 * HOUR).await;
    assert!(fixture.has(&[A], &key).await);
    pass(HOUR + 2).await;
    let urls: Vec<_> = fixture.cache.snapshot().into_iter().map(|set| set.url).collect();
    assert_eq!(urls, [A.into()]);
    fixture.script.fetches(B);
    pass(HOUR).await;
    assert!(fixture.script.fetches(B).is_empty());
    assert!(fixture.has(&[B], &key).await, "it is fetched anew");
    pass(25 * HOUR).await;
    assert!(fixture.cache.snapshot().is_empty());
}

/// Who warms up again from time to time has each set that is trusted still, whether its user comes or not.
#[tokio::test(start_paused = true)]
async fn a_set_is_not_dropped_while_it_is_warmed_up() {
    let (fixture, _) = Fixture::new();
    fixture.warm_up(&[A, B]).await;
    let urls = || fixture.cache.snapshot().into_iter().map(|set| set.url).collect::<Vec<_>>();
    pass(23 * HOUR).await;
    assert_eq!(urls(), [A.into(), B.into()]);
    fixture.warm_up(&[A]).await;
    pass(23 * HOUR).await;
    assert_eq!(urls(), [A.into()]);
    pass(HOUR + 2).await;
    assert!(urls().is_empty());
}

/// Else the next request would begin a second fetch beside it.
#[tokio::test(start_paused = true)]
async fn a_set_is_not_dropped_while_it_is_fetched() {
    let (fixture, _) = Fixture::new();
    fixture.warm_up(&[A]).await;
    pass(24 * HOUR - 400).await;
    fixture.script.delay(600);
    pass(500).await;
    assert_eq!(fixture.cache.snapshot().len(), 1);
    pass(500).await;
    assert!(fixture.cache.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_fetches_nothing_and_serves_what_it_has() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(B, Answer::Hangs);
    assert!(tokio::time::timeout(Duration::from_secs(1), fixture.ask_for_unknown(&[B])).await.is_err());
    // Closed by the authenticator, in the midst of a fetch.
    PublicKeyRepository::<User>::close(&fixture.keys).await;
    assert_eq!(fixture.now(), 1.0);
    assert_eq!(lock(&fixture.script.at_once).0, 1, "the fetch was given up");
    fixture.script.fetches(A);
    pass(HOUR - 2).await;
    assert!(fixture.has(&[A], &key).await);
    fixture.ask_for_unknown(&[A, B, "https://new.example/"]).await;
    assert_eq!(fixture.now(), 3599.0, "nothing waits");
    pass(2).await;
    assert!(!fixture.has(&[A], &key).await);
    assert!(lock(&fixture.script.fetches).iter().all(|(_, at)| *at <= 1.0));
    assert_eq!(fixture.warm_up(&["https://new.example/"]).await.pending, 1);
}

#[tokio::test(start_paused = true)]
async fn a_shared_cache_is_closed_with_the_last_repository_on_it() {
    let (fixture, _) = Fixture::new();
    let [other, dropped] = [(); 2].map(|()| JwksKeyRepository::new(Arc::clone(&fixture.cache)));
    fixture.warm_up(&[A]).await;
    drop(dropped);
    // Closed twice it counts once.
    PublicKeyRepository::<User>::close(&other).await;
    PublicKeyRepository::<User>::close(&other).await;
    drop(other);
    fixture.script.fetches(A);
    pass(302).await;
    assert_eq!(fixture.script.fetches(A).len(), 1, "it goes on for the one that is open");
    PublicKeyRepository::<User>::close(&fixture.keys).await;
    pass(302).await;
    assert!(fixture.script.fetches(A).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_says_once_that_it_is_asked() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    assert!(fixture.has(&[A], &key).await);
    fixture.cache.close().await;
    assert!(log.lines("WARN").is_empty(), "{:?}", log.lines("WARN"));
    for _ in 0..3 {
        assert!(fixture.has(&[A], &key).await);
        fixture.ask_for_unknown(&[A]).await;
        fixture.warm_up(&[A]).await;
    }
    let warnings = log.lines("WARN");
    assert!(warnings.len() == 1 && warnings[0].contains("closed"), "{warnings:?}");
}

/// As where the cache is built before the server's own runtime is made. Time stands still on the first of the two.
#[test]
fn sets_are_fetched_on_another_runtime_when_their_own_has_ended() {
    for warms_up_again in [false, true] {
        let (fixture, old) = paused_runtime().block_on(async {
            let (fixture, key) = Fixture::new();
            fixture.warm_up(&[A]).await;
            (fixture, key)
        });
        paused_runtime().block_on(async {
            pass(31).await;
            let new = key();
            fixture.script.answer(A, Answer::Keys(vec![old.clone(), new.clone()]));
            fixture.script.answer(B, Answer::Keys(vec![old]));
            if warms_up_again {
                assert_eq!(fixture.warm_up(&[A, B]).await.fetched, 2);
            } else {
                assert!(!fixture.has(&[A], &new).await, "this request begins the fetch");
            }
            pass(1).await;
            assert!(fixture.has(&[A], &new).await);
            pass(61 * MINUTE).await;
            let age = fixture.cache.snapshot()[0].age.expect("a set");
            assert!(age < Duration::from_secs(302), "it is refreshed: {age:?}");
            assert!(fixture.has(&[A], &new).await);
        });
    }
}

#[test]
fn a_fetch_tells_the_end_of_its_runtime_from_that_of_the_cache() {
    for (is_closed, label) in [(false, "stopped"), (true, "closed")] {
        let fixture = paused_runtime().block_on(async {
            let (fixture, _) = Fixture::new();
            fixture.script.answer(B, Answer::Hangs);
            let waiting = tokio::time::timeout(Duration::from_secs(1), fixture.ask_for_unknown(&[B]));
            assert!(waiting.await.is_err());
            if is_closed {
                fixture.cache.close().await;
            }
            fixture
        });
        let last_error = fixture.cache.snapshot()[0].last_error.clone().expect("it did not end");
        assert_eq!(last_error.label(), label);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_cache_ends_its_work() {
    let (fixture, _) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(B, Answer::Hangs);
    assert!(tokio::time::timeout(Duration::from_secs(1), fixture.ask_for_unknown(&[B])).await.is_err());
    let Fixture { script, cache, keys } = fixture;
    drop((cache, keys));
    pass(HOUR).await;
    assert_eq!((script.fetches(A).len(), script.fetches(B).len()), (1, 1));
    assert_eq!(Arc::strong_count(&script), 1, "nothing holds on to it");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_does_not_fill_the_log() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let (fixture, _) = Fixture::new();
    fixture.script.answer(A, Answer::Odd);
    fixture.warm_up(&[A]).await;
    pass(HOUR - 1).await;
    assert!(fixture.script.fetches(A).len() > 100);
    let lines = log.lines("WARN");
    // Five and one that tells of the others, every five minutes.
    assert!((60..=72).contains(&lines.len()), "{}: {lines:#?}", lines.len());
    assert_eq!(lines.iter().filter(|line| line.contains("and 95 more")).count() * 6, lines.len());
}

/// Nothing else tells that the hour has passed, and with it the keys.
#[tokio::test(start_paused = true)]
async fn a_failed_fetch_tells_what_becomes_of_the_keys() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Fails);
    let stays = |line: &String| line.contains(A) && line.contains("stays until it is an hour old");
    pass(59 * MINUTE).await;
    let warnings = log.lines("WARN");
    assert!(warnings.len() > 5 && warnings.iter().all(stays), "{warnings:#?}");
    assert!(log.lines("ERROR").is_empty(), "{:#?}", log.lines("ERROR"));

    // Pauses are 6 minutes and a quarter at most.
    pass(9 * MINUTE).await;
    let errors = log.lines("ERROR");
    let is_not_used = |line: &String| line.contains(A) && line.contains("and is not used: tokens by");
    assert!(!errors.is_empty() && errors.iter().all(is_not_used), "{errors:#?}");
    // Those of the hour's last minute.
    let warnings = log.lines("WARN").len();
    assert!(log.lines("WARN").iter().all(stays), "{:#?}", log.lines("WARN"));
    pass(2 * HOUR).await;
    assert!(log.lines("ERROR").len() > errors.len() + 10 && log.lines("ERROR").iter().all(is_not_used));
    assert_eq!(log.lines("WARN").len(), warnings, "it does not stay any more");

    // It is there again.
    fixture.script.answer(A, Answer::Keys(vec![key]));
    pass(7 * MINUTE).await;
    let errors = log.lines("ERROR").len();
    fixture.script.answer(A, Answer::Fails);
    pass(7 * MINUTE).await;
    assert!(log.lines("WARN").len() > warnings && log.lines("WARN").iter().all(stays));
    assert_eq!(log.lines("ERROR").len(), errors);
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_of_a_set_that_was_never_there_promises_no_hour() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let (fixture, _) = Fixture::new();
    assert_eq!(fixture.warm_up(&[B]).await.failed, 1);
    pass(2 * HOUR).await;
    let (of_warm_up, warnings): (Vec<_>, Vec<_>) =
        log.lines("WARN").into_iter().partition(|line| line.contains("not all key sets of trusted URLs"));
    assert_eq!(of_warm_up.len(), 1, "{of_warm_up:#?}");
    let is_missing = |line: &String| line.contains(B) && line.contains("there is none yet: tokens");
    assert!(warnings.len() > 10 && warnings.iter().all(is_missing), "{warnings:#?}");
    assert!(log.lines("ERROR").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_tells_each_sets_state() {
    let (fixture, _) = Fixture::new();
    let secret = "https://me:pass@b.example/jwks.json?token=secret";
    fixture.warm_up(&[secret, A]).await;
    pass(10).await;
    let sets = fixture.cache.snapshot();
    let told: BTreeMap<&str, _> = sets.iter().map(|set| (&*set.url, set)).collect();
    let [good, bad] = [told[A], told[B]];
    assert_eq!((good.keys, good.age, good.is_trusted), (1, Some(Duration::from_secs(10)), true));
    assert!((260.0..=290.0).contains(&good.next_refresh.as_secs_f64()) && good.failures == 0, "{good:?}");
    assert_eq!((bad.keys, bad.age, bad.is_trusted, bad.failures), (0, None, false, 1));
    assert!((20.0..=27.6).contains(&bad.next_refresh.as_secs_f64()), "{bad:?}");
    assert!(!format!("{sets:?} {:?}", fixture.cache).contains("secret"));
    assert!(!format!("{sets:?}").contains("pass"));
}
