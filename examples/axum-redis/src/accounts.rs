use std::{collections::HashMap, error::Error, sync::Arc};

use ajwt_core::PublicKey;
use ajwt_server::{
    Found, Freshness, KeySource, KeyedUser, RepositoryError, StoredKey, TrustedUrl, UserRepository,
};
use async_trait::async_trait;
use serde::Deserialize;

/// The application's own user: what handlers are given.
#[derive(Debug)]
pub struct Account {
    name: String,
    /// What it has paid for.
    pub plan: String,
    suspended: bool,
    keys: Vec<StoredKey>,
}

/// What the engine needs to know of it.
impl KeyedUser for Account {
    fn username(&self) -> &str {
        &self.name
    }

    fn is_active(&self) -> bool {
        !self.suspended
    }

    fn keys(&self) -> &[StoredKey] {
        &self.keys
    }

    fn jwks_urls(&self) -> &[TrustedUrl] {
        &[]
    }
}

/// All accounts, as they are configured.
#[derive(Debug)]
pub struct Accounts(HashMap<String, Arc<Account>>);

/// An account in the file. Keys are one-line OpenSSH or PEM, newest first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    name: String,
    plan: String,
    #[serde(default)]
    suspended: bool,
    keys: Vec<String>,
}

impl Accounts {
    /// Of a JSON text.
    pub fn from_json(json: &str) -> Result<Self, Box<dyn Error>> {
        let mut accounts = HashMap::new();
        for configured in serde_json::from_str::<Vec<Configured>>(json)? {
            let Configured { name, plan, suspended, keys } = configured;
            let mut stored = Vec::new();
            for text in &keys {
                let (key, _comment) =
                    PublicKey::from_text(text).map_err(|error| format!("{name}: {error}"))?;
                // No row in a database, so no use is recorded.
                stored.push(StoredKey::new(key, KeySource::Unrecorded));
            }
            let account = Account { name, plan, suspended, keys: stored };
            if let Some(other) = accounts.insert(account.name.clone(), Arc::new(account)) {
                return Err(format!("{}: two accounts have this name", other.name).into());
            }
        }
        Ok(Self(accounts))
    }
}

#[async_trait]
impl UserRepository for Accounts {
    type User = Account;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<Account>>, RepositoryError> {
        Ok(self.0.get(username).cloned().map(Found::current))
    }
}
