use sqlx::{Row as _, mysql::MySqlRow};

use crate::rows::Columns;

impl Columns for MySqlRow {
    fn integer(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn nullable(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn flag(&self, column: usize) -> Result<Option<bool>, sqlx::Error> {
        Ok(self.nullable(column)?.map(|number| number != 0))
    }

    /// Names are bytes here, and a column of names and other texts is one of bytes.
    fn text(&self, column: usize) -> Result<&str, sqlx::Error> {
        str::from_utf8(self.bytes(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
    }

    fn bytes(&self, column: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get(column)
    }
}
