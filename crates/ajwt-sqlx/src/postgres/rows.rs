//! What PostgreSQL's rows hold.

use ajwt_core::Timestamp;
use ajwt_server::{KeyRecord, UserRecord};
use sqlx::{Row as _, postgres::PgRow};

use crate::{audit::AuditRecord, user_rows::UserRow};

pub(super) fn user_row(row: &PgRow) -> Result<UserRow<'_>, sqlx::Error> {
    Ok(UserRow {
        kind: get(row, 0)?,
        id: get(row, 1)?,
        text: get::<&str>(row, 2)?.as_bytes(),
        active: get(row, 3)?,
        not_before: get(row, 4)?,
        expires_at: get(row, 5)?,
        revision: get(row, 6)?,
    })
}

pub(super) fn user_record(row: &PgRow) -> Result<UserRecord, sqlx::Error> {
    // As in a request: a state that is not known is not an active one.
    let active: Option<bool> = get(row, 1)?;
    Ok(UserRecord::new(get::<String>(row, 0)?, active == Some(true)))
}

pub(super) fn key_record(row: &PgRow) -> Result<KeyRecord, sqlx::Error> {
    let created_at = Timestamp::from_millis(get(row, 4)?);
    let mut record = KeyRecord::of_text(get(row, 0)?, get::<String>(row, 1)?, created_at);
    record.fingerprint = get(row, 2)?;
    record.comment = get(row, 3)?;
    record.not_before = time(row, 5)?;
    record.expires_at = time(row, 6)?;
    record.revoked_at = time(row, 7)?;
    record.last_used_on = time(row, 8)?;
    Ok(record)
}

pub(super) fn audit_record(row: &PgRow) -> Result<AuditRecord, sqlx::Error> {
    Ok(AuditRecord {
        id: get(row, 0)?,
        at: Timestamp::from_millis(get(row, 1)?),
        actor: get(row, 2)?,
        action: get(row, 3)?,
        username: get(row, 4)?,
        detail: get(row, 5)?,
    })
}

pub(super) fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T, sqlx::Error>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column)
}

pub(super) fn time(row: &PgRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}
