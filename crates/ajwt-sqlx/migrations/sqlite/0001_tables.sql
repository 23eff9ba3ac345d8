-- Times are milliseconds since the Unix epoch.

CREATE TABLE ajwt_user (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- BINARY: names that differ in case, accents or spaces are different users.
    username TEXT NOT NULL COLLATE BINARY UNIQUE,
    active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE ajwt_public_key (
    -- AUTOINCREMENT: an id is never used again, so a late note of use cannot meet another key.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES ajwt_user (id) ON DELETE CASCADE,
    -- PEM or one OpenSSH line.
    key TEXT NOT NULL,
    -- SHA-256 of the SPKI PEM text, lower-case hex.
    fingerprint TEXT NOT NULL,
    comment TEXT NOT NULL DEFAULT '' CHECK (length(comment) <= 100),
    created_at INTEGER NOT NULL,
    -- Used from here (inclusive) ...
    not_before INTEGER,
    -- ... to here (exclusive) ...
    expires_at INTEGER,
    -- ... and not at all once this is set.
    revoked_at INTEGER,
    last_used_on INTEGER,
    UNIQUE (user_id, fingerprint)
) STRICT;

-- The newest keys of a user that are not revoked.
CREATE INDEX ajwt_public_key_live ON ajwt_public_key (user_id, id) WHERE revoked_at IS NULL;

CREATE TABLE ajwt_jwks_endpoint_trust (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES ajwt_user (id) ON DELETE CASCADE,
    jwks_url TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_on INTEGER,
    UNIQUE (user_id, jwks_url)
) STRICT;

-- The newest trusts of a user.
CREATE INDEX ajwt_jwks_endpoint_trust_user ON ajwt_jwks_endpoint_trust (user_id, id);

-- Perhaps there already: see beside/.
CREATE TABLE IF NOT EXISTS ajwt_nonce (
    -- SHA-256 of username, time and nonce: 32 bytes. The row whose key is the single byte 0 says
    -- since when the table is whole: emptying the table removes it too, and is noticed by that.
    key BLOB NOT NULL PRIMARY KEY,
    -- When the row may be removed; for the row of key 0, since when the table is whole.
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS ajwt_nonce_expires_at ON ajwt_nonce (expires_at);

-- Who changed what: written with each change that is made through KeyAdmin.
CREATE TABLE IF NOT EXISTS ajwt_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    username TEXT NOT NULL COLLATE BINARY,
    detail TEXT NOT NULL
) STRICT;
