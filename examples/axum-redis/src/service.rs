use std::{error::Error, sync::Arc};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_redis::RedisNonceBackend;
use ajwt_server::{Authenticator, NonceBackend};
use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

use crate::{Account, Accounts};

/// Each service and environment has a prefix of its own.
const PREFIX: &str = "axum-redis:example";

/// Accounts from the configuration, nonces in Redis.
pub async fn authenticator(
    accounts: Accounts,
    redis: &str,
) -> Result<Authenticator<Account>, Box<dyn Error>> {
    let nonces: Arc<dyn NonceBackend> = Arc::new(RedisNonceBackend::builder(PREFIX).connect(redis).await?);
    Ok(Authenticator::builder(Arc::new(accounts), nonces).build()?)
}

/// The service: whoever has an account may call it, and the welcome is for everybody.
pub fn router(authenticator: Authenticator<Account>) -> Router {
    let layer = AuthLayer::new(authenticator);
    // Not `route_layer`, which would leave open what answers the methods that a route does not name.
    Router::new()
        .route("/plan", get(plan).layer(layer.clone()))
        .route("/", get(welcome).layer(layer.optional()))
}

async fn plan(caller: Authenticated<Account>) -> Json<Value> {
    let account = caller.user();
    Json(json!({
        "account": caller.token().username().as_str(),
        "plan": account.plan,
        "key": caller.key().key_id(),
    }))
}

async fn welcome(caller: Option<Authenticated<Account>>) -> String {
    match caller {
        Some(caller) => format!("welcome back, {}\n", caller.token().username().as_str()),
        None => "welcome, stranger\n".to_owned(),
    }
}
