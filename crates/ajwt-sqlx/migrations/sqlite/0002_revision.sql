-- One row with a number that every change to users, keys and trusts raises, whoever makes it: what
-- was read before is current while the number stands. The note of a last use does not raise it.
CREATE TABLE ajwt_revision (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO ajwt_revision (id, revision) VALUES (1, 1);

CREATE TRIGGER ajwt_user_inserted AFTER INSERT ON ajwt_user
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_user_updated AFTER UPDATE ON ajwt_user
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_user_deleted AFTER DELETE ON ajwt_user
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;

CREATE TRIGGER ajwt_public_key_inserted AFTER INSERT ON ajwt_public_key
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_public_key_updated
AFTER UPDATE OF id, user_id, key, fingerprint, comment, created_at, not_before, expires_at, revoked_at
ON ajwt_public_key
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_public_key_deleted AFTER DELETE ON ajwt_public_key
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;

CREATE TRIGGER ajwt_jwks_endpoint_trust_inserted AFTER INSERT ON ajwt_jwks_endpoint_trust
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_jwks_endpoint_trust_updated
AFTER UPDATE OF id, user_id, jwks_url, created_at ON ajwt_jwks_endpoint_trust
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
CREATE TRIGGER ajwt_jwks_endpoint_trust_deleted AFTER DELETE ON ajwt_jwks_endpoint_trust
BEGIN UPDATE ajwt_revision SET revision = revision + 1; END;
