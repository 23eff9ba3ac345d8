//! A store tells the password of its URL nowhere.

use std::{fmt::Debug, sync::Arc, time::Duration};

use ajwt_server::{Clock as _, Freshness, NonceBackend as _, SystemClock, testing};
use ajwt_sqlx::ConnectError;
use ajwt_test_servers::sql::Server;
use ajwt_test_support::hearing::{Hearing, IN_URL, malformed};

use crate::store::{self, Store, add_guido, authenticate, authenticator, sign};

/// The server has a database `ajwt` for these users, whose password is `hearing::PASSWORD`, and a user
/// `other` with another password.
pub(crate) async fn no_password_is_shown<S: Store + Debug>(
    mut server: Server,
    scheme: &str,
    users: &[&str],
    connect: impl AsyncFn(&str) -> Result<S, ConnectError>,
    pool: impl Fn(&S) -> &dyn Debug,
) where
    S::Nonces: Debug,
{
    let mut hearing = Hearing::start();
    let url = |user: &str, host: &str| format!("{scheme}://{user}:{IN_URL}@{host}/ajwt");
    let host = format!("127.0.0.1:{}", server.port());
    let mut bad = malformed(scheme);
    bad.extend([url("other", &host), url("nobody", &host)]);
    bad.extend(["127.0.0.1:1", "nowhere.invalid"].map(|host| url(users[0], host)));
    for url in bad {
        let error = connect(&url).await.err().unwrap_or_else(|| panic!("{url} can be used"));
        hearing.error(&error);
    }

    let mut stores = Vec::new();
    for user in users {
        stores.push(connect(&url(user, &host)).await.expect("connected"));
    }
    let store = &stores[0];
    store::set_up(store).await;
    let key = add_guido(store).await;
    let authenticator = authenticator(store);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    for store in &stores {
        assert!(store.find_by_username("guido", Freshness::Current).await.expect("read").is_some());
        hearing.debug(store);
        hearing.debug(pool(store));
    }
    hearing.debug(&nonces);
    hearing.debug(&authenticator);

    // They connect anew, and fail.
    server.stop();
    hearing.error(&store.find_by_username("guido", Freshness::Current).await.expect_err("no server"));
    hearing.error(&store.revision().await.expect_err("no server"));
    hearing.error(&Store::migrate(store).await.expect_err("no server"));
    let (now, second) = (SystemClock::new().now(), Duration::from_secs(1));
    let nonce = testing::nonce_use("guido", now.as_secs(), "a", now, second, second);
    hearing.error(&nonces.consume(&nonce).await.expect_err("no server"));
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_err());
    hearing.finish(&["ajwt_server", "sqlx"]);
}
