use ajwt_core::{Jwk, Username};
use ajwt_jwks::{FetchError, Validators};
use ajwt_server::{AdminError, KeyAdmin, TrustRecord};
use clap::{Args, Subcommand};

use crate::{
    database::{AdminOptions, IntoFailure as _},
    failure::Failure,
    jwks::JwksOptions,
    output::{self, Format, Row},
    time,
};

const KEY_COLUMNS: [&str; 3] = ["kid", "type", "fingerprint"];

/// Adds, lists and removes URLs whose key sets (JWKS) name a user's keys.
#[derive(Args)]
pub(crate) struct Trust {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Trusts a URL to name the user's keys, after its key set was fetched, and shows the keys
    Add {
        #[command(flatten)]
        trust: OfUser,
        /// Trusts the URL without looking at it
        #[arg(long)]
        no_fetch: bool,
        #[command(flatten)]
        jwks: JwksOptions,
        #[command(flatten)]
        format: Format,
    },
    /// Lists the URLs that are trusted for a user
    List {
        user: Username,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Ends a trust
    Remove(OfUser),
}

#[derive(Args)]
struct OfUser {
    user: Username,
    /// The URL of a JWK Set
    url: String,
    #[command(flatten)]
    admin: AdminOptions,
}

impl Trust {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        match &self.action {
            Action::Add { trust: OfUser { user, url, admin }, no_fetch, jwks, format } => {
                AdminError::check_trust_url(url)?;
                let keys = if *no_fetch { None } else { Some(fetch(url, jwks).await?) };
                admin.with(async |store| store.add_trust(user, url).await).await?;
                if let Some(keys) = keys {
                    format.write(&KEY_COLUMNS, keys)?;
                }
                output::note(&format!("trusted for the user {}", output::printable(user.as_str())));
            }
            Action::List { user, format, admin } => {
                let trusts = admin.with(async |store| store.trusts(user).await).await?;
                let row = |trust: TrustRecord| {
                    let last_used_on = time::value(trust.last_used_on);
                    vec![("id", trust.id.into()), ("url", trust.url.into()), ("last_used_on", last_used_on)]
                };
                format.write(&["id", "url", "last_used_on"], trusts.into_iter().map(row).collect())?;
            }
            Action::Remove(OfUser { user, url, admin }) => {
                admin.with(async |store| remove(store, user, url).await).await?;
                output::note("removed the trust");
            }
        }
        Ok(())
    }
}

async fn remove(store: &dyn KeyAdmin, user: &Username, url: &str) -> Result<(), Failure> {
    let trusts = store.trusts(user).await.map_err(AdminError::into_failure)?;
    let Some(trust) = trusts.iter().find(|trust| trust.url == url) else {
        return Err(Failure::new(format!(
            "the URL is not trusted for that user; ajwt trust list {} shows those that are",
            output::printable(user.as_str())
        )));
    };
    store.remove_trust(user, trust.id).await?;
    Ok(())
}

/// The keys of a set as rows.
async fn fetch(url: &str, jwks: &JwksOptions) -> Result<Vec<Row>, Failure> {
    let response = jwks.client()?.fetch(url, &Validators::default()).await.map_err(fetch_failure)?;
    let Some(set) = response.set.filter(|set| !set.keys().is_empty()) else {
        return Err(Failure::new(
            "the URL was not added, for its key set has no usable key; --no-fetch adds it all the same",
        ));
    };
    let row = |jwk: &Jwk| {
        let key = jwk.key();
        let fingerprint = key.fingerprint().as_str();
        vec![
            ("kid", jwk.key_id().into()),
            ("type", key.key_type().to_string().into()),
            ("fingerprint", fingerprint.into()),
        ]
    };
    Ok(set.keys().iter().map(row).collect())
}

/// Why a set cannot be fetched, and what to do, by options of this program.
fn fetch_failure(error: FetchError) -> Failure {
    const NOT_ADDED: &str = "the URL was not added, for its key set cannot be fetched (--no-fetch)";
    match &error {
        FetchError::Scheme { found } => Failure::new(format!(
            "{NOT_ADDED}: it is at {found}://, which is for development: give --jwks-insecure-http, here and to the \
             gateway, or a URL that begins with https://"
        )),
        FetchError::Address { host, address } => Failure::new(format!(
            "{NOT_ADDED}: {host} is at {address}, which is not a public address: if it is one of yours, give its \
             network by --jwks-allow-network, here and to the gateway"
        )),
        _ => Failure::of(NOT_ADDED)(error),
    }
}
