//! What MySQL's rows hold.

use std::str;

use ajwt_core::Timestamp;
use ajwt_server::{KeyRecord, UserRecord};
use sqlx::{Row as _, mysql::MySqlRow};

use crate::{audit::AuditRecord, user_rows::UserRow};

pub(super) fn user_row(row: &MySqlRow) -> Result<UserRow<'_>, sqlx::Error> {
    Ok(UserRow {
        kind: text(row, 0)?,
        id: get(row, 1)?,
        text: get(row, 2)?,
        active: get::<Option<i64>>(row, 3)?.map(|active| active != 0),
        not_before: get(row, 4)?,
        expires_at: get(row, 5)?,
        revision: get(row, 6)?,
    })
}

pub(super) fn user_record(row: &MySqlRow) -> Result<UserRecord, sqlx::Error> {
    // As in a request: a state that is not known is not an active one.
    let active = get::<Option<i64>>(row, 1)?.is_some_and(|active| active != 0);
    Ok(UserRecord::new(text(row, 0)?, active))
}

pub(super) fn key_record(row: &MySqlRow) -> Result<KeyRecord, sqlx::Error> {
    let created_at = Timestamp::from_millis(get(row, 4)?);
    let mut record = KeyRecord::of_text(get(row, 0)?, text(row, 1)?, created_at);
    record.fingerprint = text(row, 2)?.to_owned();
    record.comment = text(row, 3)?.to_owned();
    record.not_before = time(row, 5)?;
    record.expires_at = time(row, 6)?;
    record.revoked_at = time(row, 7)?;
    record.last_used_on = time(row, 8)?;
    Ok(record)
}

pub(super) fn audit_record(row: &MySqlRow) -> Result<AuditRecord, sqlx::Error> {
    Ok(AuditRecord {
        id: get(row, 0)?,
        at: Timestamp::from_millis(get(row, 1)?),
        actor: text(row, 2)?.to_owned(),
        action: text(row, 3)?.to_owned(),
        username: text(row, 4)?.to_owned(),
        detail: text(row, 5)?.to_owned(),
    })
}

pub(super) fn get<'r, T>(row: &'r MySqlRow, column: usize) -> Result<T, sqlx::Error>
where
    T: sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
{
    row.try_get(column)
}

pub(super) fn time(row: &MySqlRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

/// Names are bytes here, and a column of names and other texts is one of bytes.
pub(super) fn text(row: &MySqlRow, column: usize) -> Result<&str, sqlx::Error> {
    str::from_utf8(get(row, column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}
