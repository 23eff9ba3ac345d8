-- One row with a number that every change to users, keys and trusts raises, whoever makes it: what
-- was read before is current while the number stands. The note of a last use does not raise it.
CREATE TABLE ajwt_revision (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
);

INSERT INTO ajwt_revision (id, revision) VALUES (1, 1);

-- In the changed table's own schema: who writes by plain SQL may have another search path.
CREATE FUNCTION ajwt_raise_revision() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.ajwt_revision SET revision = revision + 1 WHERE id = 1', TG_TABLE_SCHEMA);
    -- Sent when the change is committed.
    PERFORM pg_notify('ajwt_revision', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;

CREATE TRIGGER ajwt_user_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON ajwt_user
FOR EACH STATEMENT EXECUTE FUNCTION ajwt_raise_revision();

CREATE TRIGGER ajwt_public_key_changed
AFTER INSERT OR DELETE OR TRUNCATE
OR UPDATE OF id, user_id, key, fingerprint, comment, created_at, not_before, expires_at, revoked_at
ON ajwt_public_key
FOR EACH STATEMENT EXECUTE FUNCTION ajwt_raise_revision();

CREATE TRIGGER ajwt_jwks_endpoint_trust_changed
AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, user_id, jwks_url, created_at
ON ajwt_jwks_endpoint_trust
FOR EACH STATEMENT EXECUTE FUNCTION ajwt_raise_revision();
