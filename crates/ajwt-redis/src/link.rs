use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, Pipeline, Value,
    aio::ConnectionLike,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    RedisFault,
    demands::Demands,
    sentinel::{self, Sentinels},
    sync::lock,
};

/// For name look-up, TCP, TLS, greeting and checks.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between the beginnings of two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two connections to a server that are given up in doubt. What is wrong may last, and the dials of many would
/// be a load for it, and for its Sentinels.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// Commands that may wait to be written. Beyond it they wait for their turn.
const QUEUE: usize = 1024;

/// After how long without a word an idle connection is probed, so that no firewall in between forgets it.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// After how long without a word the driver is asked whether its connection has ended, by a server's `timeout` or a
/// proxy's limit for idle connections. Less than the shortest `timeout` of a server, 1 s.
const QUIET: Duration = Duration::from_millis(500);

/// Where to connect to.
pub(crate) enum Address {
    Server(Box<ConnectionInfo>),
    Sentinel(Box<Sentinels>),
}

/// How to connect, and what a server must be like.
pub(crate) struct Dial {
    pub(crate) address: Address,
    pub(crate) demands: Arc<Demands>,
}

/// A connection that was checked.
#[derive(Clone)]
struct Connected {
    connection: redis::aio::MultiplexedConnection,
    run_id: Option<Arc<str>>,
    /// When something last came from it.
    heard: Arc<Mutex<Instant>>,
}

/// One multiplexed connection, made anew when it breaks.
///
/// Unlike the redis crate's `ConnectionManager` it knows which process it is connected to, checks
/// each new connection, gives up a connection that does not answer (its peer may be gone without a
/// word, and TCP takes minutes to find out), and answers at once while the server is down. It never
/// sends a command twice.
pub(crate) struct Link {
    dial: Arc<Dial>,
    attempt: Mutex<Attempt>,
    losses: Arc<Losses>,
}

/// What all links to a server know of its connections.
#[derive(Default)]
pub(crate) struct Losses {
    /// When one was last lost: what took it, a failover perhaps, may have taken each that nothing came on since.
    last: Mutex<Option<Instant>>,
    /// When one was last given up in doubt.
    doubted: Mutex<Option<Instant>>,
}

struct Attempt {
    number: u64,
    began: Instant,
    dialling: JoinHandle<()>,
    outcome: Outcome,
}

type Outcome = Shared<BoxFuture<'static, Result<Connected, RedisFault>>>;

impl Link {
    pub(crate) fn new(dial: Arc<Dial>, losses: Arc<Losses>) -> Self {
        let attempt = Mutex::new(Attempt::new(0, &dial, Instant::now()));
        Self { dial, attempt, losses }
    }

    /// Waits until there is a connection.
    pub(crate) async fn connect(&self) -> Result<(), RedisFault> {
        self.connected().await.map(drop)
    }

    /// Sends commands once and reads the answers. The commands are made, and the answers read, with
    /// the run_id of the process at the other end. `waiting` is since when they have waited, for their turn or
    /// for what was asked before them, if they have.
    pub(crate) async fn ask<T>(
        &self,
        deadline: Instant,
        mut waiting: Option<Instant>,
        commands: impl FnOnce(Option<&str>) -> Pipeline,
        read: impl FnOnce(&[Value], Option<&str>) -> Result<T, RedisFault>,
    ) -> Result<T, RedisFault> {
        let (number, mut connected) = match self.usable() {
            Some(found) => found,
            None => {
                waiting.get_or_insert_with(Instant::now);
                timeout_at(deadline, self.connected()).await.map_err(|_| RedisFault::TimedOut)??
            }
        };
        let run_id = connected.run_id.as_deref();
        let answer = ask(&mut connected.connection, deadline, commands(run_id)).await;
        if answer.is_ok() {
            connected.hear();
        }
        let read = answer.and_then(|values| read(&values, run_id));
        let is_over = match &read {
            // A request that waited may be sent with little time left, so its timeout alone does not show a dead
            // connection. End the connection only if it was silent for the request's whole time. Where all requests
            // wait, nothing else would end a dead one.
            Err(RedisFault::TimedOut) => {
                waiting.is_none_or(|since| connected.silence() >= deadline.saturating_duration_since(since))
            }
            Err(fault) => fault.ends_connection(),
            Ok(_) => false,
        };
        if is_over {
            // A server that is silent for a while has lost no connection: the others may be as good as before.
            if self.replace(number) && !matches!(read, Err(RedisFault::TimedOut)) {
                self.losses.add(Instant::now());
            }
        }
        read
    }

    /// Whether there is a connection, so that nobody waits for one.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected_by_now().is_some()
    }

    /// Gives up the connection that there is, of whose server it is in doubt whether it is the primary. What runs on it
    /// ends there.
    pub(crate) fn doubt(&self) {
        if let Some((number, _)) = self.connected_by_now()
            && self.losses.may_doubt()
        {
            self.replace(number);
        }
    }

    /// The connection that there is, unless it is known to be lost by now. Nothing was sent on it then, so it is
    /// replaced and costs no claim.
    fn usable(&self) -> Option<(u64, Connected)> {
        let (number, mut connected) = self.connected_by_now()?;
        if self.losses.took(&connected) || (connected.silence() >= QUIET && connected.has_ended()) {
            self.replace(number);
            return None;
        }
        Some((number, connected))
    }

    /// The usual case, which needs no timer.
    fn connected_by_now(&self) -> Option<(u64, Connected)> {
        let attempt = lock(&self.attempt);
        let connected = attempt.outcome.peek()?.as_ref().ok()?;
        Some((attempt.number, connected.clone()))
    }

    async fn connected(&self) -> Result<(u64, Connected), RedisFault> {
        let (mut number, mut began, mut outcome) = self.attempt();
        if self.is_stuck(number) {
            self.replace(number);
            (number, began, outcome) = self.attempt();
        }
        match outcome.await {
            Ok(connected) => Ok((number, connected)),
            Err(fault) if began.elapsed() < PAUSE => Err(fault),
            Err(_) => {
                self.replace(number);
                let (number, _, outcome) = self.attempt();
                Ok((number, outcome.await?))
            }
        }
    }

    /// Whether the runtime that it dials on does not run any more. Not by the outcome, at which nobody may have
    /// looked yet.
    fn is_stuck(&self, number: u64) -> bool {
        let attempt = lock(&self.attempt);
        let is_late = attempt.began.elapsed() > self.dial.longest() + PAUSE;
        attempt.number == number && is_late && !attempt.dialling.is_finished()
    }

    fn attempt(&self) -> (u64, Instant, Outcome) {
        let attempt = lock(&self.attempt);
        (attempt.number, attempt.began, attempt.outcome.clone())
    }

    /// Connects anew, unless somebody did already, which is `false`. What runs on the old connection may end there. A
    /// server that can be reached and refuses every command is not flooded with connections.
    fn replace(&self, number: u64) -> bool {
        let mut attempt = lock(&self.attempt);
        if attempt.number != number {
            return false;
        }
        let not_before = attempt.began + PAUSE;
        *attempt = Attempt::new(number.wrapping_add(1), &self.dial, not_before);
        true
    }
}

impl Losses {
    fn add(&self, lost: Instant) {
        let mut last = lock(&self.last);
        *last = (*last).max(Some(lost));
    }

    /// Whether it is time to give up a connection in doubt; if so, for one.
    fn may_doubt(&self) -> bool {
        let mut doubted = lock(&self.doubted);
        let is_due = doubted.is_none_or(|at| at.elapsed() >= DOUBT_PAUSE);
        if is_due {
            *doubted = Some(Instant::now());
        }
        is_due
    }

    /// Whether the last loss may have been that of this connection, too.
    fn took(&self, connected: &Connected) -> bool {
        let last = *lock(&self.last);
        last.is_some_and(|lost| *lock(&connected.heard) < lost)
    }
}

impl Connected {
    fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }

    fn silence(&self) -> Duration {
        lock(&self.heard).elapsed()
    }

    /// Whether the driver has found out that the connection is over. It refuses a command at once then, and else has it
    /// wait: given up before it is sent, it is not sent.
    fn has_ended(&mut self) -> bool {
        let refused = self.connection.req_packed_command(&question()).now_or_never();
        refused.is_some_and(|answer| answer.is_err())
    }
}

/// Should it be sent after all, it changes nothing, and whoever may begin a memory may ask it: PING would take a
/// permission of its own.
fn question() -> redis::Cmd {
    redis::cmd("TIME")
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(..)")
    }
}

impl Attempt {
    fn new(number: u64, dial: &Arc<Dial>, not_before: Instant) -> Self {
        let dial = Arc::clone(dial);
        let began = not_before.max(Instant::now());
        let (sender, dialled) = oneshot::channel();
        // In a task: it goes on while those who wait for it run out of time, and what they share has no
        // timers of a runtime that may end before theirs.
        let dialling = tokio::spawn(async move {
            tokio::time::sleep_until(began).await;
            // Nobody may want it any more.
            let _ = sender.send(dial.dial().await);
        });
        let outcome = dialled
            .map(|dialled| dialled.unwrap_or_else(|gone| Err(RedisFault::Lost { source: Arc::new(gone) })))
            .boxed()
            .shared();
        Self { number, began, dialling, outcome }
    }
}

impl Dial {
    /// What a dial takes at most.
    fn longest(&self) -> Duration {
        match self.address {
            Address::Server(_) => CONNECT_TIMEOUT,
            // The Sentinels' answer, and then the primary, of whatever they name.
            Address::Sentinel(_) => CONNECT_TIMEOUT * 2,
        }
    }

    async fn dial(&self) -> Result<Connected, RedisFault> {
        let deadline = Instant::now() + self.longest();
        match &self.address {
            Address::Server(info) => self.dial_server((**info).clone(), deadline).await,
            Address::Sentinel(sentinels) => self.dial_primary(sentinels, deadline).await,
        }
    }

    /// The first of what the Sentinels name that is a primary. After a failover one that is cut off from the others
    /// names the old primary for as long as that lasts, and may be the one that answers first each time.
    async fn dial_primary(&self, sentinels: &Sentinels, deadline: Instant) -> Result<Connected, RedisFault> {
        let mut asking = sentinels.ask();
        let mut unknown = RedisFault::UnexpectedReply { command: sentinel::ASK };
        let (mut tried, mut elsewhere) = (Vec::new(), None);
        while let Some(answer) = asking.join_next().await {
            let (host, port) = match answer {
                Ok(Ok(address)) if tried.contains(&address) => continue,
                Ok(Ok(address)) => address,
                Ok(Err(fault)) => {
                    unknown = fault;
                    continue;
                }
                Err(ended) => {
                    unknown = RedisFault::Lost { source: Arc::new(ended) };
                    continue;
                }
            };
            tried.push((host.clone(), port));
            let server = sentinel::at(sentinels.server.clone(), host, port);
            match self.dial_server(server, deadline).await {
                Err(fault) if fault.may_be_elsewhere() => elsewhere = Some(fault),
                dialled => return dialled,
            }
        }
        let none = || RedisFault::NoPrimary { name: sentinels.name.clone(), source: Arc::new(unknown) };
        Err(elsewhere.unwrap_or_else(none))
    }

    async fn dial_server(&self, info: ConnectionInfo, deadline: Instant) -> Result<Connected, RedisFault> {
        let server = name_of(&info);
        let dialling = async {
            let mut connection = connect(info).await?;
            let run_id = self.demands.check(&mut connection, &server).await?;
            Ok(Connected { connection, run_id, heard: Arc::new(Mutex::new(Instant::now())) })
        };
        let dialled = timeout_at(deadline.min(Instant::now() + CONNECT_TIMEOUT), dialling).await;
        dialled.unwrap_or_else(|_| Err(RedisFault::ConnectTimeout { server: server.clone() }))
    }
}

/// Opens a connection. All its waiting is bounded by the caller.
pub(crate) async fn connect(info: ConnectionInfo) -> Result<redis::aio::MultiplexedConnection, RedisFault> {
    let server = name_of(&info);
    // An answer of the server may repeat what was sent, the password among it: its code is all that is
    // kept of one.
    let unreachable = |error: redis::RedisError| match error.code() {
        Some(code) => RedisFault::refused(code),
        None => RedisFault::Unreachable { server, source: Arc::new(error) },
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let client = Client::open(with_tcp_settings(info)).map_err(unreachable.clone())?;
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(unreachable)
}

/// Claims are small, and each is wanted at once: what is not acknowledged yet must hold up none (Nagle's algorithm).
fn with_tcp_settings(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    info.set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive))
}

/// Sends commands once. The server's errors are among the answers.
pub(crate) async fn ask(
    connection: &mut (impl ConnectionLike + Send),
    deadline: Instant,
    mut commands: Pipeline,
) -> Result<Vec<Value>, RedisFault> {
    match timeout_at(deadline, commands.ignore_errors().query_async(connection)).await {
        Err(_) => Err(RedisFault::TimedOut),
        // By a limit of the driver's own, which a connection of the application's has.
        Ok(Err(error)) if error.is_timeout() => Err(RedisFault::TimedOut),
        Ok(Err(error)) => Err(RedisFault::Lost { source: Arc::new(error) }),
        Ok(Ok(values)) => Ok(values),
    }
}

/// Host and port, without credentials. A host that a Sentinel or a server of a cluster names may be anything.
pub(crate) fn name_of(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("{}:{port}", host.escape_debug())
        }
        ConnectionAddr::Unix(path) => path.display().to_string(),
        _ => "at an unknown kind of address".to_owned(),
    }
}

pub(crate) fn text(value: &Value) -> &str {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo as _;

    use super::*;

    /// What the driver does with them is not seen from here.
    #[test]
    fn connections_send_at_once_and_are_kept_alive() {
        let info = with_tcp_settings("redis://127.0.0.1".into_connection_info().expect("a URL"));
        assert!(info.tcp_settings().nodelay());
        assert!(info.tcp_settings().keepalive().is_some());
    }

    #[test]
    fn what_others_call_a_server_begins_no_line_and_cannot_command_a_terminal() {
        let info = "redis://:geheim@127.0.0.1".into_connection_info().expect("a URL");
        for (host, name) in [
            ("10.0.0.1", "10.0.0.1:6379"),
            ("::1", "::1:6379"),
            ("a\nb\u{1b}[2J\u{202e}", "a\\nb\\u{1b}[2J\\u{202e}:6379"),
        ] {
            assert_eq!(name_of(&sentinel::at(info.clone(), host.to_owned(), 6379)), name);
        }
    }
}
