-- To be copied into a migration of the application's own, where the users are the application's. Put in,
-- twice each: the type of your users' ids for that of user_id, and your table and its id for accounts (id).
-- The rest must stay. Times are milliseconds since the Unix epoch.
--
-- The type is INTEGER, TEXT or BLOB, whichever the ids are, for the tables are STRICT. With ids that are declared as
-- BIGINT goes INTEGER, with VARCHAR(36) TEXT; for UUID, BINARY(16) and the like see docs/database.md.

CREATE TABLE ajwt_public_key (
    -- AUTOINCREMENT: an id is never used again, so a late note of use cannot meet another key.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
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
    user_id INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    jwks_url TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_on INTEGER,
    UNIQUE (user_id, jwks_url)
) STRICT;

-- The newest trusts of a user.
CREATE INDEX ajwt_jwks_endpoint_trust_user ON ajwt_jwks_endpoint_trust (user_id, id);
