use redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    RedisFault,
    link::{CONNECT_TIMEOUT, ask, connect, name_of, text},
};

/// What they are asked.
pub(crate) const ASK: &str = "SENTINEL GET-MASTER-ADDR-BY-NAME";

/// Sentinels that know where the primary is.
pub(crate) struct Sentinels {
    pub(crate) sentinels: Vec<ConnectionInfo>,
    /// What they call it.
    pub(crate) name: String,
    /// How to connect to it, but for host and port.
    pub(crate) server: ConnectionInfo,
}

impl Sentinels {
    /// Asks all of them at once where the primary is, so that one that hangs delays nothing. In tasks: whoever reads
    /// the first answer may be busy with it for longer than the others' have time.
    pub(crate) fn ask(&self) -> JoinSet<Result<(String, u16), RedisFault>> {
        let mut asking = JoinSet::new();
        for sentinel in &self.sentinels {
            asking.spawn(ask_one(sentinel.clone(), self.name.clone()));
        }
        asking
    }
}

async fn ask_one(sentinel: ConnectionInfo, name: String) -> Result<(String, u16), RedisFault> {
    let server = name_of(&sentinel);
    let asking = async {
        let mut connection = connect(sentinel).await?;
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answers = ask(&mut connection, Instant::now() + CONNECT_TIMEOUT, question).await?;
        match answers.as_slice() {
            [Value::ServerError(error)] => Err(RedisFault::refused(error.code())),
            [Value::Array(address)] => host_and_port(address),
            _ => Err(RedisFault::UnexpectedReply { command: ASK }),
        }
    };
    let asked = timeout(CONNECT_TIMEOUT, asking).await;
    asked.unwrap_or(Err(RedisFault::ConnectTimeout { server }))
}

fn host_and_port(address: &[Value]) -> Result<(String, u16), RedisFault> {
    let parsed = match address {
        [host, port] => text(port).parse().ok().map(|port| (text(host).to_owned(), port)),
        _ => None,
    };
    parsed.filter(|(host, _)| !host.is_empty()).ok_or(RedisFault::UnexpectedReply { command: ASK })
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
