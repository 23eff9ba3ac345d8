use std::{
    fmt,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use ajwt_server::StartRule;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, aio::ConnectionLike};

use super::{RedisNonceBackend, Servers};
use crate::{
    ConnectError,
    claims::Terms,
    cluster::Cluster,
    demands::{Demands, Mode},
    keyspace::Keyspace,
    link::{Address, Dial},
    sentinel::Sentinels,
    server::Server,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a [`RedisNonceBackend`].
#[derive(Clone)]
#[must_use]
pub struct RedisNonceBackendBuilder {
    prefix: String,
    timeout: Duration,
    server_skew: Duration,
    accept_eviction: bool,
    trust_persistence: bool,
    replicas: u32,
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
}

impl RedisNonceBackendBuilder {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            server_skew: Duration::from_secs(5),
            accept_eviction: false,
            trust_persistence: false,
            replicas: 0,
            #[cfg(feature = "tls")]
            certificates: None,
        }
    }

    /// How long a request may wait for the server, all in all. 250 ms by default; 10 ms to 60 s.
    ///
    /// The engine gives a request up after its own
    /// [`store_timeout`](ajwt_server::AuthenticatorBuilder::store_timeout), 2 s by default. More than that has no
    /// effect on a request; a connection that does not answer any more is only found later, and with
    /// [`wait_for_replicas`](Self::wait_for_replicas) it is not told that replicas lack a nonce.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How far other servers' clocks may be ahead of this one, for the strict [`StartRule`]. 5 s by
    /// default. Where they may be further, tokens that those accepted before a restart or failover work once more
    /// after it; the outage that follows one is longer by as much as this is. All processes need the same.
    pub fn server_skew(mut self, server_skew: Duration) -> Self {
        self.server_skew = server_skew;
        self
    }

    /// Works with a server that evicts: when memory is short it drops nonces before their time, and
    /// **used tokens become good again**. Without this such a server is refused.
    pub fn accept_eviction(mut self) -> Self {
        self.accept_eviction = true;
        self
    }

    /// On your word that a restart or failover loses no write (`appendfsync always`; replicas that
    /// are waited for): `run_id`s are not compared, and a restart or failover costs no outage. If
    /// the word does not hold, **tokens used just before it become good again**. A server that
    /// comes back empty is still noticed. All that share a prefix must give it, or none: the mark that is written under it
    /// names no `run_id`, and who comes without it takes it for another server's, and begins anew: 503 for 25 s for all.
    pub fn trust_persistence(mut self) -> Self {
        self.trust_persistence = true;
        self
    }

    /// Accepts a token only when this many replicas have its nonce (`WAIT`), so that one of them can
    /// take over without a replay. Fewer, within four fifths of the time left, is an error: the
    /// nonce is used up, the token refused. Requests that come at the same time wait together, on one
    /// of 32 connections to each server, since `WAIT` holds up a connection. 0, the default, waits for
    /// none.
    ///
    /// Ask for all replicas that may be promoted: one that is not among those that answered may
    /// lack the nonce.
    pub fn wait_for_replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Trusts these certificates (PEM) in place of the system's, for as long as the backend lives: where they are
    /// renewed, make another one (restart the service) before the old ones end, or the first connection after that
    /// fails.
    #[cfg(feature = "tls")]
    pub fn root_certificates_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates_mut().root_cert = Some(pem.into());
        self
    }

    /// Shows this certificate to the server. Both are PEM, and used for as long as the backend lives: a renewed one
    /// needs another backend (a restart of the service) before the old one ends.
    #[cfg(feature = "tls")]
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        let (client_cert, client_key) = (certificate.into(), key.into());
        self.certificates_mut().client_tls = Some(redis::ClientTlsConfig { client_cert, client_key });
        self
    }

    /// Connects to one server: `redis://[user][:password@]host[:port][/database]`, or `rediss://`
    /// with the feature `tls`.
    ///
    /// `rediss://` takes the `CryptoProvider` that is the process's default in rustls. Where there is none yet, it
    /// installs aws-lc-rs as such, for everything in the process. To have another one, call its `install_default()`
    /// before. So do the other two ways to connect.
    ///
    /// # Errors
    /// [`ConnectError`]: the settings are wrong, or the server cannot be reached, may evict nonces,
    /// is a replica or is part of a cluster.
    pub async fn connect(self, url: &str) -> Result<RedisNonceBackend, ConnectError> {
        let address = Address::Server(Box::new(self.info(0, url)?));
        self.one(address).await
    }

    /// Connects to the primary that these Sentinels name, and to its successor after a failover. Where
    /// they name several, the first to be named that can be reached and is no replica is it.
    /// `server` is the URL of the primary with the name that the Sentinels know it by in place of
    /// the host: `redis://:password@mymaster`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). The index in [`ConnectError::Url`] counts `server` last.
    pub async fn connect_sentinel(
        self,
        sentinels: &[&str],
        server: &str,
    ) -> Result<RedisNonceBackend, ConnectError> {
        let sentinels = self.infos(sentinels)?;
        let server = self.info(sentinels.len(), server)?;
        let name = match server.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => {
                let reason = "it must have the primary's name in place of the host".to_owned();
                return Err(ConnectError::Url { index: sentinels.len(), reason });
            }
        };
        self.one(Address::Sentinel(Box::new(Sentinels { sentinels, name, server }))).await
    }

    /// Connects to a cluster. `urls` are some of its servers, the more the better; the first one's
    /// user, password and TLS serve for all. Nonces lie in 256 buckets (hash tags), so that each
    /// server of the cluster carries its share and one that lost its data is noticed by itself.
    ///
    /// While a slot is being moved, and for 25 s after, tokens of its bucket are refused.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), for each primary; but those that cannot be reached are only warned of in the log
    /// where another one can be. Such a primary is checked when it is reached later, and what is wrong with it is the
    /// error of its tokens then.
    pub async fn connect_cluster(self, urls: &[&str]) -> Result<RedisNonceBackend, ConnectError> {
        let seeds = self.infos(urls)?;
        let terms = self.terms(true)?;
        let cluster = Cluster::connect(seeds, self.demands(Mode::Cluster), Arc::clone(&terms)).await?;
        Ok(self.backend(terms, Servers::Cluster(cluster)))
    }

    /// Uses a connection of the application's: a `MultiplexedConnection` or a `ConnectionManager` to
    /// one server, shared with whatever else runs on it.
    ///
    /// It must not repeat commands after a failure (these two do not; a cluster connection does),
    /// always lead to the same server, and not answer from memory of its own (the driver's `set_cache_config`): **where
    /// it has kept the mark, used tokens work again in the moment in which a server is emptied.** When it reconnects, that is not seen here: a restart or
    /// failover is treated as under [`trust_persistence`](Self::trust_persistence), and only an
    /// emptied server is noticed. A `MultiplexedConnection` that broke stays broken.
    ///
    /// It is the way to a server whose passwords are tokens that expire: the driver's feature
    /// `token-based-authentication` has connections that renew theirs (`set_credentials_provider`).
    ///
    /// The driver's `response_timeout`, 500 ms by default, bounds [`timeout`](Self::timeout). A `ConnectionManager`
    /// connects anew when its connection breaks, and not because an answer does not come: that the server's host
    /// vanished without a word is then found by TCP alone, which takes a quarter of an hour by Linux' defaults. Set
    /// keepalive and a user timeout in the `TcpSettings` of the driver's `ConnectionInfo`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn over(
        mut self,
        mut connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Result<RedisNonceBackend, ConnectError> {
        if self.replicas > 0 {
            return Err(ConnectError::WaitOverGivenConnection);
        }
        let terms = self.terms(false)?;
        self.trust_persistence = true;
        self.demands(Mode::Standalone).check(&mut connection, "of the connection given").await?;
        let server = Server::over(connection, &terms);
        Ok(self.backend(terms, Servers::One(server)))
    }

    async fn one(self, address: Address) -> Result<RedisNonceBackend, ConnectError> {
        let terms = self.terms(false)?;
        let server =
            Server::new(Dial { address, demands: self.demands(Mode::Standalone) }, &terms, Weak::new());
        server.connect().await?;
        Ok(self.backend(terms, Servers::One(server)))
    }

    fn terms(&self, clustered: bool) -> Result<Arc<Terms>, ConnectError> {
        if self.timeout < SHORTEST_TIMEOUT || self.timeout > LONGEST_TIMEOUT {
            return Err(ConnectError::Timeout { found: self.timeout });
        }
        let replicas = (self.replicas > 0).then_some(self.replicas);
        Ok(Arc::new(Terms { keyspace: Keyspace::new(&self.prefix, clustered)?, replicas }))
    }

    fn demands(&self, mode: Mode) -> Arc<Demands> {
        let Self { accept_eviction, trust_persistence, .. } = *self;
        Arc::new(Demands { mode, accept_eviction, trust_persistence, warned: AtomicBool::new(false) })
    }

    fn backend(&self, terms: Arc<Terms>, servers: Servers) -> RedisNonceBackend {
        let start_rule = StartRule::Strict { server_skew: self.server_skew };
        RedisNonceBackend { terms, servers, timeout: self.timeout, start_rule }
    }

    fn infos(&self, urls: &[&str]) -> Result<Vec<ConnectionInfo>, ConnectError> {
        if urls.is_empty() {
            return Err(ConnectError::NoUrl);
        }
        urls.iter().enumerate().map(|(index, url)| self.info(index, url)).collect()
    }

    fn info(&self, index: usize, url: &str) -> Result<ConnectionInfo, ConnectError> {
        let refused = |error: redis::RedisError| ConnectError::Url { index, reason: error.to_string() };
        let info = url.into_connection_info().map_err(refused)?;
        // Without the feature, too: the application may have compiled TLS into the redis crate.
        if trusts_any_server(info.addr()) {
            let reason = "#insecure would trust any server; give its root certificate".to_owned();
            return Err(ConnectError::Url { index, reason });
        }
        #[cfg(feature = "tls")]
        if self.certificates.is_some() && !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            let reason =
                "certificates are given, but it is not encrypted: begin it with rediss://".to_owned();
            return Err(ConnectError::Url { index, reason });
        }
        #[cfg(feature = "tls")]
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // rustls panics where several providers are compiled in and none was chosen.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                // Another thread was faster: that serves as well.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            }
            if let Some(certificates) = self.certificates.clone() {
                let client = redis::Client::build_with_tls(info, certificates).map_err(refused)?;
                return Ok(client.get_connection_info().clone());
            }
        }
        Ok(info)
    }

    #[cfg(feature = "tls")]
    fn certificates_mut(&mut self) -> &mut redis::TlsCertificates {
        self.certificates.get_or_insert(redis::TlsCertificates { client_tls: None, root_cert: None })
    }
}

impl fmt::Debug for RedisNonceBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisNonceBackendBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("server_skew", &self.server_skew)
            .field("accept_eviction", &self.accept_eviction)
            .field("trust_persistence", &self.trust_persistence)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

fn trusts_any_server(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { insecure: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The redis crate makes the address of a URL with `#insecure` where TLS is compiled into it.
    #[test]
    fn an_address_that_trusts_any_server_is_told_without_the_feature_too() {
        for insecure in [true, false] {
            let (host, port) = ("localhost".to_owned(), 6379);
            let address = ConnectionAddr::TcpTls { host, port, insecure, tls_params: None };
            assert_eq!(trusts_any_server(&address), insecure);
        }
        assert!(!trusts_any_server(&ConnectionAddr::Tcp("localhost".to_owned(), 6379)));
    }
}
