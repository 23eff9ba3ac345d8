-- Where the users are Django's or the application's: used nonces. The same as in 0001_tables.sql of ajwt's
-- own tables, so that a database may go over to those.

CREATE TABLE IF NOT EXISTS ajwt_nonce (
    -- SHA-256 of username, time and nonce: 32 bytes. The row whose key is the single byte 0 says
    -- since when the table is whole: emptying the table removes it too, and is noticed by that.
    key BLOB NOT NULL PRIMARY KEY,
    -- When the row may be removed; for the row of key 0, since when the table is whole.
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS ajwt_nonce_expires_at ON ajwt_nonce (expires_at);
