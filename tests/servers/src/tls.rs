//! Servers that speak TLS, and their certificates.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, serve::Listener};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

/// A root, and the files of a server that has a certificate by it: `root.pem`, `server.pem` and `server.key`.
#[derive(Debug)]
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    host: String,
    folder: TempDir,
}

impl Authority {
    /// A new root, with a certificate for a server of this name or address.
    #[must_use]
    pub fn new(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Self { root: root(), host: host.to_owned(), folder };
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

    /// Serves over TLS on a loopback port, with the certificate of its server; returns the origin.
    pub async fn serve(&self, app: Router) -> String {
        let certificate = CertificateDer::from_pem_file(self.file("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a configuration");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("https://{}:{}", self.host, tcp.local_addr().expect("its address").port());
        let tls = Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
        tokio::spawn(async move { axum::serve(tls, app).await });
        origin
    }
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.tcp.accept().await.expect("a connection");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}
