//! The stores of `ajwt gateway --nonce`.

mod memory;
mod redis;
mod sql;
mod sqlite;

pub use self::{
    memory::{Memory, MemoryOfEach},
    redis::{Cluster, FailingOver, Redis},
    sql::Sql,
    sqlite::Sqlite,
};

/// Where a store may be emptied, servers' clocks may differ by the 5 s of the start rule.
const CLOSE_CLOCKS: (i64, i64) = (-2_000, 2_000);

/// Else by the margin, 60 s.
const WIDE_CLOCKS: (i64, i64) = (-25_000, 25_000);

/// After which a server gives up on its database, in milliseconds: the shortest of several timeouts.
const DATABASE_PATIENCE: i64 = 1_400;

/// How long a database is away: long enough for requests to be sent and given up while it is.
const DATABASE_LEAST: u64 = 2_100;
