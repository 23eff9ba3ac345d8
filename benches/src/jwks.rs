//! What a request pays for keys of trusted URLs, among many sets and with one: as a whole, and for the look-up
//! in memory by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ajwt_core::{JwkSet, PrivateKey};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{Authenticator, MemoryRepository, PublicKeyRepository as _, TrustedUrl, User};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Runtime,
};

use crate::{
    bare::parsed,
    callers::{NAME, bare, builder, ed25519, header, headers, time, wait_for_the_next_second},
    measure::{SHORT_ROUNDS, in_turn, per_op},
    report::Report,
};

/// Requests of a round.
const REQUESTS: usize = 40;

/// Look-ups of a round.
const LOOK_UPS: usize = 2000;
const SETS: usize = 10_000;
/// Signature checks of a round, by which machines compare.
const CHECKS: usize = 50;
/// So few that they stay in the processor's caches.
const BATCH: usize = 20;

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (private, other_id, many, one) = runtime.block_on(async {
        let (url, private, other_id) = serve().await;
        (private, other_id, Sets::fetch(&url, SETS).await, Sets::fetch(&url, 1).await)
    });
    requests(report, &runtime, &private, [&many, &one]);
    runtime.block_on(look_ups(report, &private, &other_id, [&many, &one]));
}

/// Whole requests, of users in turn.
fn requests(report: &mut Report, runtime: &Runtime, private: &PrivateKey, [many, one]: [&Sets; 2]) {
    wait_for_the_next_second();
    let request = |sets: &Sets, round: usize| {
        let name = |number: usize| format!("{NAME}{}", (round * REQUESTS + number) * 7919 % sets.users.len());
        let headers: Vec<_> = (0..REQUESTS).map(|number| header(&name(number), private)).collect();
        time(runtime, &sets.authenticator, &headers)
    };
    let [of_many, of_one] =
        in_turn(SHORT_ROUNDS, [&mut |round| request(many, round), &mut |round| request(one, round)]);
    report.beside(&format!("a request, among {SETS} sets"), "ns", &of_many, "with the only set", &of_one);
}

async fn look_ups(report: &mut Report, private: &PrivateKey, other_id: &str, [many, one]: [&Sets; 2]) {
    let (headers, parsed) = (headers(private, CHECKS), parsed(private.public_key()));
    let bare = bare(&headers);
    let key_id = private.public_key().fingerprint().as_str();
    let (mut checks, mut of_many, mut of_one) = (vec![], vec![], vec![]);
    let (mut by_other_id, mut unknown) = (vec![], vec![]);
    for round in 0..SHORT_ROUNDS {
        checks.push(per_op(CHECKS, || bare.iter().for_each(|bare| bare.check(&parsed))));
        of_many.push(many.look_up(3 * round, key_id, 1).await);
        of_one.push(one.look_up(round, key_id, 1).await);
        by_other_id.push(many.look_up(3 * round + 1, other_id, 1).await);
        unknown.push(many.look_up(3 * round + 2, "no such key", 0).await);
    }
    let what = format!("a look-up among {SETS} sets of two keys");
    report.beside(&what, "ns", &of_many, "in the only set", &of_one);
    report.beside(&what, "ns", &of_many, "a bare Ed25519 check", &checks);
    report.alone(&format!("{what}, of a kid that is no fingerprint"), "ns", &by_other_id);
    report.alone(&format!("{what}, of a kid that none has"), "ns", &unknown);
}

/// An endpoint that answers whatever path is asked for with two keys: one, and another by an id that is no
/// fingerprint.
pub(crate) async fn serve() -> (String, PrivateKey, String) {
    let (private, other) = (ed25519(), ed25519());
    let other_id = "a-kid-of-the-usual-length-2026-11".to_owned();
    let body = JwkSet::of_keys([private.public_key().clone(), other.public_key().clone()]).to_json();
    let body = body.replace(other.public_key().fingerprint().as_str(), &other_id);
    let answer: Arc<str> = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                // The request fits in one read.
                let _ = stream.read(&mut [0; 2048]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, private, other_id)
}

struct Sets {
    authenticator: Authenticator,
    keys: JwksKeyRepository,
    users: Vec<User>,
}

impl Sets {
    async fn fetch(url: &str, count: usize) -> Self {
        let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
        let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
        let cache = JwksCache::builder(client.build().expect("a client"));
        let cache = Arc::new(cache.warm_up_limit(Duration::from_secs(300)).build());
        let user = |number: usize| {
            let url = format!("{url}/a-path-of-the-usual-length/{number}/.well-known/jwks.json");
            User::new(format!("{NAME}{number}")).with_jwks_urls(vec![TrustedUrl::new(1, url)])
        };
        let users: Vec<User> = (0..count).map(user).collect();
        let repository = Arc::new(MemoryRepository::new(users.clone()));
        let warm = cache.warm_up(&*repository).await.expect("memory");
        assert_eq!(warm.fetched, count, "{warm:?}");
        let authenticator = builder(repository).keys(Arc::new(JwksKeyRepository::new(cache.clone())));
        let authenticator = authenticator.build().expect("built");
        Self { authenticator, keys: JwksKeyRepository::new(cache), users }
    }

    /// Nanoseconds of one, for users that were just read and whose sets were not.
    #[allow(clippy::disallowed_methods, reason = "it measures")]
    async fn look_up(&self, round: usize, key_id: &str, due: usize) -> f64 {
        let mut users = self.users.iter().cycle().skip(round * LOOK_UPS % self.users.len());
        let mut took = Duration::ZERO;
        for _ in 0..LOOK_UPS / BATCH {
            let batch: Vec<User> = users.by_ref().take(BATCH).cloned().collect();
            let began = Instant::now();
            for user in &batch {
                let found = self.keys.candidates(Some(user), Some(key_id)).await.expect("memory");
                assert_eq!(found.len(), due);
            }
            took += began.elapsed();
        }
        took.as_secs_f64() * 1e9 / LOOK_UPS as f64
    }
}
