use ajwt_core::Timestamp;
use redis::Value;

use crate::RedisFault;

/// What a server knows about the time since which its memory is whole.
///
/// The mark holds that time and the run_id of the process that has been keeping the nonces since:
/// `1790000000000 5f0e...`. A process with another run_id has its data from a file or from
/// replication, and nothing says that the last nonces are among it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// No mark: the data is new, or was lost.
    Missing,
    /// The mark of another process.
    OfAnotherProcess,
    /// Whole since.
    Since(Timestamp),
}

impl Memory {
    /// Whole since ever: that of a store which is new.
    pub(crate) const NEW: Self = Self::Since(Timestamp::from_millis(0));
}

/// Stands for the process where it is not known.
pub(crate) const NOBODY: &str = "-";

/// The mark that reads as [`Memory::NEW`]. Without a run_id it is nobody's.
pub(crate) fn of_new_store(run_id: Option<&str>) -> String {
    format!("0 {}", run_id.unwrap_or(NOBODY))
}

/// Reads an answer to the mark's GET. Without a run_id to compare, any process's mark counts.
pub(crate) fn read(value: &Value, run_id: Option<&str>, key: &str) -> Result<Memory, RedisFault> {
    let text = match value {
        Value::Nil => return Ok(Memory::Missing),
        Value::BulkString(text) => text,
        Value::ServerError(error) if error.code() == "WRONGTYPE" => {
            return Err(RedisFault::UnreadableMemory { key: key.to_owned() });
        }
        Value::ServerError(error) => return Err(RedisFault::refused(error.code())),
        _ => return Err(RedisFault::UnexpectedReply { command: "GET" }),
    };
    let parts = std::str::from_utf8(text).ok().and_then(|text| text.split_once(' '));
    let parsed = parts.and_then(|(since, process)| Some((since.parse().ok()?, process)));
    let Some((since, process)) = parsed else {
        return Err(RedisFault::UnreadableMemory { key: key.to_owned() });
    };
    match run_id {
        Some(run_id) if run_id != process => Ok(Memory::OfAnotherProcess),
        _ => Ok(Memory::Since(Timestamp::from_millis(since))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_written() {
        let written = |run_id| Value::BulkString(of_new_store(run_id).into_bytes());
        let reads = |value: &Value, run_id| read(value, run_id, "k").ok();
        assert_eq!(reads(&written(Some("ab")), Some("ab")), Some(Memory::NEW));
        assert_eq!(reads(&written(Some("ab")), Some("cd")), Some(Memory::OfAnotherProcess));
        assert_eq!(reads(&written(None), Some("cd")), Some(Memory::OfAnotherProcess));
        assert_eq!(reads(&written(Some("ab")), None), Some(Memory::NEW));
        assert_eq!(reads(&Value::Nil, Some("ab")), Some(Memory::Missing));
        let dated = Value::BulkString("1790000000123 ab".into());
        let since = Timestamp::from_millis(1_790_000_000_123);
        assert_eq!(reads(&dated, Some("ab")), Some(Memory::Since(since)));
    }

    #[test]
    fn anything_else_is_an_error() {
        for text in ["", "1", "x ab", "99999999999999999999 ab", "1.5 ab"] {
            assert!(read(&Value::BulkString(text.into()), None, "k").is_err(), "{text:?}");
        }
        for value in [Value::Okay, Value::Int(1), Value::Array(vec![])] {
            assert!(read(&value, None, "k").is_err(), "{value:?}");
        }
    }
}
