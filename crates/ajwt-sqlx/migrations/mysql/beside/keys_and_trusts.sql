-- To be copied into a migration of the application's own, where the users are the application's. Put in,
-- twice each: the type of your users' ids for that of user_id (of a text, with its CHARACTER SET and COLLATE),
-- and your table and its id for accounts (id). The rest must stay. Times are milliseconds since the Unix epoch.

CREATE TABLE ajwt_public_key (
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
    CONSTRAINT ajwt_public_key_user FOREIGN KEY (user_id) REFERENCES accounts (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE ajwt_jwks_endpoint_trust (
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
    CONSTRAINT ajwt_jwks_endpoint_trust_user FOREIGN KEY (user_id) REFERENCES accounts (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
