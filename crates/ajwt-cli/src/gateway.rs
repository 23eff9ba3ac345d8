//! The gateway: answers a reverse proxy that asks whether a request is authenticated.

mod configuration;
mod connections;
mod metrics;
mod service;
mod stop;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ajwt_core::PublicKey;
use ajwt_jwks::{ClientError, JwksCache, JwksKeyRepository};
use ajwt_server::{
    Authenticator, KeyDirectory, Readiness, TrustedUrls, User, UserCacheOptions, UserRepository,
};
use axum::Router;
use clap::Args;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};
use tracing_subscriber::filter::LevelFilter;

pub(crate) use self::configuration::with_configuration;
use self::{connections::Room, metrics::ObservedNonces, stop::Stop};
use crate::{
    database::{Database, DatabaseOptions},
    failure::Failure,
    input,
    jwks::JwksOptions,
    nonce::NonceOptions,
    output,
    private_key::Access,
    token_rules::TokenRules,
};

/// The command's name.
pub(crate) const COMMAND: &str = "gateway";

/// How long requests may take that are running when the gateway is told to stop. With what comes after it, the
/// authenticator's 4 s and [`CLOSE_TIMEOUT`], that is less than the 10 s after which `docker stop` kills.
const GRACE: Duration = Duration::from_secs(5);

/// How long the first fetch of all key sets may keep the gateway from listening.
const WARM_UP: Duration = Duration::from_secs(10);

/// Between two times at which all key sets are asked for. Those that nobody asks for in a day are dropped, and the
/// next request in their user's name would wait.
const WARM_UP_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

/// After the trusted URLs could not be listed.
const WARM_UP_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How long saying good-bye to a database may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Authenticates requests for a reverse proxy: nginx, Traefik, Caddy, Envoy.
///
/// Answers /auth, and all below it, with 200 and the headers X-Ajwt-Username and X-Ajwt-Key-Id, with 401
/// or with 503.
#[derive(Args)]
#[command(after_long_help = concat!(
    "The proxies' configurations: ",
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/docs/gateway.md"
))]
pub(crate) struct Gateway {
    /// A TOML file with any of these options, as in: listen = "127.0.0.1:4180"
    #[arg(long, env = "AJWT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen. The proxy must reach it, and nobody else need
    #[arg(long, env = "AJWT_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:4180")]
    listen: SocketAddr,
    /// How long a connection may be without a whole request before it is closed, in seconds. The proxy should
    /// close its idle ones sooner
    #[arg(
        long,
        env = "AJWT_IDLE_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 150,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    idle_timeout: u64,
    #[command(flatten)]
    database: DatabaseOptions,
    /// Takes users and their keys from the files of this folder instead: NAME.keys in the format of
    /// authorized_keys
    #[arg(long, env = "AJWT_KEYS", value_name = "FOLDER", conflicts_with = "database_url")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    nonce: NonceOptions,
    /// How far the clocks of servers that share a nonce store may be apart, in seconds. A store that has
    /// forgotten, or memory with --memory-strict-start, answers with 503 what may have been used before, for
    /// the tolerance and this. 5 by default, 60 at most
    // The nonces of clocks that are further apart would be forgotten before their tokens are too old: the
    // authenticator's margin is a minute.
    #[arg(
        long,
        env = "AJWT_SERVER_SKEW",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(0..=60)
    )]
    server_skew: Option<u64>,
    #[command(flatten)]
    jwks: JwksOptions,
    #[command(flatten)]
    rules: TokenRules,
    /// How long a user that was read may serve without the database having been asked again, in
    /// milliseconds
    #[arg(long, env = "AJWT_MAX_STALENESS", value_name = "MS", default_value_t = 1000)]
    max_staleness: u64,
    /// Rejects a token only when a whole multiple of this has passed, in milliseconds, so that the time that
    /// it took tells nobody which users there are. 10 is a good number; 0 answers at once
    #[arg(long, env = "AJWT_REFUSAL_QUANTUM", value_name = "MS", default_value_t = 0)]
    refusal_quantum: u64,
    /// Publishes the public half of this key at /.well-known/jwks.json. Several are separated by commas
    #[arg(long, env = "AJWT_PUBLISH_KEY", value_name = "FILE", value_delimiter = ',')]
    publish_key: Vec<PathBuf>,
    #[command(flatten)]
    access: Access,
    /// What is logged: error, warn, info or debug
    #[arg(long, env = "AJWT_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

impl Gateway {
    pub(crate) const fn log_level(&self) -> LevelFilter {
        self.log_level
    }

    pub(crate) async fn run(&self) -> Result<(), Failure> {
        // First of all: the process with number 1 of a container gets no signal that it does not ask for.
        let mut stop = Stop::listen()?;
        let ready = tokio::select! {
            ready = self.get_ready() => ready,
            () = stop.wait() => Err(Failure::Interrupted),
        };
        let Ready { listener, router, authenticator, database, background } = match ready {
            // Ctrl-C at a question, too.
            Err(Failure::Interrupted) => {
                tracing::info!("stopped before it listened");
                return Ok(());
            }
            ready => ready?,
        };
        let address = listener.local_addr()?;
        let told = output::line(&format!("listening on http://{address}"));
        // Its disk may be full, as that of the log.
        if let Err(failure) = output::unless_closed(told) {
            tracing::warn!(
                "listening on http://{address}, which could not be told on standard output: {failure}"
            );
        }

        let (stopping, stopped) = oneshot::channel::<()>();
        let idle_timeout = Duration::from_secs(self.idle_timeout);
        let server = connections::serve(listener, router, Room::of_process(), idle_timeout, async move {
            let _ = stopped.await;
        });
        let out_of_time = async move {
            stop.wait().await;
            tracing::info!("stopping: running requests are finished");
            let _ = stopping.send(());
            tokio::select! {
                () = stop.wait_for_haste() => "a second signal",
                () = tokio::time::sleep(GRACE) => "no more time",
            }
        };
        tokio::select! {
            () = server => {}
            why = out_of_time => tracing::warn!(why, "requests that still ran were cut off"),
        }
        drop(background);
        authenticator.close().await;
        if let Some(database) = &database {
            // A database that hangs must not keep the gateway.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, database.close()).await;
        }
        tracing::info!("stopped");
        Ok(())
    }

    async fn get_ready(&self) -> Result<Ready, Failure> {
        let published = self.published_keys().await?;
        let metrics = metrics::install()?;
        let Sources { database, store, users, trusted } = self.sources().await?;
        let validation = self.rules.validation()?;
        let server_skew = self.server_skew.map(Duration::from_secs);
        let nonces = self.nonce.open(database.as_ref(), server_skew).await?;
        let nonces = Arc::new(ObservedNonces::new(nonces));
        let readiness = Readiness::new(store, Arc::clone(&nonces) as _, validation.tolerance());
        let key_sets = self.key_sets(&*trusted).await?;
        let mut builder = Authenticator::builder(users, nonces)
            .validation(validation)
            .scheme(self.rules.scheme.as_str())
            .refusal_quantum(Duration::from_millis(self.refusal_quantum));
        if let Some(database) = &database {
            builder = builder.usage(Arc::new(database.usage()));
        }
        if let Some(key_sets) = &key_sets {
            builder = builder.keys(Arc::new(JwksKeyRepository::new(Arc::clone(key_sets))));
        }
        let authenticator = builder.build()?;
        let mut background = JoinSet::new();
        if let Some(key_sets) = key_sets {
            // Before the first request, so that none waits for a fetch.
            key_sets.warm_up(&*trusted).await?;
            background.spawn(keep_warm(key_sets, trusted));
        }
        let router = service::router(authenticator.clone(), published, readiness, metrics);

        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(Failure::of(format!("cannot listen on {}", self.listen)))?;
        Ok(Ready { listener, router, authenticator, database, background })
    }

    async fn published_keys(&self) -> Result<Vec<PublicKey>, Failure> {
        let (paths, access) = (self.publish_key.clone(), self.access.clone());
        input::aside(move || {
            let read = paths.iter().map(|path| input::public_keys(path, &access));
            Ok(read.collect::<Result<Vec<_>, Failure>>()?.concat())
        })
        .await
    }

    /// The key sets of trusted URLs. `None`: none can be fetched here, nor is any URL trusted.
    async fn key_sets(&self, trusted: &dyn TrustedUrls) -> Result<Option<Arc<JwksCache>>, Failure> {
        let options = self.jwks.clone();
        let error = match input::aside(move || Ok(options.builder()?.build())).await? {
            Ok(client) => {
                return Ok(Some(Arc::new(JwksCache::builder(client).warm_up_limit(WARM_UP).build())));
            }
            Err(error) => error,
        };
        // As in an image without root certificates, which stored keys do not need.
        let is_needless = matches!(error, ClientError::Tls { .. }) && !self.jwks.is_configured();
        if !is_needless || !trusted.all().await?.is_empty() {
            return Err(error.into());
        }
        tracing::warn!(
            error = %Failure::from(error),
            "no key set can be fetched: a URL that is trusted from now on counts only once this is mended and the gateway started again"
        );
        Ok(None)
    }

    async fn sources(&self) -> Result<Sources, Failure> {
        if let Some(folder) = &self.keys {
            let users = Arc::new(KeyDirectory::open(folder).await?);
            return Ok(Sources {
                database: None,
                store: users.clone(),
                users: users.clone(),
                trusted: users,
            });
        }
        if self.database.database_url.is_none() {
            return Err(Failure::new(
                "no users: give --database-url or --keys, or set AJWT_DATABASE_URL or AJWT_KEYS",
            ));
        }
        let database = self.database.open().await?;
        let options = UserCacheOptions::default().max_staleness(Duration::from_millis(self.max_staleness));
        let users = Arc::new(database.cached_users(options));
        let (store, trusted) = (database.users(), database.trusted_urls());
        Ok(Sources { database: Some(database), store, users, trusted })
    }
}

/// Keeps the sets of users that stay away, and fetches those of URLs that are trusted since.
async fn keep_warm(key_sets: Arc<JwksCache>, trusted: Arc<dyn TrustedUrls>) {
    loop {
        tokio::time::sleep(WARM_UP_INTERVAL).await;
        while let Err(error) = key_sets.warm_up(&*trusted).await {
            tracing::warn!(error = %Failure::from(error), "trusted URLs cannot be listed; the next try is in 5 minutes");
            tokio::time::sleep(WARM_UP_PAUSE).await;
        }
    }
}

/// What serves, and what is closed at the end.
struct Ready {
    listener: TcpListener,
    router: Router,
    authenticator: Authenticator,
    database: Option<Database>,
    /// What runs beside requests, until this is dropped.
    background: JoinSet<()>,
}

/// Where users come from.
struct Sources {
    /// `None`: from a folder.
    database: Option<Database>,
    /// The store itself, which tells whether it works.
    store: Users,
    /// What requests ask.
    users: Users,
    trusted: Arc<dyn TrustedUrls>,
}

type Users = Arc<dyn UserRepository<User = User>>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ajwt_jwks::JwksClient;
    use ajwt_server::RepositoryError;
    use async_trait::async_trait;

    use super::*;

    /// No URLs, and how often they were asked for. The second time they cannot be told.
    #[derive(Debug, Default)]
    struct Asked(AtomicUsize);

    #[async_trait]
    impl TrustedUrls for Asked {
        async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                1 => Err(RepositoryError::new("listing", std::io::Error::other("not now"))),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn key_sets_are_asked_for_twice_a_day() {
        let client = JwksClient::builder().build().expect("a client");
        let key_sets = Arc::new(JwksCache::builder(client).build());
        let asked = Arc::new(Asked::default());
        let mut background = JoinSet::new();
        let began = tokio::time::Instant::now();
        background.spawn(keep_warm(key_sets, asked.clone()));
        for (hours, times) in [(11, 0), (13, 1), (23, 1), (25, 3), (35, 3), (37, 4)] {
            tokio::time::sleep_until(began + Duration::from_secs(hours * 60 * 60)).await;
            assert_eq!(asked.0.load(Ordering::SeqCst), times, "after {hours} hours");
        }
    }
}
