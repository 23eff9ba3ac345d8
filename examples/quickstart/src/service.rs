use std::{error::Error, sync::Arc};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_server::Authenticator;
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use axum::{Router, routing::get};

/// The server: knows callers' public keys from its own tables, and accepts each token once.
pub fn service(repository: SqliteRepository) -> Result<(Router, Authenticator), Box<dyn Error>> {
    let nonces = SqliteNonceBackend::new(repository.pool().clone());
    let usage = repository.batched_usage();
    let authenticator =
        Authenticator::builder(Arc::new(repository), Arc::new(nonces)).usage(Arc::new(usage)).build()?;
    let router = Router::new().route("/hello", get(hello)).route_layer(AuthLayer::new(authenticator.clone()));
    Ok((router, authenticator))
}

async fn hello(caller: Authenticated) -> String {
    format!("hello, {}", caller.user().username())
}
