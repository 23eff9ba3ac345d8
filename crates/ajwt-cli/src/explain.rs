use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use ajwt_core::{Algorithm, MAX_TOKEN_LEN, PublicKey, Timestamp, TokenError, UntrustedToken, Validation};
use ajwt_server::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, Reason, SystemClock, User,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::Value;

use crate::{
    cli::REFUSED,
    failure::Failure,
    input,
    output::{self, printable},
    private_key::Access,
    time,
    token_rules::TokenRules,
};

/// Says what a token claims, and whether and why it would be refused.
///
/// Nothing is sent anywhere. Whether a server knows the user and the key, and whether the token was
/// used before, only that server can tell.
#[derive(Args)]
pub(crate) struct Explain {
    /// The token, or the value of its Authorization header; - is standard input
    token: String,
    /// A key to check the signature with: PEM or OpenSSH, public or private; a JWK or a JWK Set, public
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    rules: TokenRules,
    /// The server's clock, in place of now: 2027-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = time::parse_or_seconds)]
    at: Option<Timestamp>,
    #[command(flatten)]
    access: Access,
}

impl Explain {
    pub(crate) async fn run(&self) -> Result<ExitCode, Failure> {
        let validation = self.rules.validation()?;
        let keys = match &self.key {
            Some(path) => input::public_keys(path, &self.access)?,
            None => Vec::new(),
        };
        let now = self.at.unwrap_or_else(|| SystemClock::new().now());
        let text = self.text()?;
        let text = text.trim_ascii();
        let refused_header = match header_value(text) {
            Some(value) => self.refused_header(value).await?,
            None => self.refused_length(text.len()).await?,
        };
        let token = bare(text);

        let mut page = Page::default();
        page.segments(token, now, &validation);
        let parsed = UntrustedToken::parse(token);
        let signature = parsed.as_ref().ok().map(|parsed| Signature::check(parsed.algorithm(), token, &keys));
        let refused = match &parsed {
            Err(error) => Some(error.clone()),
            Ok(token) => token.check_claims(&validation, now).err(),
        };
        if let Some(signature) = &signature {
            page.section("signature");
            page.line("made by", &signature.maker());
        }
        page.section("verdict");
        let refused = refused_header.or_else(|| refused.map(|error| refused_token(&error, token)));
        let refused = refused.or(match signature {
            Some(Signature::OfNone) => {
                Some((Reason::BadSignature, "the key given did not make it".to_owned()))
            }
            Some(Signature::OfAnotherType) => {
                Some((Reason::NoCandidateKey, "the key given is of another type or size".to_owned()))
            }
            _ => None,
        });
        let verdict = match (&refused, signature) {
            (Some((reason, why)), _) => format!("refused: {reason} ({why})"),
            (None, Some(Signature::Of(_))) => {
                "accepted, if the server knows the key and the token was not used before".to_owned()
            }
            (None, _) => "accepted, if a key of the user made it and it was not used before".to_owned(),
        };
        page.text.push_str(&format!("  {verdict}\n"));
        output::unless_closed(output::text(&page.text))?;
        Ok(if refused.is_some() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
    }

    /// Why a server would not even look at the token in this value of a header. An authenticator tells: the rules are its
    /// own, and what it says of the token is nothing here, for it has no users.
    async fn refused_header(&self, value: &str) -> Result<Option<(Reason, String)>, Failure> {
        let users = Arc::new(MemoryRepository::new([]));
        let nonces = Arc::new(MemoryNonceBackend::new(1));
        let server =
            Authenticator::<User>::builder(users, nonces).scheme(self.rules.scheme.as_str()).build()?;
        let Err(rejection) = server.authenticate([value.as_bytes()]).await else { return Ok(None) };
        let why = match rejection.reason() {
            Reason::NoCredentials => format!("the header is not of the scheme {}", self.rules.scheme),
            Reason::MalformedHeader => {
                "the header is too long, or not the scheme, one space and one token".to_owned()
            }
            _ => return Ok(None),
        };
        Ok(Some((rejection.reason(), why)))
    }

    /// Why a server would not look at a token of so many bytes. Only the length is judged: the token itself may be wrong
    /// in ways that are told in other words where it comes without a header.
    async fn refused_length(&self, len: usize) -> Result<Option<(Reason, String)>, Failure> {
        let value = format!("{} {}", self.rules.scheme, "a".repeat(len.max(1)));
        let refused = self.refused_header(&value).await?;
        Ok(refused.map(|(reason, _)| (reason, "the header is too long with this token".to_owned())))
    }

    fn text(&self) -> Result<String, Failure> {
        if self.token != "-" {
            return Ok(self.token.clone());
        }
        // Twice a token's length: there may be a header's name around it.
        let text = input::read("-".as_ref(), MAX_TOKEN_LEN.saturating_mul(2))?;
        String::from_utf8(text.to_vec()).map_err(|_| Failure::new("standard input is not UTF-8"))
    }
}

/// The value of the header, as it comes to a server, where there is more than a token.
fn header_value(text: &str) -> Option<&str> {
    match text.split_once(':') {
        Some((name, value)) if name.eq_ignore_ascii_case("authorization") => Some(value.trim_ascii()),
        _ => text.contains(char::is_whitespace).then_some(text),
    }
}

/// The token itself, of `Authorization: JWT TOKEN`, or a part of it.
fn bare(text: &str) -> &str {
    text.split_whitespace().next_back().unwrap_or_default()
}

/// Why a token is refused. To a server no audience is a wrong one, too.
fn refused_token(error: &TokenError, token: &str) -> (Reason, String) {
    let claims = token.split('.').nth(1).map(object);
    let names_audience = claims.is_some_and(|claims| claims.is_ok_and(|claims| claims.contains_key("aud")));
    let why = match error {
        TokenError::Audience if !names_audience => "the token names no audience, and must".to_owned(),
        error => error.to_string(),
    };
    (Reason::from(error.clone()), why)
}

/// What the signature proves.
enum Signature {
    NotChecked,
    /// The fingerprint of the key that made it.
    Of(String),
    OfNone,
    /// No key given makes such ones.
    OfAnotherType,
}

impl Signature {
    /// Genuine or not, whatever the time: the claims are judged apart.
    fn check(algorithm: Algorithm, token: &str, keys: &[PublicKey]) -> Self {
        if keys.is_empty() {
            return Self::NotChecked;
        }
        let (input, signature) = token.rsplit_once('.').unwrap_or_default();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let is_candidate = |key: &&PublicKey| {
            key.algorithms().contains(&algorithm) && key.signature_len() == signature.len()
        };
        let mut candidates = keys.iter().filter(is_candidate).peekable();
        if candidates.peek().is_none() {
            return Self::OfAnotherType;
        }
        match candidates.find(|key| key.verify(algorithm, input.as_bytes(), &signature)) {
            Some(key) => Self::Of(format!("{} {}", key.key_type(), key.fingerprint())),
            None => Self::OfNone,
        }
    }

    fn maker(&self) -> String {
        match self {
            Self::Of(key) => format!("the key given: {key}"),
            Self::OfNone => "another key than the one given, or the token was altered".to_owned(),
            Self::OfAnotherType => "a key of another type or size than the one given".to_owned(),
            Self::NotChecked => "not checked: --key FILE checks it".to_owned(),
        }
    }
}

/// What is printed.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn section(&mut self, name: &str) {
        let _ = writeln!(self.text, "{name}");
    }

    fn line(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "  {name:<9} {value}");
    }

    /// Header and claims, as far as they can be read: more than a server would look at.
    fn segments(&mut self, token: &str, now: Timestamp, validation: &Validation) {
        let mut segments = token.split('.');
        for (name, explain) in [
            ("header", header_member as fn(&str, &Value, Timestamp, &Validation) -> String),
            ("claims", claim),
        ] {
            self.section(name);
            match segments.next().map(object) {
                Some(Ok(members)) => {
                    for (member, value) in &members {
                        let told = explain(member, value, now, validation);
                        let told =
                            if told.is_empty() { plain(value) } else { format!("{}  {told}", plain(value)) };
                        self.line(&printable(member), &told);
                    }
                }
                Some(Err(problem)) => self.line("unreadable", problem),
                None => self.line("missing", "a token is three parts with dots between"),
            }
        }
    }
}

fn object(segment: &str) -> Result<BTreeMap<String, Value>, &'static str> {
    let json = URL_SAFE_NO_PAD.decode(segment).map_err(|_| "it is not base64url without padding")?;
    serde_json::from_slice(&json).map_err(|_| "it is no JSON object")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

fn header_member(name: &str, value: &Value, _: Timestamp, _: &Validation) -> String {
    let told = match name {
        "alg" => match value.as_str() {
            Some("EdDSA") => "Ed25519",
            Some("RS512" | "RS384" | "RS256") => "RSA, PKCS#1 v1.5",
            _ => "no algorithm that is accepted: EdDSA, RS512, RS384 and RS256 are",
        },
        "kid" => "the key that is tried first",
        "typ" => "",
        "crit" | "b64" | "zip" | "enc" => "asks for what is not supported: refused",
        "jwk" | "jku" | "x5u" | "x5c" => "ignored: keys come from the server's own store only",
        _ => "ignored",
    };
    told.to_owned()
}

fn claim(name: &str, value: &Value, now: Timestamp, validation: &Validation) -> String {
    let tolerance = validation.tolerance();
    let at = value.as_i64().map(Timestamp::from_secs);
    match (name, at) {
        ("username", _) => "who it claims to be from".to_owned(),
        ("nonce", _) => "what makes it work once".to_owned(),
        ("time", Some(at)) => format!(
            "{}, {}; accepted until {}",
            time::text(at),
            relative(at, now),
            time::text(at.saturating_add(tolerance))
        ),
        ("exp", Some(at)) => format!("{}, {}: the first second of no use", time::text(at), relative(at, now)),
        ("nbf" | "iat", Some(at)) => {
            format!("{}, {}: of use from {} s before", time::text(at), relative(at, now), tolerance.as_secs())
        }
        ("time" | "exp" | "nbf" | "iat", None) => "no integer: refused".to_owned(),
        ("aud", _) => "the services that it is for".to_owned(),
        _ => "ignored".to_owned(),
    }
}

fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", time::duration(at.saturating_duration_since(now)))
    } else {
        format!("{} ago", time::duration(now.saturating_duration_since(at)))
    }
}
