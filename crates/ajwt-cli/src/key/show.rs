use std::path::PathBuf;

use ajwt_core::JwkSet;
use clap::{Args, ValueEnum};

use crate::{failure::Failure, input, output, private_key::Access};

/// Shows the public half of a key of any format
#[derive(Args)]
pub(super) struct Show {
    /// The key: PEM or OpenSSH, public or private; a JWK or a JWK Set, public; - is standard input
    file: PathBuf,
    /// How to show it
    #[arg(long, value_enum, default_value = "pem")]
    format: Format,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Pem,
    Openssh,
    Jwk,
    Jwks,
    Fingerprint,
}

impl Show {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let keys = input::public_keys(&self.file, &self.access)?;
        if let Format::Jwks = self.format {
            return output::line(&JwkSet::of_keys(keys).to_json());
        }
        for key in keys {
            match self.format {
                Format::Pem => output::text(&key.to_pem())?,
                Format::Openssh => output::line(&key.to_openssh(""))?,
                Format::Jwk | Format::Jwks => output::line(&key.to_jwk().to_json())?,
                Format::Fingerprint => output::line(key.fingerprint().as_str())?,
            }
        }
        Ok(())
    }
}
