//! What a request pays for keys of trusted URLs: a look-up in memory, among many sets and in one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ajwt_core::{JwkSet, PrivateKey};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{MemoryRepository, PublicKeyRepository as _, TrustedUrl, User};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    bare::parsed,
    callers::{bare, ed25519, headers},
    measure::{SHORT_ROUNDS, per_op},
    report::Report,
};

/// Look-ups of a round.
const LOOK_UPS: usize = 2000;
const SETS: usize = 10_000;
/// Signature checks of a round, by which machines compare.
const CHECKS: usize = 50;
/// So few that they stay in the processor's caches.
const BATCH: usize = 20;

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (url, [key_id, other_id]) = serve().await;
        let (many, one) = (Sets::fetch(&url, SETS).await, Sets::fetch(&url, 1).await);
        let private = ed25519();
        let (headers, parsed) = (headers(&private, CHECKS), parsed(private.public_key()));
        let bare = bare(&headers);
        let (mut checks, mut of_many, mut of_one) = (vec![], vec![], vec![]);
        let (mut by_other_id, mut unknown) = (vec![], vec![]);
        for round in 0..SHORT_ROUNDS {
            checks.push(per_op(CHECKS, || bare.iter().for_each(|bare| bare.check(&parsed))));
            of_many.push(many.look_up(3 * round, &key_id, 1).await);
            of_one.push(one.look_up(round, &key_id, 1).await);
            by_other_id.push(many.look_up(3 * round + 1, &other_id, 1).await);
            unknown.push(many.look_up(3 * round + 2, "no such key", 0).await);
        }
        let what = format!("a look-up among {SETS} sets of two keys");
        report.beside(&what, "ns", &of_many, "in the only set", &of_one);
        report.beside(&what, "ns", &of_many, "a bare Ed25519 check", &checks);
        report.alone(&format!("{what}, of a kid that is no fingerprint"), "ns", &by_other_id);
        report.alone(&format!("{what}, of a kid that none has"), "ns", &unknown);
    });
}

/// An endpoint that answers whatever path is asked for, and the ids of its keys: the fingerprint, and one
/// that is none.
pub(crate) async fn serve() -> (String, [String; 2]) {
    let keys = [(); 2].map(|()| PrivateKey::generate_ed25519().expect("a key").public_key().clone());
    let [key_id, fingerprint] = keys.each_ref().map(|key| key.fingerprint().as_str().to_owned());
    let other_id = "a-kid-of-the-usual-length-2026-11".to_owned();
    let body = JwkSet::of_keys(keys).to_json().replace(&fingerprint, &other_id);
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
    (url, [key_id, other_id])
}

struct Sets {
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
            User::new(format!("user-{number}")).with_jwks_urls(vec![TrustedUrl::new(1, url)])
        };
        let users: Vec<User> = (0..count).map(user).collect();
        let warm = cache.warm_up(&MemoryRepository::new(users.clone())).await.expect("memory");
        assert_eq!(warm.fetched, count, "{warm:?}");
        Self { keys: JwksKeyRepository::new(cache), users }
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
