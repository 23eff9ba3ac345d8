use std::time::Duration;

use ajwt_core::Validation;
use clap::Args;

use crate::failure::Failure;

/// What a server wants of tokens, whoever their user is.
#[derive(Args)]
pub(crate) struct TokenRules {
    /// A name of the service: tokens must be for it. Several are separated by commas
    #[arg(long, env = "AJWT_AUDIENCE", value_name = "NAME", value_delimiter = ',')]
    audience: Vec<String>,
    /// Tokens that name no audience are accepted too, until all callers name one
    #[arg(long, env = "AJWT_ALLOW_MISSING_AUDIENCE")]
    allow_missing_audience: bool,
    /// How far a token's time may lie from the server's clock, in seconds
    #[arg(long, env = "AJWT_TOLERANCE", value_name = "SECONDS", default_value_t = 20)]
    tolerance: u64,
    /// The authentication scheme
    #[arg(long, env = "AJWT_SCHEME", default_value = "JWT")]
    pub(crate) scheme: String,
}

impl TokenRules {
    /// All of them but the scheme.
    pub(crate) fn validation(&self) -> Result<Validation, Failure> {
        let mut validation = Validation::default().with_tolerance(Duration::from_secs(self.tolerance))?;
        for audience in &self.audience {
            // As after the comma of `orders, invoices`. No token names it, and nobody would be told why.
            if audience.trim() != audience {
                return Err(Failure::new(format!(
                    "the audience {audience:?} begins or ends with a space: write a list as in orders,invoices"
                )));
            }
            validation = validation.with_audience(audience.as_str())?;
        }
        Ok(if self.allow_missing_audience { validation.allow_missing_audience() } else { validation })
    }
}
