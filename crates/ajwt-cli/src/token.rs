use ajwt_client::RequestSigner;
use ajwt_core::Username;
use clap::Args;

use crate::{failure::Failure, output, private_key::SigningKey};

/// Makes a token, which works once, within seconds.
#[derive(Args)]
pub(crate) struct Token {
    #[command(flatten)]
    signer: Signer,
    /// Writes the whole header, as curl -H takes it
    #[arg(long)]
    header: bool,
}

/// Who signs, with what, for whom.
#[derive(Args)]
pub(crate) struct Signer {
    /// The user that the server knows the key of
    #[arg(long, env = "AJWT_USERNAME", value_name = "NAME")]
    username: Username,
    #[command(flatten)]
    key: SigningKey,
    /// The service that the token is for; the server must have the same audience
    #[arg(long, env = "AJWT_AUDIENCE", value_name = "NAME", value_parser = one_audience)]
    audience: Option<String>,
    /// The authentication scheme
    #[arg(long, env = "AJWT_SCHEME", default_value = "JWT")]
    scheme: String,
}

/// On a gateway's host the variable may hold the gateway's list, and a token for all of it is accepted nowhere.
fn one_audience(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err(
            "a token is for one service, and the comma separates those of a list: name one".to_owned()
        );
    }
    Ok(text.to_owned())
}

impl Signer {
    pub(crate) fn read(&self) -> Result<RequestSigner, Failure> {
        let signer = RequestSigner::new(self.username.as_str(), self.key.read()?)?;
        let signer = signer.with_scheme(self.scheme.as_str())?;
        Ok(match self.audience.as_deref() {
            Some(audience) => signer.with_audience(audience)?,
            None => signer,
        })
    }
}

impl Token {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let authorization = self.signer.read()?.authorization()?;
        let value = authorization.to_str()?;
        if self.header {
            return output::line(&format!("Authorization: {value}"));
        }
        output::line(value.split_once(' ').map_or(value, |(_, token)| token))
    }
}
