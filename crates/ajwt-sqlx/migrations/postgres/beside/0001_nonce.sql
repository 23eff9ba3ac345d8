-- Where the users are Django's or the application's: used nonces. The same as in 0001_tables.sql of ajwt's
-- own tables, so that a database may go over to those.

CREATE TABLE IF NOT EXISTS ajwt_nonce (
    -- SHA-256 of username, time and nonce: 32 bytes. The row whose key is the single byte 0 says
    -- since when the table is whole: emptying the table removes it too, and is noticed by that.
    key BYTEA NOT NULL PRIMARY KEY,
    -- When the row may be removed; for the row of key 0, since when the table is whole.
    expires_at BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS ajwt_nonce_expires_at ON ajwt_nonce (expires_at);

-- Since when the table is whole, by what is committed now. A statement that waited for another
-- transaction still sees the rows of before; being volatile, this does not.
CREATE OR REPLACE FUNCTION ajwt_nonce_since() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT expires_at FROM ajwt_nonce WHERE key = '\x00');
END
$$;
