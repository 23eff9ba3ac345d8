use std::{error::Error, fmt, net::IpAddr, sync::Arc, time::Duration};

use ajwt_core::{JwkSet, MAX_JWK_SET_LEN};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH},
};
use reqwest::{Client, ClientBuilder, Response, redirect, retry};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::{
    AddressPolicy, ClientError, FetchError, HostResolver, SystemResolver, Validators,
    error::shown,
    freshness::fresh_for,
    resolver::{CheckedResolver, Refused, Unresolved},
};

const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// As long as the shortest time between two fetches of a URL.
const MAX_DEADLINE: Duration = Duration::from_secs(30);

/// Documents that are parsed at once: each takes a processor, and a few times its length in memory.
const PARSED_AT_ONCE: usize = 2;

const ACCEPTED_TYPES: &str = "application/jwk-set+json, application/json;q=0.9, */*;q=0.5";

const USER_AGENT: &str = concat!("ajwt-jwks/", env!("CARGO_PKG_VERSION"));

/// Fetches key sets: over HTTPS, from public addresses, following nothing and sending nothing that
/// was not asked for. Cheap to clone.
///
/// No redirects, proxies, cookies, decompression or retries; each fetch has a connection of its own.
/// One deadline covers name, connection, TLS, headers and body; the body has at most 1 MiB. Of the
/// first four addresses of a family each is waited for in its part of the deadline, and then the next is tried.
/// Of all documents that it and its clones have fetched two are parsed at once; the others' deadlines go on meanwhile.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ajwt_jwks::{JwksClient, Validators};
///
/// let client = JwksClient::builder().build()?;
/// let url = "https://billing.example/.well-known/jwks.json";
/// let response = client.fetch(url, &Validators::default()).await?;
/// println!("{} usable keys", response.set.map_or(0, |set| set.keys().len()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct JwksClient {
    client: Client,
    policy: Arc<AddressPolicy>,
    deadline: Duration,
    allow_http: bool,
    turns: Arc<Semaphore>,
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JwksResponse {
    /// The set. `None`: it is the one that the request's validators are of (status 304).
    pub set: Option<JwkSet>,
    /// What to ask for it anew with.
    pub validators: Validators,
    /// For how long it is fresh by its `Cache-Control`, if that says.
    pub fresh_for: Option<Duration>,
}

impl JwksClient {
    /// A client of public addresses over HTTPS.
    #[must_use]
    pub fn builder() -> JwksClientBuilder {
        JwksClientBuilder {
            policy: AddressPolicy::public(),
            resolver: Arc::new(SystemResolver),
            deadline: DEFAULT_DEADLINE,
            allow_http: false,
            #[cfg(feature = "rustls")]
            root_certificates: Vec::new(),
        }
    }

    /// Fetches a set, or learns that it is still the one that the validators are of.
    ///
    /// # Errors
    /// [`FetchError`], at the latest at the deadline.
    pub async fn fetch(&self, url: &str, known: &Validators) -> Result<JwksResponse, FetchError> {
        let url = self.check(url)?;
        let fetched = tokio::time::timeout(self.deadline, self.fetch_in_time(url, known)).await;
        fetched.unwrap_or_else(|_| Err(FetchError::Timeout { deadline: self.deadline }))
    }

    /// Whether a URL may be fetched, as far as can be told without the network: the addresses of a host
    /// that has a name are checked when it is fetched.
    ///
    /// # Errors
    /// [`FetchError::Url`], [`FetchError::Scheme`], [`FetchError::Userinfo`] or [`FetchError::Address`].
    ///
    /// ```
    /// # fn main() -> Result<(), ajwt_jwks::ClientError> {
    /// use ajwt_jwks::JwksClient;
    ///
    /// let client = JwksClient::builder().build()?;
    /// assert!(client.check_url("https://billing.example/.well-known/jwks.json").is_ok());
    /// assert!(client.check_url("https://127.1/.well-known/jwks.json").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_url(&self, url: &str) -> Result<(), FetchError> {
        self.check(url).map(drop)
    }

    /// How long a fetch may take.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What can be told without the network. Addresses in the URL never reach the resolver; the
    /// parser has brought their odd spellings (`2130706433`, `0x7f.1`) into the usual form.
    fn check(&self, url: &str) -> Result<Url, FetchError> {
        let url = Url::parse(url).map_err(|error| FetchError::Url { source: error.into() })?;
        if !(url.scheme() == "https" || url.scheme() == "http" && self.allow_http) {
            return Err(FetchError::Scheme { found: url.scheme().chars().take(32).collect() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Userinfo);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match address {
            Some(address) if !self.policy.allows(address) => {
                Err(FetchError::Address { host: url.host_str().unwrap_or_default().into(), address })
            }
            _ => Ok(url),
        }
    }

    async fn fetch_in_time(&self, url: Url, known: &Validators) -> Result<JwksResponse, FetchError> {
        let request = self.client.get(url).headers(known.to_headers());
        let response = request.send().await.map_err(|error| not_sent(error, self.deadline))?;
        let validators = Validators::of_response(response.headers());
        let fresh_for = fresh_for(response.headers());
        match response.status() {
            StatusCode::OK => {
                let body = read(response).await?;
                let set = self.in_turn(move || JwkSet::from_json(body)).await??;
                Ok(JwksResponse { set: Some(set), validators, fresh_for })
            }
            StatusCode::NOT_MODIFIED if known.is_empty() => Err(FetchError::NotModified),
            StatusCode::NOT_MODIFIED => {
                Ok(JwksResponse { set: None, validators: validators.or(known), fresh_for })
            }
            other => Err(FetchError::Status { found: other.as_u16() }),
        }
    }

    /// Parses a document, once no more than one other is under way: a set of a hundred long keys takes its time.
    async fn in_turn<T: Send + 'static>(
        &self,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, FetchError> {
        // An error says that the semaphore is closed, which nobody does.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let parsed = tokio::task::spawn_blocking(move || {
            // Who fetches may be past the deadline, and the turn is not over before this is.
            let _turn = turn;
            parse()
        });
        parsed.await.map_err(|_| FetchError::Panic)
    }
}

impl fmt::Debug for JwksClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksClient")
            .field("policy", &self.policy)
            .field("deadline", &self.deadline)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, FetchError> {
    const TOO_LONG: FetchError = FetchError::TooLong { max: MAX_JWK_SET_LEN };

    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !response.headers().get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(FetchError::Encoding);
    }
    if announced_len(response.headers()).is_some_and(|len| len > MAX_JWK_SET_LEN) {
        return Err(TOO_LONG);
    }
    let mut body = Vec::new();
    let broken = |error: reqwest::Error| FetchError::Http { source: shown(&error.without_url()) };
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if chunk.len() > MAX_JWK_SET_LEN.saturating_sub(body.len()) {
            return Err(TOO_LONG);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn announced_len(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// No answer came: the resolver's own errors are among the sources.
fn not_sent(error: reqwest::Error, deadline: Duration) -> FetchError {
    if let Some(Refused { host, address }) = cause(&error) {
        return FetchError::Address { host: host.clone(), address: *address };
    }
    if let Some(Unresolved { host, cause }) = cause(&error) {
        let source = cause.as_ref().map(|cause| shown(cause));
        return FetchError::Resolve { host: host.clone(), source };
    }
    // The limit of connecting, which may be noticed before the one over all.
    if error.is_timeout() {
        return FetchError::Timeout { deadline };
    }
    let is_connect = error.is_connect();
    let source = shown(&error.without_url());
    if is_connect { FetchError::Connect { source } } else { FetchError::Http { source } }
}

fn cause<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut sources = std::iter::successors(error.source(), |error| (**error).source());
    sources.find_map(|source| source.downcast_ref())
}

/// Makes a [`JwksClient`].
#[derive(Clone)]
pub struct JwksClientBuilder {
    policy: AddressPolicy,
    resolver: Arc<dyn HostResolver>,
    deadline: Duration,
    allow_http: bool,
    #[cfg(feature = "rustls")]
    root_certificates: Vec<reqwest::Certificate>,
}

impl JwksClientBuilder {
    /// Which addresses may be connected to. Default: public ones.
    #[must_use]
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Finds the addresses of hosts here. Default: the operating system's resolver.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn HostResolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// How long a fetch may take in all, up to 30 s. Default: 5 s.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Fetches `http://` URLs too, for development: who is on the way can put keys of its own into
    /// the answer, and be any user that trusts the URL.
    #[must_use]
    pub const fn insecure_allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Trusts the certificates that these issue too, besides the platform's: a text of one or more
    /// PEM blocks, as for the authority of a cluster.
    ///
    /// # Errors
    /// [`ClientError::Certificates`].
    #[cfg(feature = "rustls")]
    pub fn add_root_certificates_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self, ClientError> {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_ref())
            .map_err(|error| ClientError::Certificates { source: Some(error.into()) })?;
        if certificates.is_empty() {
            return Err(ClientError::Certificates { source: None });
        }
        self.root_certificates.extend(certificates);
        Ok(self)
    }

    /// Makes the client.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn build(self) -> Result<JwksClient, ClientError> {
        if self.deadline.is_zero() || self.deadline > MAX_DEADLINE {
            return Err(ClientError::Deadline { found: self.deadline, max: MAX_DEADLINE });
        }
        let policy = Arc::new(self.policy);
        let resolver = CheckedResolver { resolver: self.resolver, policy: Arc::clone(&policy) };
        // As the limit of connecting it bounds nothing more, but is divided among the addresses of a host: else
        // one that drops what it is sent would leave no time for the next.
        let builder = bare(Client::builder())
            .dns_resolver(resolver)
            .https_only(!self.allow_http)
            .connect_timeout(self.deadline);
        #[cfg(feature = "rustls")]
        let builder = builder
            .tls_backend_rustls()
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .tls_certs_merge(self.root_certificates);
        let client = builder.build().map_err(|error| ClientError::Tls { source: error.into() })?;
        let turns = Arc::new(Semaphore::new(PARSED_AT_ONCE));
        Ok(JwksClient { client, policy, deadline: self.deadline, allow_http: self.allow_http, turns })
    }
}

impl fmt::Debug for JwksClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksClientBuilder")
            .field("policy", &self.policy)
            .field("resolver", &self.resolver)
            .field("deadline", &self.deadline)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Without what the features of reqwest switch on by default. Other crates of the application may
/// ask for these features.
fn bare(builder: ClientBuilder) -> ClientBuilder {
    builder
        .no_proxy()
        .no_brotli()
        .no_deflate()
        .no_gzip()
        .no_zstd()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .http1_only()
        // A connection is not used again, so none outlives the check of its address.
        .pool_max_idle_per_host(0)
        .user_agent(USER_AGENT)
        .default_headers(HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED_TYPES))]))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::oneshot,
        time::timeout,
    };

    use super::*;

    /// Answers everybody with an empty set.
    async fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}";
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        url
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_documents_are_parsed_at_once_though_they_are_given_up() {
        let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
        let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
        let client = client.deadline(MAX_DEADLINE).build().expect("a client");
        let (url, known) = (serve().await, Validators::default());
        client.fetch(&url, &known).await.expect("a set");

        let mut under_way = Vec::new();
        for _ in 0..PARSED_AT_ONCE {
            let (begins, has_begun) = oneshot::channel();
            let (end, ends) = mpsc::channel::<()>();
            let parse = move || {
                let _ = begins.send(());
                let _ = ends.recv();
            };
            let parsing = tokio::spawn({
                let client = client.clone();
                async move { client.in_turn(parse).await }
            });
            timeout(MAX_DEADLINE, has_begun).await.expect("it has a turn").expect("it runs");
            parsing.abort();
            let _ = parsing.await;
            under_way.push(end);
        }
        assert_eq!(under_way.len(), 2);
        let hasty = JwksClient { deadline: Duration::from_millis(700), ..client.clone() };
        let fetched = hasty.fetch(&url, &known).await;
        assert!(matches!(fetched, Err(FetchError::Timeout { .. })), "{fetched:?}");
        // One of them ends.
        under_way.pop();
        client.fetch(&url, &known).await.expect("a set");
    }
}
