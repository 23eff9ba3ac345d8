-- Where the users are Django's or the application's: used nonces. The same as in 0001_tables.sql of ajwt's
-- own tables, so that a database may go over to those.

CREATE TABLE IF NOT EXISTS ajwt_nonce (
    -- SHA-256 of username, time and nonce. The row of 32 zero bytes says since when the table is
    -- whole: emptying the table removes it too, and is noticed by that.
    `key` BINARY(32) NOT NULL PRIMARY KEY,
    -- When the row may be removed; for the row of zeros, since when the table is whole.
    expires_at BIGINT NOT NULL,
    KEY ajwt_nonce_expires_at (expires_at)
) ENGINE = InnoDB;
