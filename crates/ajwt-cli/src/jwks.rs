//! Key sets of trusted URLs.

use std::path::PathBuf;

use ajwt_jwks::{AddressPolicy, JwksClient, JwksClientBuilder};
use clap::Args;

use crate::{failure::Failure, input};

/// Where key sets may be fetched from.
#[derive(Args, Clone, Debug)]
pub(crate) struct JwksOptions {
    /// Fetches key sets from this network too, as in 10.96.0.0/12, besides public addresses. Several are
    /// separated by commas
    #[arg(long, env = "AJWT_JWKS_ALLOW_NETWORK", value_name = "NETWORK", value_delimiter = ',')]
    jwks_allow_network: Vec<String>,
    /// Trusts the certificates of this PEM file for key sets too, besides the system's
    #[arg(long, env = "AJWT_JWKS_CA", value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
    /// Fetches key sets over http:// too, for development: who is on the way can put in keys of its own
    #[arg(long, env = "AJWT_JWKS_INSECURE_HTTP")]
    jwks_insecure_http: bool,
}

impl JwksOptions {
    /// Whether anything is said of key sets, so that some are expected.
    pub(crate) const fn is_configured(&self) -> bool {
        !self.jwks_allow_network.is_empty() || self.jwks_ca.is_some() || self.jwks_insecure_http
    }

    pub(crate) fn client(&self) -> Result<JwksClient, Failure> {
        Ok(self.builder()?.build()?)
    }

    pub(crate) fn builder(&self) -> Result<JwksClientBuilder, Failure> {
        let mut policy = AddressPolicy::public();
        for network in &self.jwks_allow_network {
            policy = policy.allow_network(network)?;
        }
        let mut builder = JwksClient::builder().address_policy(policy);
        if self.jwks_insecure_http {
            builder = builder.insecure_allow_http();
        }
        if let Some(path) = &self.jwks_ca {
            builder = builder.add_root_certificates_pem(&*input::read(path, input::MAX_CERTIFICATES_LEN)?)?;
        }
        Ok(builder)
    }
}
