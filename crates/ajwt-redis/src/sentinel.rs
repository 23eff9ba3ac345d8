use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::time::{Instant, timeout};

use crate::{
    RedisFault,
    link::{CONNECT_TIMEOUT, ask, connect, name_of, text},
};

/// Sentinels that know where the primary is.
pub(crate) struct Sentinels {
    pub(crate) sentinels: Vec<ConnectionInfo>,
    /// What they call it.
    pub(crate) name: String,
    /// How to connect to it, but for host and port.
    pub(crate) server: ConnectionInfo,
}

impl Sentinels {
    /// The first answer: from all of them asked at once, so that one that hangs delays nothing.
    pub(crate) async fn primary(&self) -> Result<ConnectionInfo, RedisFault> {
        let asked = self.sentinels.iter().map(|sentinel| Box::pin(self.ask_one(sentinel)));
        match futures_util::future::select_ok(asked).await {
            Ok(((host, port), _)) => Ok(at(self.server.clone(), host, port)),
            Err(fault) => Err(RedisFault::NoPrimary { name: self.name.clone(), source: Arc::new(fault) }),
        }
    }

    async fn ask_one(&self, sentinel: &ConnectionInfo) -> Result<(String, u16), RedisFault> {
        let server = name_of(sentinel);
        let asking = async {
            let mut connection = connect(sentinel.clone()).await?;
            let mut question = redis::pipe();
            question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
            let answers = ask(&mut connection, Instant::now() + CONNECT_TIMEOUT, question).await?;
            match answers.as_slice() {
                [Value::ServerError(error)] => Err(RedisFault::refused(error.code())),
                [Value::Array(address)] => host_and_port(address),
                _ => Err(RedisFault::UnexpectedReply { command: "SENTINEL GET-MASTER-ADDR-BY-NAME" }),
            }
        };
        let asked = timeout(CONNECT_TIMEOUT, asking).await;
        asked.unwrap_or(Err(RedisFault::ConnectTimeout { server }))
    }
}

fn host_and_port(address: &[Value]) -> Result<(String, u16), RedisFault> {
    let parsed = match address {
        [host, port] => text(port).parse().ok().map(|port| (text(host).to_owned(), port)),
        _ => None,
    };
    parsed
        .filter(|(host, _)| !host.is_empty())
        .ok_or(RedisFault::UnexpectedReply { command: "SENTINEL GET-MASTER-ADDR-BY-NAME" })
}

/// The same connection to another host and port.
pub(crate) fn at(info: ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.set_addr(addr)
}
