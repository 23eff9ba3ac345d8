-- For MySQL and MariaDB. Times are milliseconds since the Unix epoch.
--
-- Changes of tables are not transactional here, so each step can be repeated: a migration that was
-- cut short runs again from its beginning.

CREATE TABLE IF NOT EXISTS ajwt_user (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    -- Bytes: names that differ in case, accents or spaces are different users, and MySQL and
    -- MariaDB have no collation in common that says so. 150 characters of four bytes.
    username VARBINARY(600) NOT NULL,
    active BOOLEAN NOT NULL DEFAULT TRUE,
    created_at BIGINT NOT NULL,
    UNIQUE KEY ajwt_user_username (username)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS ajwt_public_key (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id BIGINT NOT NULL,
    -- PEM or one OpenSSH line.
    `key` TEXT NOT NULL,
    -- SHA-256 of the SPKI PEM text, lower-case hex.
    fingerprint VARBINARY(64) NOT NULL,
    comment VARCHAR(100) NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    -- Used from here (inclusive) ...
    not_before BIGINT,
    -- ... to here (exclusive) ...
    expires_at BIGINT,
    -- ... and not at all once this is set.
    revoked_at BIGINT,
    last_used_on BIGINT,
    UNIQUE KEY ajwt_public_key_fingerprint (user_id, fingerprint),
    -- The newest keys of a user that are not revoked.
    KEY ajwt_public_key_live (user_id, revoked_at, id),
    CONSTRAINT ajwt_public_key_user FOREIGN KEY (user_id) REFERENCES ajwt_user (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS ajwt_jwks_endpoint_trust (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id BIGINT NOT NULL,
    jwks_url VARCHAR(2000) NOT NULL,
    -- A URL may be longer than an index entry.
    url_hash BINARY(32) GENERATED ALWAYS AS (UNHEX(SHA2(jwks_url, 256))) STORED,
    created_at BIGINT NOT NULL,
    last_used_on BIGINT,
    UNIQUE KEY ajwt_jwks_endpoint_trust_url (user_id, url_hash),
    -- The newest trusts of a user.
    KEY ajwt_jwks_endpoint_trust_user (user_id, id),
    CONSTRAINT ajwt_jwks_endpoint_trust_user FOREIGN KEY (user_id) REFERENCES ajwt_user (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS ajwt_nonce (
    -- SHA-256 of username, time and nonce. The row of 32 zero bytes says since when the table is
    -- whole: emptying the table removes it too, and is noticed by that.
    `key` BINARY(32) NOT NULL PRIMARY KEY,
    -- When the row may be removed; for the row of zeros, since when the table is whole.
    expires_at BIGINT NOT NULL,
    KEY ajwt_nonce_expires_at (expires_at)
) ENGINE = InnoDB;

-- Who changed what: written with each change that is made through KeyAdmin.
CREATE TABLE IF NOT EXISTS ajwt_audit (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor VARCHAR(150) NOT NULL,
    action VARCHAR(50) NOT NULL,
    username VARBINARY(600) NOT NULL,
    detail TEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Without its row there is no revision: the triggers of the next migration come first.
CREATE TABLE IF NOT EXISTS ajwt_revision (
    id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
) ENGINE = InnoDB;
