use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use redis::{Value, aio::ConnectionLike};
use tokio::time::Instant;

use crate::{
    RedisFault,
    link::{CONNECT_TIMEOUT, ask, text},
};

/// What a server must be like.
#[derive(Debug)]
pub(crate) struct Demands {
    pub(crate) mode: Mode,
    pub(crate) accept_eviction: bool,
    pub(crate) trust_persistence: bool,
    pub(crate) warned: AtomicBool,
}

/// How a server runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// By itself, or with replicas.
    Standalone,
    /// As a part of a cluster.
    Cluster,
}

impl Demands {
    /// Checks a server on a new connection. The run_id of its process, if that is to be followed.
    pub(crate) async fn check(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        server: &str,
    ) -> Result<Option<Arc<str>>, RedisFault> {
        let mut questions = redis::pipe();
        questions.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
        questions.cmd("CONFIG").arg("GET").arg("maxmemory");
        questions.cmd("INFO").arg("server");
        questions.cmd("INFO").arg("memory");
        // Not all of them in one INFO: only newer servers know that.
        questions.cmd("INFO").arg("replication");
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let answers = ask(connection, deadline, questions).await?;
        let [policy, maxmemory, info, memory, replication] = answers.as_slice() else {
            return Err(RedisFault::UnexpectedReply { command: "CONFIG GET" });
        };
        // What may not be asked, or does not exist here, is not told. Any other error says nothing of the server that
        // would hold once it is over.
        for answer in &answers {
            if let Value::ServerError(error) = answer
                && !matches!(error.code(), "NOPERM" | "ERR")
            {
                return Err(RedisFault::refused(error.code()));
            }
        }
        let mode = field(info, "redis_mode").or_else(|| field(info, "server_mode"));
        if let Some(mode) = mode.filter(|mode| *mode != self.mode.name()) {
            let (server, found) = (server.to_owned(), word(mode));
            return Err(RedisFault::WrongMode { server, found, wanted: self.mode.name() });
        }
        // In a cluster a replica says where the slot is, which is looked for then.
        if matches!(self.mode, Mode::Standalone) && field(replication, "role") == Some("slave") {
            return Err(RedisFault::Replica { server: server.to_owned() });
        }
        // Where CONFIG is forbidden, as at providers, INFO says the same.
        let policy = setting(policy).or_else(|| field(memory, "maxmemory_policy"));
        let maxmemory = setting(maxmemory).or_else(|| field(memory, "maxmemory"));
        self.check_eviction(policy, maxmemory, server)?;
        if self.trust_persistence {
            return Ok(None);
        }
        match field(info, "run_id") {
            Some(run_id) if !run_id.is_empty() => Ok(Some(run_id.into())),
            _ => Err(RedisFault::NoRunId { server: server.to_owned() }),
        }
    }

    fn check_eviction(
        &self,
        policy: Option<&str>,
        maxmemory: Option<&str>,
        server: &str,
    ) -> Result<(), RedisFault> {
        let (Some(policy), Some(maxmemory)) = (policy, maxmemory) else {
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    server,
                    "the Redis server does not tell its maxmemory-policy: make sure that it is noeviction, or \
                     used tokens become good again when memory is short"
                );
            }
            return Ok(());
        };
        if policy == "noeviction" || maxmemory == "0" || self.accept_eviction {
            return Ok(());
        }
        let (policy, maxmemory) = (word(policy), word(maxmemory));
        Err(RedisFault::Evicts { server: server.to_owned(), policy, maxmemory })
    }
}

impl Mode {
    /// What the server calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
        }
    }
}

/// A value in an answer to INFO.
fn field<'a>(info: &'a Value, name: &str) -> Option<&'a str> {
    let mut lines = text(info).lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

/// A word of the server's, as an error shows it: what is no short word may hold anything.
fn word(text: &str) -> String {
    let plain = text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { text } else { "(not a word)" }.to_owned()
}

/// The value in an answer to CONFIG GET.
fn setting(value: &Value) -> Option<&str> {
    match value {
        Value::Array(parts) => parts.get(1).map(text),
        Value::Map(parts) => parts.first().map(|(_, value)| text(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: they went into errors as they were.
    #[test]
    fn what_a_server_says_of_itself_cannot_command_a_terminal() {
        assert_eq!(word("allkeys-lru"), "allkeys-lru");
        for other in ["standalone\r\u{2}", "\u{1b}[2J", "\u{202e}", "a b", &"x".repeat(41)] {
            assert_eq!(word(other), "(not a word)", "{other:?}");
        }
    }
}
