//! What a request costs with many users, beside what it costs with few.

use ajwt_core::PrivateKey;
use ajwt_server::{Authenticator, Clock as _, SystemClock};

use crate::store::{self, Store, authenticate, sign};

/// Requests that are timed on each database in a round.
const REQUESTS: usize = 400;

/// A busy machine spoils a round; a statement that scans spoils them all.
const ROUNDS: usize = 5;

const DIGITS: &str =
    "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
    UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";

/// The cost per request with 100,000 users, each with five keys and a trust, is within 1.5 times of
/// that with 100. Returns the large database.
pub(crate) async fn many_users_cost_no_more_than_few<S: Store>() -> (S::Database, S) {
    let key = store::key();
    let (_small_database, small) = filled::<S>(2, &key).await;
    let (database, large) = filled::<S>(5, &key).await;
    assert_eq!(large.number("SELECT count(*) FROM ajwt_user").await, 100_000);
    assert_eq!(large.number("SELECT count(*) FROM ajwt_public_key").await, 500_000);
    let (few, many) = (store::authenticator(&small), store::authenticator(&large));
    // A server is still writing down what was added, so the first rounds may be slower.
    let mut medians = Vec::new();
    for _ in 0..ROUNDS {
        let (mut few_times, mut many_times) = (Vec::new(), Vec::new());
        // In turns, so that whatever else the machine does falls on both.
        for number in 0..REQUESTS {
            few_times.push(time(&few, number % 100, &key).await);
            many_times.push(time(&many, number * 7919 % 100_000, &key).await);
        }
        let (few, many) = (median(few_times), median(many_times));
        medians.push((few, many));
        if many * 2 <= few * 3 {
            return (database, large);
        }
    }
    panic!("a request takes, in microseconds, with 100 users and with 100,000: {medians:?}");
}

/// A database with ten to the power of `digits` users, filled by plain SQL.
async fn filled<S: Store>(digits: usize, key: &PrivateKey) -> (S::Database, S) {
    let (database, store) = S::create().await;
    store.migrate_to_be_filled().await.expect("migrated");
    let tables: Vec<_> = (0..digits).map(|digit| format!("{DIGITS} AS d{digit}")).collect();
    let tables = tables.join(" CROSS JOIN ");
    let number: Vec<_> =
        (0..digits).map(|digit| format!("{} * d{digit}.d", 10_u32.pow(digit as u32))).collect();
    let number = number.join(" + ");
    store
        .execute(&format!(
            "INSERT INTO ajwt_user (username, created_at) SELECT concat('user', {number}), 0 FROM {tables}"
        ))
        .await;
    let texts: Vec<_> = (0..5)
        .map(|number| {
            let key = if number == 2 { key.public_key().clone() } else { store::key().public_key().clone() };
            format!("SELECT {number} AS n, '{}' AS t", key.to_pem())
        })
        .collect();
    let texts = texts.join(" UNION ALL ");
    store
        .execute(&format!(
            "INSERT INTO ajwt_public_key (user_id, {}, fingerprint, created_at)
            SELECT id, t, concat('f', n), 0 FROM ajwt_user CROSS JOIN ({texts}) AS texts",
            S::KEY
        ))
        .await;
    store
        .execute(
            "INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at)
            SELECT id, 'https://suite.example/jwks.json', 0 FROM ajwt_user",
        )
        .await;
    // Nonces that are live while the test runs.
    let expires_at = SystemClock::new().now().as_millis() + 3_600_000;
    store
        .execute(&format!(
            "INSERT INTO ajwt_nonce ({}, expires_at) SELECT {}, {expires_at} + n FROM (SELECT {number} AS n FROM {tables}) AS numbers",
            S::KEY,
            S::HASH_OF_N
        ))
        .await;
    store::set_up(&store).await;
    (database, store)
}

async fn time(authenticator: &Authenticator, user: usize, key: &PrivateKey) -> u128 {
    let name = format!("user{user}");
    let token = sign(&name, key);
    let clock = SystemClock::new();
    let start = clock.monotonic();
    assert_eq!(authenticate(authenticator, &token).await.as_deref(), Ok(&*name));
    (clock.monotonic() - start).as_micros()
}

fn median(mut times: Vec<u128>) -> u128 {
    // The first ones connect, prepare and parse.
    times.drain(..times.len() / 8);
    times.sort_unstable();
    times[times.len() / 2]
}
