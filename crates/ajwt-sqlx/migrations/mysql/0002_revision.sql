-- One row with a number that every change to users, keys and trusts raises, whoever makes it: what
-- was read before is current while the number stands. The note of a last use does not raise it.
--
-- A deletion that cascades fires no triggers of the table it reaches, but those of the table that
-- it began in. TRUNCATE fires none at all: use DELETE.
--
-- A server that forbids triggers (MySQL and MariaDB with a binary log and without
-- log_bin_trust_function_creators) can do without this migration; then there is no revision.

DROP TRIGGER IF EXISTS ajwt_user_inserted;
CREATE TRIGGER ajwt_user_inserted AFTER INSERT ON ajwt_user FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_user_deleted;
CREATE TRIGGER ajwt_user_deleted AFTER DELETE ON ajwt_user FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_user_updated;
CREATE TRIGGER ajwt_user_updated AFTER UPDATE ON ajwt_user FOR EACH ROW
IF NOT (
    OLD.id <=> NEW.id
    AND OLD.username <=> NEW.username
    AND OLD.active <=> NEW.active
    AND OLD.created_at <=> NEW.created_at
) THEN
    UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;
END IF;

DROP TRIGGER IF EXISTS ajwt_public_key_inserted;
CREATE TRIGGER ajwt_public_key_inserted AFTER INSERT ON ajwt_public_key FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_public_key_deleted;
CREATE TRIGGER ajwt_public_key_deleted AFTER DELETE ON ajwt_public_key FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_public_key_updated;
CREATE TRIGGER ajwt_public_key_updated AFTER UPDATE ON ajwt_public_key FOR EACH ROW
IF NOT (
    OLD.id <=> NEW.id
    AND OLD.user_id <=> NEW.user_id
    AND OLD.`key` <=> NEW.`key`
    AND OLD.fingerprint <=> NEW.fingerprint
    AND OLD.comment <=> NEW.comment
    AND OLD.created_at <=> NEW.created_at
    AND OLD.not_before <=> NEW.not_before
    AND OLD.expires_at <=> NEW.expires_at
    AND OLD.revoked_at <=> NEW.revoked_at
) THEN
    UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;
END IF;

DROP TRIGGER IF EXISTS ajwt_jwks_endpoint_trust_inserted;
CREATE TRIGGER ajwt_jwks_endpoint_trust_inserted AFTER INSERT ON ajwt_jwks_endpoint_trust FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_jwks_endpoint_trust_deleted;
CREATE TRIGGER ajwt_jwks_endpoint_trust_deleted AFTER DELETE ON ajwt_jwks_endpoint_trust FOR EACH ROW
UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;

DROP TRIGGER IF EXISTS ajwt_jwks_endpoint_trust_updated;
CREATE TRIGGER ajwt_jwks_endpoint_trust_updated AFTER UPDATE ON ajwt_jwks_endpoint_trust FOR EACH ROW
IF NOT (
    OLD.id <=> NEW.id
    AND OLD.user_id <=> NEW.user_id
    AND OLD.jwks_url <=> NEW.jwks_url
    AND OLD.created_at <=> NEW.created_at
) THEN
    UPDATE ajwt_revision SET revision = revision + 1 WHERE id = 1;
END IF;

INSERT INTO ajwt_revision (id, revision) VALUES (1, 1) ON DUPLICATE KEY UPDATE revision = revision + 1;
