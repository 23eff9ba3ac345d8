//! Certificates for servers that speak TLS.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// A root, and the files of a server that has a certificate by it: `root.pem`, `server.pem` and `server.key`.
#[derive(Debug)]
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    /// A new root, with a certificate for a server of this name or address.
    #[must_use]
    pub fn new(host: &str) -> Self {
        let authority = Self { root: root(), folder: tempfile::tempdir().expect("a folder") };
        let (certificate, key) = authority.issue(host);
        let root = authority.root_pem();
        for (name, text) in [("server.pem", &certificate), ("server.key", &key), ("root.pem", &root)] {
            std::fs::write(authority.folder.path().join(name), text).expect("written");
        }
        authority
    }

    /// The certificate of the root.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Where one of the files is, until this is dropped.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A certificate and its key.
    #[must_use]
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("parameters");
        // A subject like the issuer's would look self-signed.
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.signed_by(&key, &self.root).expect("a certificate").pem(), key.serialize_pem())
    }
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}
