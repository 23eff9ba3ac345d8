//! What holds of the tables of used nonces.

use super::*;

pub(crate) async fn it_is_a_nonce_backend<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::nonce_backend(Arc::new(store.patient().await.nonces(Arc::new(SystemClock::new())))).await;
}

pub(crate) async fn it_is_a_nonce_backend_for_several_processes<S: Store>(test: &str) {
    let (_database, url) = match env::var(STORE_URL) {
        Ok(url) if testing::is_worker() => (None, url),
        _ => {
            let (database, _) = database::<S>().await;
            let url = S::url(&database);
            (Some(database), url)
        }
    };
    let backend =
        async { Arc::new(S::open(&url).await.patient().await.nonces(Arc::new(SystemClock::new()))) as _ };
    testing::nonce_backend_across_processes(test, &[(STORE_URL, &url)], backend).await;
}

/// The backend's clock and uses dated by it.
struct Nonces {
    clock: MockClock,
}

impl Nonces {
    /// Half a minute ahead, so that it dates the table: not the database's clock, which goes on.
    fn new() -> Self {
        let ahead = SystemClock::new().now().saturating_add(Duration::from_secs(30));
        Self { clock: MockClock::new(ahead) }
    }

    fn backend<S: Store>(&self, store: &S) -> S::Nonces {
        store.nonces(Arc::new(self.clock.clone()))
    }

    fn at(&self, nonce: &str, offset: i64) -> NonceUse {
        let now = self.clock.now();
        testing::nonce_use("guido", now.as_secs() + offset, nonce, now, TOLERANCE, MARGIN)
    }
}

pub(crate) async fn used_nonces_survive_a_restart<S: Store>() {
    let (database, store) = database::<S>().await;
    let nonces = Nonces::new();
    let one = nonces.at("a", 0);
    let backend = nonces.backend(&store);
    assert_eq!(backend.consume(&one).await.expect("an answer"), NonceOutcome::Fresh);
    backend.close().await;
    store.close().await;
    let store = S::open(&S::url(&database)).await;
    assert_eq!(nonces.backend(&store).consume(&one).await.expect("an answer"), NonceOutcome::Replayed);
}

pub(crate) async fn an_emptied_table_makes_no_used_token_good_again<S: Store>() {
    let (_database, store) = database::<S>().await;
    let nonces = Nonces::new();
    let (running, other) = (nonces.backend(&store), nonces.backend(&store));
    let used: Vec<_> = (-20..=20).map(|offset| nonces.at("used", offset)).collect();
    for one in &used {
        assert_eq!(running.consume(one).await.expect("an answer"), NonceOutcome::Fresh);
    }
    assert_eq!(other.consume(&used[0]).await.expect("an answer"), NonceOutcome::Replayed);

    store.execute("DELETE FROM ajwt_nonce").await;
    for (what, backend) in [("running", &running), ("another", &other), ("new", &nonces.backend(&store))] {
        for one in &used {
            let answer = backend.consume(one).await;
            assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{what}: {answer:?}");
        }
    }
    // Once every token from before has left its window on all servers, tokens work again.
    nonces.clock.advance(Duration::from_secs(26));
    assert_eq!(running.consume(&nonces.at("new", 0)).await.expect("an answer"), NonceOutcome::Fresh);
    assert!(running.consume(&used[40]).await.is_err());
}

/// Where the database has a clock of its own. A mark of tomorrow would make all servers refuse until then.
pub(crate) async fn a_clock_that_is_far_ahead_dates_no_memory<S: Store>() {
    let (_database, store) = S::create().await;
    store.migrate().await.expect("migrated");
    let now = SystemClock::new().now();
    let clocks = [now.saturating_add(Duration::from_secs(86_400)), now].map(MockClock::new);
    let [ahead, right] = clocks.clone().map(|clock| store.nonces(Arc::new(clock)));
    let at = |clock: &MockClock, nonce| {
        let (now, limits) = (clock.now(), (Duration::from_secs(20), Duration::from_secs(60)));
        testing::nonce_use("guido", now.as_secs(), nonce, now, limits.0, limits.1)
    };
    let [tomorrow, today] = &clocks;
    for _ in 0..2 {
        let answer = ahead.consume(&at(tomorrow, "ahead")).await;
        let Err(NonceError::Store(error)) = answer else { panic!("{answer:?}") };
        let told = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(told.contains("ahead of the database's"), "{told}");
    }
    let answer = right.consume(&at(today, "early")).await;
    assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{answer:?}");
    // The table is dated by the database's clock, which is a minute ahead at most.
    today.advance(Duration::from_secs(86));
    assert_eq!(right.consume(&at(today, "late")).await.expect("an answer"), NonceOutcome::Fresh);
}

/// Nor when the table is emptied, and it is the first to notice.
pub(crate) async fn a_clock_that_is_behind_makes_no_used_token_good_again<S: Store>() {
    let (_database, store) = S::create().await;
    store.migrate().await.expect("migrated");
    let now = SystemClock::new().now();
    let clock = |millis| Arc::new(MockClock::new(Timestamp::from_millis(millis)));
    let (right, behind) = (clock(now.as_millis()), clock(now.as_millis() - 50_000));
    let backends = [right.clone(), behind.clone()].map(|clock| store.nonces(clock));
    assert!(S::initialise(&backends[0]).await);
    let at = |clock: &MockClock, nonce| {
        let (now, limits) = (clock.now(), (Duration::from_secs(20), Duration::from_secs(60)));
        testing::nonce_use("guido", now.as_secs(), nonce, now, limits.0, limits.1)
    };
    let used = at(&right, "used");
    assert_eq!(backends[0].consume(&used).await.expect("an answer"), NonceOutcome::Fresh);
    store.execute("DELETE FROM ajwt_nonce").await;
    let noticed = backends[1].consume(&at(&behind, "other")).await;
    assert!(matches!(noticed, Err(NonceError::MayHaveBeenUsed { .. })), "{noticed:?}");
    for _ in 0..3 {
        let answer = backends[0].consume(&used).await;
        assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{answer:?}");
    }
    // The later clock dates the table, and it counts for a minute ahead at most.
    right.advance(Duration::from_secs(10 + 26));
    assert_eq!(backends[0].consume(&at(&right, "late")).await.expect("an answer"), NonceOutcome::Fresh);
}

pub(crate) async fn a_new_table_trusts_no_token_from_before_it_unless_told_to<S: Store>() {
    let (_database, store) = S::create().await;
    store.migrate().await.expect("migrated");
    let nonces = Nonces::new();
    let backend = nonces.backend(&store);
    // Who knows which tables there were before this one.
    for offset in [-20, 0, 20] {
        let answer = backend.consume(&nonces.at("early", offset)).await;
        assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{offset}: {answer:?}");
    }
    assert!(!S::initialise(&backend).await, "it is in use by now");
    assert!(backend.consume(&nonces.at("early", 0)).await.is_err());
    nonces.clock.advance(Duration::from_secs(26));
    assert_eq!(backend.consume(&nonces.at("late", 0)).await.expect("an answer"), NonceOutcome::Fresh);

    let (_database, store) = S::create().await;
    store.migrate().await.expect("migrated");
    let backend = nonces.backend(&store);
    S::check(&backend).await.expect("it is there");
    assert!(S::initialise(&backend).await, "who only looks marks nothing");
    assert!(S::initialise(&backend).await, "once more changes nothing");
    assert_eq!(backend.consume(&nonces.at("early", -20)).await.expect("an answer"), NonceOutcome::Fresh);
}

/// As after it was written while a clock was ahead: what docs/operations.md says to do helps processes that run, too.
pub(crate) async fn a_mark_that_lies_ahead_goes_with_the_rows<S: Store>() {
    let (_database, store) = database::<S>().await;
    let nonces = Nonces::new();
    let tomorrow = nonces.clock.now().saturating_add(Duration::from_secs(86_400));
    store.execute(&format!("UPDATE ajwt_nonce SET expires_at = {}", tomorrow.as_millis())).await;
    let running = nonces.backend(&store);
    let told_since = async |nonce| match running.consume(&nonces.at(nonce, 0)).await {
        Err(NonceError::MayHaveBeenUsed { since }) => since,
        answer => panic!("{answer:?}"),
    };
    assert_eq!(told_since("early").await, tomorrow);

    store.execute("DELETE FROM ajwt_nonce").await;
    nonces.clock.advance(Duration::from_secs(1));
    let since = told_since("early").await;
    assert!(since < tomorrow, "{since}");
    assert_eq!(store.number("SELECT expires_at FROM ajwt_nonce").await, since.as_millis());
    // As after any other table was emptied.
    nonces.clock.advance(Duration::from_secs(26));
    let late = nonces.at("late", 0);
    assert_eq!(running.consume(&late).await.expect("an answer"), NonceOutcome::Fresh);
    assert_eq!(running.consume(&late).await.expect("an answer"), NonceOutcome::Replayed);
}

pub(crate) async fn expired_rows_are_removed_in_batches_and_live_ones_stay<S: Store>() {
    let (_database, store) = database::<S>().await;
    let nonces = Nonces::new();
    let backend = nonces.backend(&store);
    // What the backend itself adds, as if long ago.
    let live = nonces.at("live", 0);
    let long_ago = Nonces::new();
    for number in 0..2500 {
        let old = long_ago.at(&number.to_string(), 0);
        assert_eq!(backend.consume(&old).await.expect("an answer"), NonceOutcome::Fresh);
    }
    // Its own sweeps, every 10 s until it is closed and from its next use on, would come between.
    backend.close().await;
    store.execute("UPDATE ajwt_nonce SET expires_at = 1789999999999 WHERE expires_at <> 0").await;
    assert_eq!(backend.consume(&live).await.expect("an answer"), NonceOutcome::Fresh);
    backend.close().await;
    let rows = async || store.number("SELECT count(*) FROM ajwt_nonce").await;
    assert_eq!(rows().await, 2502);
    S::sweep(&backend).await;
    assert_eq!(rows().await, 2, "the live nonce, and since when the table is whole");
    nonces.clock.advance(Duration::from_secs(100));
    S::sweep(&backend).await;
    assert_eq!(
        backend.consume(&live).await.expect("an answer"),
        NonceOutcome::Replayed,
        "100 s are not over"
    );
    nonces.clock.advance(Duration::from_millis(1));
    S::sweep(&backend).await;
    assert_eq!(rows().await, 1);
}

/// Sweepers of several processes and requests meet, and none of them fails.
pub(crate) async fn sweeping_disturbs_no_request<S: Store>() {
    let (_database, store) = database::<S>().await;
    let nonces = Nonces::new();
    let backend = Arc::new(nonces.backend(&store));
    let log = Log::default();
    let _listening = log.listen(Level::WARN);
    for round in 0..5 {
        for number in 0..300 {
            let old = nonces.at(&format!("{round} {number}"), 0);
            assert_eq!(backend.consume(&old).await.expect("an answer"), NonceOutcome::Fresh);
        }
        nonces.clock.advance(Duration::from_secs(101));
        let sweeps = async {
            tokio::join!(S::sweep(&backend), S::sweep(&backend), S::sweep(&backend));
        };
        let requests = async {
            for number in 0..100 {
                let new = nonces.at(&format!("new {round} {number}"), 0);
                assert_eq!(backend.consume(&new).await.expect("an answer"), NonceOutcome::Fresh);
            }
        };
        tokio::join!(sweeps, requests);
    }
    // sqlx warns of what took a second, as on a machine that stalls.
    let log = log.text();
    assert!(log.lines().all(|line| line.contains("slow statement")), "{log}");
}
