use std::{path::Path, process::ExitCode, time::Duration};

use ajwt_client::RequestBuilderExt as _;
use clap::Args;
use reqwest::{
    Certificate, Client, Method, Proxy, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue, LOCATION},
    redirect::Policy,
};

use crate::{cli::REFUSED, failure::Failure, input, output, token::Signer};

/// Bytes of a request's body that is read from a file.
const MAX_BODY_LEN: usize = 64 * 1024 * 1024;

/// Sends a signed request and writes the body of the answer.
#[derive(Args)]
pub(crate) struct Request {
    /// GET, POST and so on
    method: Method,
    url: Url,
    #[command(flatten)]
    signer: Signer,
    /// The request's body; @FILE reads it from a file, @- from standard input
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Another header, as in "Content-Type: application/json"
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Writes the status and the headers of the answer too
    #[arg(short, long)]
    include: bool,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Trusts the certificates of this PEM file in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// Sends it through this proxy, http://HOST:PORT or https://HOST:PORT; those of the environment, as of
    /// http_proxy, are not used
    #[arg(long, env = "AJWT_PROXY", value_name = "URL")]
    proxy: Option<String>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is no header; one is \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    Ok((name.parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
}

impl Request {
    pub(crate) async fn run(&self) -> Result<ExitCode, Failure> {
        let signer = self.signer.read()?;
        let headers: HeaderMap = self.headers.iter().cloned().collect();
        let mut request = self.client()?.request(self.method.clone(), self.url.clone()).headers(headers);
        if let Some(data) = &self.data {
            request = request.body(match data.strip_prefix('@') {
                Some(path) => input::read(Path::new(path), MAX_BODY_LEN)?.to_vec(),
                None => data.clone().into_bytes(),
            });
        }
        let response = request.sign_with(&signer)?.send().await.map_err(Failure::of("the request failed"))?;
        let status = response.status();
        // In gRPC what was refused has status 200.
        let grpc_status = response.headers().get("grpc-status").cloned();
        let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
        let location = response.headers().get(LOCATION).cloned();
        // What the server answered is the exit code, read to its end or not.
        output::unless_closed(self.write(response).await)?;
        let is_unauthenticated = grpc_status.as_ref().is_some_and(|status| status == "16");
        if status == StatusCode::UNAUTHORIZED || is_unauthenticated {
            let answer = if is_unauthenticated { "UNAUTHENTICATED" } else { "401" };
            let key = signer.public_key();
            let fingerprint = key.fingerprint();
            output::note(&format!(
                "the server does not accept the token ({answer}): does it know the key {fingerprint}, is its clock \
                 right, is the audience the one that it wants?"
            ));
        }
        if is_redirect {
            let to = location.map(|url| output::beginning(&String::from_utf8_lossy(url.as_bytes())));
            output::note(&format!(
                "the server redirects to {} ({}), and redirects are not followed: a token works once",
                to.as_deref().unwrap_or("nowhere"),
                status.as_str()
            ));
        }
        let is_refused = is_redirect
            || status.is_client_error()
            || status.is_server_error()
            || grpc_status.is_some_and(|status| status != "0");
        Ok(if is_refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
    }

    fn client(&self) -> Result<Client, Failure> {
        let proxy = self.proxy()?;
        let is_plain = self.url.scheme() == "http" && proxy.as_ref().is_none_or(|url| url.scheme() == "http");
        // A redirect or a retry would send the token again, which works once. A proxy that somebody else has set up
        // would read it before it is used, and is in the way of what runs on this host.
        let builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .timeout(Duration::from_secs(self.timeout));
        let builder = match &self.ca {
            Some(path) => {
                let none = format!("{} holds no certificates in PEM", path.display());
                let certificates =
                    Certificate::from_pem_bundle(&input::read(path, input::MAX_CERTIFICATES_LEN)?);
                let certificates = certificates.map_err(Failure::of(none.clone()))?;
                if certificates.is_empty() {
                    return Err(Failure::new(none));
                }
                builder.tls_certs_only(certificates)
            }
            // A host without certificates can still do without TLS.
            None if is_plain => builder.tls_certs_only([]),
            None => builder,
        };
        let builder = match proxy {
            Some(url) => builder.proxy(Proxy::all(url)?),
            None => builder,
        };
        builder
            .build()
            .map_err(Failure::of("TLS cannot be set up; is the package ca-certificates installed?"))
    }

    fn proxy(&self) -> Result<Option<Url>, Failure> {
        let Some(text) = &self.proxy else { return Ok(None) };
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        // Not shown: it may hold a password.
        let url =
            url.ok_or_else(|| Failure::new("--proxy is no URL that begins with http:// or https://"))?;
        Ok(Some(url))
    }

    async fn write(&self, mut response: Response) -> Result<(), Failure> {
        if self.include {
            let mut head = format!("{:?} {}\n", response.version(), response.status()).into_bytes();
            for (name, value) in response.headers() {
                head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
            }
            head.push(b'\n');
            output::bytes(&head)?;
        }
        while let Some(chunk) = response.chunk().await.map_err(Failure::of("the answer broke off"))? {
            output::bytes(&chunk)?;
        }
        Ok(())
    }
}
