use std::{error::Error, sync::Arc};

use ajwt_server::{NonceError, RepositoryError};
use thiserror::Error;

/// Why a backend could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The prefix is empty, too long or holds other characters.
    #[error("the key prefix {found:?} is not 1 to 64 of the characters A-Z a-z 0-9 . _ : -")]
    Prefix {
        /// What was given.
        found: String,
    },
    /// A URL that cannot be used. It is not shown: it may hold a password.
    #[error("the Redis URL with index {index} cannot be used: {reason}")]
    Url {
        /// Which of the URLs that were given, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No URL was given.
    #[error("no Redis URL was given")]
    NoUrl,
    /// The timeout does not leave time for anything, or is none.
    #[error("a timeout of {found:?} is not usable: give 10 ms to 60 s")]
    Timeout {
        /// What was given.
        found: std::time::Duration,
    },
    /// `WAIT` on a connection that others use too.
    #[error("wait_for_replicas needs connections of its own: give a URL, not a connection")]
    WaitOverGivenConnection,
    /// The server cannot be reached, or is not one to keep nonces on.
    #[error(transparent)]
    Server(#[from] RedisFault),
}

/// What went wrong between the backend and its server.
///
/// As the [source](Error::source) of a [`NonceError::Store`] it tells the failures apart. Addresses
/// are shown, credentials and keys never.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RedisFault {
    /// No connection, or the server's greeting failed (a wrong password, for example).
    #[error("cannot connect to the Redis server {server}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The connection was not there in time.
    #[error("connecting to the Redis server {server} took too long")]
    ConnectTimeout {
        /// Host and port.
        server: String,
    },
    /// The connection broke, or the runtime that it was used on ended, with the command under way: whether
    /// it was carried out is not known.
    #[error("the connection to the Redis server broke; whether the command was carried out is not known")]
    Lost {
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// No answer in time: whether the command was carried out is not known.
    #[error("the Redis server did not answer in time")]
    TimedOut,
    /// The server answered with an error.
    #[error("the Redis server refused with {code}: {advice}")]
    Refused {
        /// The first word of its answer.
        code: String,
        /// What it means and what to do.
        advice: &'static str,
    },
    /// The answer is not one that the command has.
    #[error("the Redis server's answer to {command} makes no sense: is this a Redis server?")]
    UnexpectedReply {
        /// The command.
        command: &'static str,
    },
    /// The key that tells since when the memory is whole holds something else.
    #[error("the key {key} does not hold what ajwt wrote: delete it, and find out who writes there")]
    UnreadableMemory {
        /// The key.
        key: String,
    },
    /// The Redis server's memory begins anew, and this process, which would date it, has a clock more than a
    /// minute ahead: all would refuse tokens until that date. Nothing was written.
    #[error(
        "this server's clock is {ahead:?} ahead of the Redis server's, whose memory cannot begin by it: set the \
         one that is wrong"
    )]
    ClockAhead {
        /// By how much.
        ahead: std::time::Duration,
    },
    /// The server may evict nonces, which makes used tokens good again.
    #[error(
        "the Redis server {server} may evict nonces (maxmemory {maxmemory}, maxmemory-policy {policy}): set \
         maxmemory-policy noeviction, or accept replays with accept_eviction()"
    )]
    Evicts {
        /// Host and port.
        server: String,
        /// Its maxmemory-policy.
        policy: String,
        /// Its maxmemory, in bytes.
        maxmemory: String,
    },
    /// The server does not say which process it is, so that a restart or failover goes unseen.
    #[error(
        "the Redis server {server} does not tell its run_id: grant INFO (ACL: +info), or vouch for its \
         persistence and failover with trust_persistence()"
    )]
    NoRunId {
        /// Host and port.
        server: String,
    },
    /// The server is a replica.
    #[error(
        "the Redis server {server} is a replica, which takes no nonces: connect to the primary, or through Sentinel"
    )]
    Replica {
        /// Host and port.
        server: String,
    },
    /// It is another kind of server.
    #[error("{server} runs in mode {found}, not {wanted}: use the connect function for it")]
    WrongMode {
        /// Host and port.
        server: String,
        /// The mode it tells.
        found: String,
        /// The mode that was due.
        wanted: &'static str,
    },
    /// Too few replicas have the nonce.
    #[error("{acknowledged} replicas have the nonce, not {wanted}: look at the replication")]
    NotReplicated {
        /// How many must have it.
        wanted: u32,
        /// How many have.
        acknowledged: i64,
    },
    /// No primary serves this slot of the cluster.
    #[error("no primary of the Redis cluster serves slot {slot}: look at CLUSTER INFO")]
    SlotNotServed {
        /// The slot.
        slot: u16,
    },
    /// No Sentinel named a primary.
    #[error("no Redis Sentinel names a primary for {name:?}")]
    NoPrimary {
        /// The name that was asked for.
        name: String,
        /// What the last one answered.
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// The page that tells how to run a server.
macro_rules! operations {
    () => {
        concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/operations.md#redis")
    };
}

impl RedisFault {
    /// The server's own error. Only its code is kept: the rest may repeat what was sent.
    pub(crate) fn refused(code: &str) -> Self {
        let advice = match code {
            "READONLY" => "it is a replica; connect to the primary, or through Sentinel",
            "LOADING" => "it is loading its data, which passes by itself",
            "BUSY" => "a script holds it up; SCRIPT KILL ends it, FUNCTION KILL a function",
            "OOM" => concat!("it is full; raise maxmemory: sizing in ", operations!()),
            "NOAUTH" | "WRONGPASS" => "check the user and password of the URL",
            "NOPERM" => concat!("the user lacks a permission: all of them in ", operations!()),
            "MOVED" | "CROSSSLOT" => "the cluster's slots have moved, or this connection knows no cluster",
            "ASK" | "TRYAGAIN" => "the slot is being moved to another server, which passes by itself",
            "CLUSTERDOWN" => "the cluster does not serve this slot; look at CLUSTER INFO",
            "MISCONF" => "it cannot write its snapshot; look at its log",
            "NOREPLICAS" => "too few replicas are connected; look at the replication",
            "ERR" => "look at the server, and at the number of a database in the URL, if it has one",
            _ => "look at the server",
        };
        // An error code is one short word; what is not may hold anything.
        let plain = code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        Self::Refused { code: if plain { code } else { "an error" }.to_owned(), advice }
    }

    /// Whether the connection it came on must not be used again.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::UnexpectedReply { .. } | Self::Lost { .. } | Self::TimedOut => true,
            Self::Refused { code, .. } => {
                matches!(code.as_str(), "READONLY" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "MASTERDOWN")
            }
            _ => false,
        }
    }

    /// Whether the server takes no writes, so that another one may be the primary by now, of which it need not know.
    pub(crate) fn leaves_in_doubt(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if matches!(code.as_str(), "NOREPLICAS" | "LOADING" | "MISCONF"))
    }

    /// Whether the server may be back by itself, with all that is set up as it is.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => {
                let error = source.downcast_ref::<redis::RedisError>();
                // Not all of what the server says to a wrong password has a code.
                error.is_none_or(|error| error.kind() != redis::ErrorKind::AuthenticationFailed)
            }
            Self::Refused { code, .. } => matches!(code.as_str(), "LOADING" | "MASTERDOWN" | "BUSY"),
            _ => self.is_silence(),
        }
    }

    /// Whether the primary may be another server than this one, of which somebody said that it is the primary.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        matches!(self, Self::Replica { .. }) || self.is_silence()
    }

    /// Whether another server of the cluster may serve the slot by now.
    pub(crate) fn may_have_moved(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                matches!(code.as_str(), "MOVED" | "READONLY" | "CLUSTERDOWN" | "MASTERDOWN")
            }
            _ => self.is_silence(),
        }
    }

    /// Whether no answer came to what was sent, or there was no connection to send it on.
    const fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::ConnectTimeout { .. } | Self::Lost { .. } | Self::TimedOut
        )
    }
}

impl From<RedisFault> for NonceError {
    fn from(fault: RedisFault) -> Self {
        Self::Store(match fault {
            RedisFault::TimedOut => RepositoryError::timeout("consuming a nonce in Redis"),
            fault => RepositoryError::new("consuming a nonce in Redis", fault),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_takes_no_writes_leaves_in_doubt() {
        for code in ["NOREPLICAS", "LOADING", "MISCONF"] {
            let fault = RedisFault::refused(code);
            assert!(fault.leaves_in_doubt() && !fault.ends_connection(), "{code}");
        }
        for code in ["READONLY", "OOM", "BUSY", "MOVED", "TRYAGAIN", "ERR"] {
            assert!(!RedisFault::refused(code).leaves_in_doubt(), "{code}");
        }
    }

    /// A process of a cluster starts meanwhile, if another primary can be reached.
    #[test]
    fn what_ends_by_itself_may_pass() {
        for code in ["LOADING", "MASTERDOWN", "BUSY"] {
            assert!(RedisFault::refused(code).may_pass(), "{code}");
        }
        for code in ["NOAUTH", "WRONGPASS", "NOPERM", "ERR", "READONLY"] {
            assert!(!RedisFault::refused(code).may_pass(), "{code}");
        }
    }
}
