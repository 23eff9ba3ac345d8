//! Redis servers that speak TLS.

use super::RedisServer;
use crate::{port::free_port, tls::Authority};

impl Authority {
    /// What a Redis server is started with, that it speaks TLS on a port of its own. `client_certificates` is its
    /// `tls-auth-clients`.
    #[must_use]
    pub fn arguments(&self, client_certificates: &str) -> Vec<String> {
        let (certificate, key) = (self.file("server.pem"), self.file("server.key"));
        let port = free_port().to_string();
        let mut arguments = vec!["--tls-port".to_owned(), port];
        for (name, value) in [
            ("--tls-cert-file", &*certificate),
            ("--tls-key-file", &key),
            ("--tls-ca-cert-file", &self.file("root.pem")),
            ("--tls-auth-clients", client_certificates),
        ] {
            arguments.extend([name.to_owned(), value.to_owned()]);
        }
        arguments
    }

    /// Starts a Redis server that has the certificate.
    #[must_use]
    pub fn start(&self, client_certificates: &str) -> RedisServer {
        let arguments = self.arguments(client_certificates);
        RedisServer::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The port on which a server speaks TLS.
#[must_use]
pub fn tls_port(server: &RedisServer) -> String {
    server.ask::<Vec<String>>("CONFIG GET tls-port").remove(1)
}
