use std::{error::Error, sync::Arc};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_core::Validation;
use ajwt_jwks::{JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{Authenticator, CachedUserRepository, UserCacheOptions};
use ajwt_sqlx::{MySqlNonceBackend, MySqlRepository, Schema};
use axum::{Router, routing::get};

/// Django's database, whose users and keys are found in the tables of `schema`.
pub async fn service(
    database_url: &str,
    schema: Schema,
    validation: Validation,
) -> Result<(Router, Authenticator), Box<dyn Error>> {
    let store = Arc::new(MySqlRepository::connect(database_url).await?.with_schema(schema));
    store.check().await?;
    let nonces = MySqlNonceBackend::new(store.pool().clone());
    let key_sets = Arc::new(JwksCache::builder(JwksClient::builder().build()?).build());
    key_sets.warm_up(&*store).await?;
    let users = CachedUserRepository::over(store.clone(), UserCacheOptions::default());
    let authenticator = Authenticator::builder(Arc::new(users), Arc::new(nonces))
        .keys(Arc::new(JwksKeyRepository::new(key_sets)))
        .usage(Arc::new(store.batched_usage()))
        .validation(validation)
        .build()?;
    let router = Router::new().route("/hello", get(hello)).route_layer(AuthLayer::new(authenticator.clone()));
    Ok((router, authenticator))
}

async fn hello(caller: Authenticated) -> String {
    format!("hello, {}\n", caller.user().username())
}
