use std::{sync::Arc, time::Duration};

use ajwt_core::{PublicKey, Username};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{
    Authenticator, CachedUserRepository, KeyAdmin as _, NewKey, User, UserCacheOptions, UserRepository,
};
use ajwt_sqlx::SqliteRepository;

use super::{CACHING, HELD_BACK};
use crate::{
    callers::{builder, ed25519, open_store},
    jwks,
};

/// Users of each kind.
const USERS: u64 = 50;

/// Users that are too many to stay in the cache, and few enough that their keys stay parsed.
const DROPPED: u64 = 2000;

/// Users that each are asked for once: more than a comparison has requests of a kind.
const ONCE: u64 = 150_000;

/// Several times what a refusal takes.
const QUANTUM: Duration = Duration::from_millis(2);

/// Enough for the users that are asked for all the time.
const CACHE: usize = 400;

/// Kinds of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unknown,
    UnknownToo,
    /// With one Ed25519 key.
    Known,
    Inactive,
    Keyless,
    /// With one RSA key of 2048 bits.
    Rsa,
    ManyKeys,
    /// With a trusted URL and no key.
    Trusting,
    Dropped,
    Once,
}

impl Kind {
    pub(super) const fn users(self) -> u64 {
        match self {
            Self::Dropped => DROPPED,
            Self::Once => ONCE,
            _ => USERS,
        }
    }

    /// Names of one length, and those of a kind not side by side in an index.
    pub(super) fn name(self, number: u64) -> String {
        let number = (self as u64) << 32 | number;
        // An odd factor: no two numbers make the same name.
        format!("{:016x}", number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What authenticates, over a new database in the folder.
pub(crate) async fn authenticator(variant: &str, folder: &std::path::Path) -> Authenticator {
    let store = open_store(folder).await;
    let is_caching = variant == CACHING;
    let (jwks_url, ..) = jwks::serve().await;
    fill(&store, &jwks_url).await;
    if is_caching {
        add_in_bulk(&store, Kind::Dropped).await;
        add_in_bulk(&store, Kind::Once).await;
    }

    let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
    let sets = Arc::new(JwksCache::builder(client.build().expect("a client")).build());
    let warm = sets.warm_up(&store).await.expect("listed");
    assert_eq!((warm.trusted, warm.fetched), (1, 1), "the trusted URL is fetched");

    let store = Arc::new(store);
    let users: Arc<dyn UserRepository<User = User>> = if is_caching {
        let options = UserCacheOptions::default().capacity(CACHE);
        Arc::new(CachedUserRepository::over(store, options))
    } else {
        store
    };
    let quantum = if variant == HELD_BACK { QUANTUM } else { Duration::ZERO };
    let builder = builder(users).keys(Arc::new(JwksKeyRepository::new(sets)));
    builder.refusal_quantum(quantum).build().expect("built")
}

async fn fill(store: &SqliteRepository, jwks_url: &str) {
    for kind in [Kind::Known, Kind::Inactive, Kind::Keyless, Kind::Rsa, Kind::ManyKeys, Kind::Trusting] {
        for number in 0..kind.users() {
            let name = Username::new(kind.name(number)).expect("a name");
            store.add_user(&name).await.expect("added");
            for _ in 0..keys(kind) {
                let key = if kind == Kind::Rsa { rsa2048() } else { ed25519().public_key().clone() };
                store.add_key(&name, &NewKey::of_key(key)).await.expect("added");
            }
            if kind == Kind::Trusting {
                store.add_trust(&name, jwks_url).await.expect("trusted");
            }
            if kind == Kind::Inactive {
                store.set_user_active(&name, false).await.expect("deactivated");
            }
        }
    }
}

const fn keys(kind: Kind) -> usize {
    match kind {
        Kind::Keyless | Kind::Trusting | Kind::Unknown | Kind::UnknownToo => 0,
        Kind::ManyKeys => 32,
        Kind::Known | Kind::Inactive | Kind::Rsa | Kind::Dropped | Kind::Once => 1,
    }
}

/// A modulus of nobody.
fn rsa2048() -> PublicKey {
    let mut modulus = [0; 256];
    getrandom::fill(&mut modulus).expect("random bytes");
    modulus[0] |= 0x80;
    modulus[255] |= 1;
    PublicKey::from_rsa_components(&modulus, &[1, 0, 1]).expect("a key")
}

/// Users that all have the same key, in rows of their own.
async fn add_in_bulk(store: &SqliteRepository, kind: Kind) {
    let key = ed25519().public_key().clone();
    let mut transaction = store.pool().begin().await.expect("begun");
    for number in 0..kind.users() {
        let user = sqlx::query("INSERT INTO ajwt_user (username, created_at) VALUES (?, 0)")
            .bind(kind.name(number))
            .execute(&mut *transaction)
            .await
            .expect("added");
        sqlx::query(
            "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at) VALUES (?, ?, ?, 0)",
        )
        .bind(user.last_insert_rowid())
        .bind(key.to_pem())
        .bind(key.fingerprint().as_str())
        .execute(&mut *transaction)
        .await
        .expect("added");
    }
    transaction.commit().await.expect("added");
}
