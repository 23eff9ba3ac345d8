//! Who waits for a fetch, and for how long, where endpoints are slow.

use super::*;

#[tokio::test(start_paused = true)]
async fn first_requests_wait_for_one_fetch() {
    let (fixture, key) = Fixture::new();
    fixture.script.delay(4);
    let fixture = Arc::new(fixture);
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (fixture, key) = (Arc::clone(&fixture), key.clone());
            tokio::spawn(async move { fixture.has(&[A], &key).await })
        })
        .collect();
    for request in requests {
        assert!(request.await.expect("joined"));
    }
    assert_eq!(fixture.now(), 4.0);
    assert_eq!(fixture.script.fetches(A).len(), 1);
    // What the endpoint said, it said some time after the fetch began.
    assert_eq!(fixture.cache.snapshot()[0].age, Some(Duration::from_secs(4)));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_waits_no_longer_than_the_deadline_and_the_next_ones_not_at_all() {
    let (fixture, _) = Fixture::new();
    fixture.script.answer(A, Answer::Hangs);
    for waited in [5.0, 5.0, 5.0] {
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(fixture.now(), waited);
    }
    assert_eq!(fixture.script.fetches(A).len(), 1);

    // Given up by a request, a fetch goes on.
    let (fixture, key) = Fixture::new();
    fixture.script.delay(4);
    let waiting = fixture.has(&[A], &key);
    assert!(tokio::time::timeout(Duration::from_secs(2), waiting).await.is_err());
    pass(3).await;
    assert!(fixture.has(&[A], &key).await);
    assert_eq!((fixture.now(), fixture.script.fetches(A).len()), (5.0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_url_that_hangs_does_not_hold_up_the_users_other_one() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(B, Answer::Hangs);
    assert!(fixture.has(&[B, A], &key).await);
    assert_eq!(fixture.now(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn fifty_endpoints_that_hang_do_not_delay_the_next() {
    let (fixture, key) = Fixture::new();
    let hanging = numbered(50);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let mut urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    urls.push(A);
    let warm = fixture.warm_up(&urls).await;
    assert_eq!(warm, WarmUp { trusted: 51, fetched: 1, failed: 50, pending: 0 });
    pass(HOUR).await;
    let fetches = fixture.script.fetches(A);
    assert!(are_refreshes(&fetches, 300.0) && (12..=14).contains(&fetches.len()), "{fetches:?}");
    assert!(fixture.has(&[A], &key).await);
}

/// Their sets are there, so that they are refreshed beside the one that is well.
#[tokio::test(start_paused = true)]
async fn fifty_endpoints_that_begin_to_hang_do_not_delay_the_next() {
    let (fixture, key) = Fixture::new();
    let others = numbered(50);
    let mut urls: Vec<&str> = others.iter().map(String::as_str).collect();
    urls.push(A);
    for url in &urls {
        fixture.script.answer(url, Answer::FreshFor(30, vec![key.clone()]));
    }
    assert_eq!(fixture.warm_up(&urls).await.fetched, 51);
    pass(20).await;
    for url in &others {
        fixture.script.answer(url, Answer::Hangs);
    }
    pass(12).await;
    // All are due at once, for none may come sooner than the cool-down, in whatever order: none waits for
    // another, so neither does the last of them.
    for url in urls {
        let fetches = fixture.script.fetches(url);
        assert!(are_at(&fetches, &[0.0, 30.0]), "{url}: {fetches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_at_once_are_bounded_and_endpoints_that_hang_delay_only_each_other() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::FreshFor(30, vec![key]));
    fixture.warm_up(&[A]).await;
    let hanging = numbered(1500);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    let warm = fixture.warm_up(&urls).await;
    // 64 at a time for 5 s each, until the limit of 30 s.
    assert_eq!((fixture.now(), warm.trusted), (30.0, 1500));
    assert!((320..=384).contains(&warm.failed) && warm.failed + warm.pending == 1500, "{warm:?}");
    pass(272).await;
    let fetches = fixture.script.fetches(A);
    let gaps = fetches.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.fold(0.0, f64::max) <= 31.01 && fetches.len() >= 10, "{fetches:?}");
    assert!(lock(&fixture.script.at_once).1 <= REFRESHES + FIRST_FETCHES + RETRIES);
}

/// A request waits for a fetch, not for its turn.
#[tokio::test(start_paused = true)]
async fn a_retry_that_stands_behind_others_is_not_waited_for() {
    let (fixture, _) = Fixture::new();
    let hanging = numbered(200);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    assert_eq!(fixture.warm_up(&urls).await.failed, 200);
    // By now all are due again, and stand behind each other.
    pass(38).await;
    let asked = fixture.now();
    let fixture = Arc::new(fixture);
    let requests: Vec<_> = hanging
        .into_iter()
        .map(|url| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                fixture.ask_for_unknown(&[url.as_str()]).await;
                fixture.now()
            })
        })
        .collect();
    let mut waited = 0;
    for request in requests {
        waited += usize::from(request.await.expect("joined") > asked);
    }
    assert!((1..=RETRIES).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_good_endpoint_that_failed_once_does_not_stand_behind_those_that_hang() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::FreshFor(30, vec![key]));
    fixture.warm_up(&[A]).await;
    let hanging = numbered(500);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    fixture.warm_up(&urls).await;
    // From now on hundreds of them wait to be tried again, 16 in 5 s.
    pass(60).await;
    fixture.script.answer(A, Answer::Fails);
    let failures = || fixture.cache.snapshot().last().expect("that of A comes last").failures;
    while failures() == 0 {
        pass(1).await;
    }
    fixture.script.fetches(A);
    pass(39).await;
    assert_eq!(fixture.script.fetches(A).len(), 1);
    assert_eq!(failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_moment_wait_for_a_retry_together() {
    let (fixture, _) = Fixture::new();
    fixture.script.answer(A, Answer::Hangs);
    assert_eq!(fixture.warm_up(&[A]).await.failed, 1);
    // The cool-down is over, and the next by the timer is not due yet.
    tokio::time::sleep_until(fixture.script.start + Duration::from_secs(31)).await;
    let ask = async || {
        fixture.ask_for_unknown(&[A]).await;
        fixture.now()
    };
    let answered = tokio::join!(ask(), ask());
    assert_eq!(answered, (36.0, 36.0));
}

/// As long as nothing was fetched, neither the queue nor the fetch itself lets each request wait anew.
#[tokio::test(start_paused = true)]
async fn a_first_fetch_that_stands_behind_others_is_waited_for_once_within_the_cool_down() {
    let (fixture, _) = Fixture::new();
    let hanging = numbered(500);
    let mut urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    urls.push(A);
    for url in &urls {
        fixture.script.answer(url, Answer::Hangs);
    }
    // It is given up; the fetches go on, 64 at a time for 5 s each, by the order of their URLs: this one's is last.
    assert!(tokio::time::timeout(Duration::from_secs(1), fixture.warm_up(&urls)).await.is_err());
    let start = fixture.script.start;
    for (asked, answered) in [(1, 6), (7, 7), (30, 30), (31, 36), (37, 37)] {
        tokio::time::sleep_until(start + Duration::from_secs(asked)).await;
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(start.elapsed(), Duration::from_secs(answered), "asked at {asked}");
    }
    // The warm-up waits all the same, for it has a limit of its own.
    assert_eq!(fixture.warm_up(&[A]).await.failed, 1);
    assert_eq!(start.elapsed(), Duration::from_secs(40));
    let fetches = fixture.script.fetches(A);
    assert!(are_at(&fetches, &[35.0]), "{fetches:?}");
}

/// As after an hour in which the machine slept or the endpoint failed.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_old_is_waited_for_once_within_the_cool_down() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Fails);
    pass(HOUR + MINUTE).await;
    assert_eq!(fixture.warm_up(&[A]).await, WarmUp { trusted: 1, fetched: 0, failed: 1, pending: 0 });
    while fixture.cache.snapshot()[0].next_refresh < Duration::from_secs(250) {
        pass(1).await;
    }
    pass(MINUTE).await;
    fixture.script.answer(A, Answer::Hangs);
    let asked = fixture.now();
    for waited in [5.0, 5.0, 5.0] {
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(fixture.now() - asked, waited);
    }
    pass(MINUTE).await;
    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    fixture.script.delay(3);
    let asked = fixture.now();
    assert!(fixture.has(&[A], &key).await);
    assert_eq!(fixture.now() - asked, 3.0);
}
