//! Other libraries, set to accept our tokens.

use ajwt_core::{Algorithm, PrivateKey, PublicKey};
use jwt_simple::prelude::{
    Ed25519PublicKey, EdDSAPublicKeyLike as _, RS512PublicKey, RSAPublicKeyLike as _, VerificationOptions,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) username: String,
    pub(crate) time: i64,
    pub(crate) nonce: String,
}

pub(crate) struct JsonWebToken {
    key: jsonwebtoken::DecodingKey,
    validation: jsonwebtoken::Validation,
}

impl JsonWebToken {
    pub(crate) fn new(key: &PublicKey) -> Self {
        let (algorithm, pem) = (key.preferred_algorithm(), key.to_pem());
        let mut validation = jsonwebtoken::Validation::new(name_of(algorithm));
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let key = match algorithm {
            Algorithm::EdDsa => jsonwebtoken::DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => jsonwebtoken::DecodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { key: key.expect("a key"), validation }
    }

    pub(crate) fn claims(&self, token: &str) -> Option<Claims> {
        jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok().map(|data| data.claims)
    }

    pub(crate) fn verify(&self, token: &str) {
        assert!(self.claims(token).is_some());
    }
}

pub(crate) struct JsonWebTokenSigner {
    key: jsonwebtoken::EncodingKey,
    header: jsonwebtoken::Header,
}

impl JsonWebTokenSigner {
    pub(crate) fn new(key: &PrivateKey) -> Self {
        let algorithm = key.public_key().preferred_algorithm();
        let pem = key.to_pem().expect("PEM");
        let encoding = match algorithm {
            Algorithm::EdDsa => jsonwebtoken::EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let mut header = jsonwebtoken::Header::new(name_of(algorithm));
        header.kid = Some(key.public_key().fingerprint().as_str().to_owned());
        Self { key: encoding.expect("a key"), header }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&self.header, claims, &self.key).expect("signed")
    }
}

fn name_of(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
    }
}

pub(crate) enum JwtSimple {
    Ed25519(Ed25519PublicKey),
    Rsa(Box<RS512PublicKey>),
}

impl JwtSimple {
    pub(crate) fn new(key: &PublicKey) -> Self {
        let pem = key.to_pem();
        match key.preferred_algorithm() {
            Algorithm::EdDsa => Self::Ed25519(Ed25519PublicKey::from_pem(&pem).expect("a key")),
            _ => Self::Rsa(Box::new(RS512PublicKey::from_pem(&pem).expect("a key"))),
        }
    }

    pub(crate) fn verify(&self, token: &str) {
        #[derive(Serialize, Deserialize)]
        struct Custom {
            username: String,
            time: i64,
        }

        let options = Some(VerificationOptions::default());
        let verified = match self {
            Self::Ed25519(key) => key.verify_token::<Custom>(token, options),
            Self::Rsa(key) => key.verify_token::<Custom>(token, options),
        };
        assert!(verified.is_ok());
    }
}
