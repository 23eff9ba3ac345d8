//! What the rows of the statements hold, whatever the database.

use std::borrow::Cow;

use ajwt_core::Timestamp;
use ajwt_server::{KeyRecord, TrustRecord, UserRecord};

use crate::{audit::AuditRecord, user_rows::UserRow};

/// The columns of a database's rows, by their places. `NULL` is an error where the type has no `None`.
pub(crate) trait Columns {
    fn integer(&self, column: usize) -> Result<i64, sqlx::Error>;

    fn nullable(&self, column: usize) -> Result<Option<i64>, sqlx::Error>;

    fn flag(&self, column: usize) -> Result<Option<bool>, sqlx::Error>;

    fn text(&self, column: usize) -> Result<&str, sqlx::Error>;

    /// Of a text that need not be UTF-8.
    fn bytes(&self, column: usize) -> Result<&[u8], sqlx::Error>;
}

pub(crate) fn user_row<R: Columns>(row: &R) -> Result<UserRow<'_>, sqlx::Error> {
    Ok(UserRow {
        kind: row.text(0)?,
        id: row.integer(1)?,
        text: row.bytes(2)?,
        active: row.flag(3)?,
        not_before: row.nullable(4)?,
        expires_at: row.nullable(5)?,
        revision: row.nullable(6)?,
    })
}

/// `None`: it has a name that is no text, as a client of another encoding stores it. No token can claim that, and what
/// would be shown in its place is another user's.
pub(crate) fn user_record<R: Columns>(row: &R) -> Result<Option<UserRecord>, sqlx::Error> {
    let Ok(name) = str::from_utf8(row.bytes(0)?) else { return Ok(None) };
    // As in a request: a state that is not known is not an active one.
    Ok(Some(UserRecord::new(name, row.flag(1)? == Some(true))))
}

pub(crate) fn key_record<R: Columns>(row: &R) -> Result<KeyRecord, sqlx::Error> {
    let created_at = Timestamp::from_millis(row.integer(4)?);
    let mut record = KeyRecord::of_text(row.integer(0)?, shown(row, 1)?, created_at);
    record.fingerprint = shown(row, 2)?.into_owned();
    record.comment = shown(row, 3)?.into_owned();
    record.not_before = time(row, 5)?;
    record.expires_at = time(row, 6)?;
    record.revoked_at = time(row, 7)?;
    record.last_used_on = time(row, 8)?;
    Ok(record)
}

pub(crate) fn trust_record<R: Columns>(row: &R) -> Result<TrustRecord, sqlx::Error> {
    Ok(TrustRecord::new(row.integer(0)?, shown(row, 1)?, time(row, 2)?))
}

pub(crate) fn audit_record<R: Columns>(row: &R) -> Result<AuditRecord, sqlx::Error> {
    Ok(AuditRecord {
        id: row.integer(0)?,
        at: Timestamp::from_millis(row.integer(1)?),
        actor: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        username: row.text(4)?.to_owned(),
        detail: row.text(5)?.to_owned(),
    })
}

/// A text as it is shown to an administrator. SQLite lets plain SQL store bytes that are none; such a row must not
/// hide the others, and is removed by its id.
fn shown<R: Columns>(row: &R, column: usize) -> Result<Cow<'_, str>, sqlx::Error> {
    Ok(String::from_utf8_lossy(row.bytes(column)?))
}

fn time<R: Columns>(row: &R, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.nullable(column)?.map(Timestamp::from_millis))
}
