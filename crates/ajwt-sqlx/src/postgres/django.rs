//! Django's tables in PostgreSQL. Names are compared byte for byte, whatever the column's type and
//! collation; the first comparison is the one that an index may serve.

use crate::{postgres::tables, schema::Statements};

pub(super) const STATEMENTS: Statements<&'static str> = Statements {
    find_user: FIND_USER,
    add_key: ADD_KEY,
    list_keys: LIST_KEYS,
    set_key_expiry: None,
    revoke_key: None,
    remove_key: REMOVE_KEY,
    add_trust: ADD_TRUST,
    list_trusts: LIST_TRUSTS,
    trusted_urls: TRUSTED_URLS,
    remove_trust: REMOVE_TRUST,
    key_used: KEY_USED,
    trust_used: TRUST_USED,
    ..tables::STATEMENTS
};

/// Whether keys or trusts are those of users in another table than `auth_user`. A table without a foreign key tells
/// nothing.
pub(super) const HAS_OTHER_USERS: &str = "
SELECT EXISTS (
    SELECT 1 FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
    WHERE contype = 'f' AND attname = 'user_id' AND confrelid IS DISTINCT FROM to_regclass('auth_user')
        AND conrelid IN (to_regclass('asymmetric_jwt_auth_publickey'),
            to_regclass('asymmetric_jwt_auth_jwksendpointtrust')))";

const FIND_USER: &str = "
WITH found AS (
    SELECT {id} AS id, {name}::TEXT AS username, {active} AS active FROM {users} WHERE {is_named})
SELECT 'user' AS kind, 0::BIGINT AS id, username AS text, active, NULL::BIGINT AS not_before,
    NULL::BIGINT AS expires_at, NULL::BIGINT AS revision
FROM found
UNION ALL
(SELECT 'key', id, left(key, 16385), NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_publickey
    WHERE user_id = (SELECT id FROM found) ORDER BY id DESC LIMIT 32)
UNION ALL
(SELECT 'trust', id, jwks_url, NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_jwksendpointtrust
    WHERE user_id = (SELECT id FROM found) ORDER BY id DESC LIMIT 32)";

const ADD_KEY: &str = "
INSERT INTO asymmetric_jwt_auth_publickey (user_id, key, comment) VALUES ({user}, $2, $3)
RETURNING id::BIGINT";
const LIST_KEYS: &str = "
SELECT id::BIGINT, left(key, 16385), '', comment, 0::BIGINT, NULL::BIGINT, NULL::BIGINT, NULL::BIGINT,
    (extract(epoch FROM date_trunc('milliseconds', last_used_on)) * 1000)::BIGINT
FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} ORDER BY id DESC";
const REMOVE_KEY: &str = "DELETE FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} AND id = $2";

const ADD_TRUST: &str = "
INSERT INTO asymmetric_jwt_auth_jwksendpointtrust (user_id, jwks_url) VALUES ({user}, $2)
ON CONFLICT (user_id) DO NOTHING RETURNING id::BIGINT";
const LIST_TRUSTS: &str = "
SELECT id::BIGINT, jwks_url, (extract(epoch FROM date_trunc('milliseconds', last_used_on)) * 1000)::BIGINT
FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} ORDER BY id DESC";
const TRUSTED_URLS: &str = "
SELECT jwks_url FROM asymmetric_jwt_auth_jwksendpointtrust
WHERE user_id IN (SELECT {id} FROM {users} WHERE {active})";
const REMOVE_TRUST: &str =
    "DELETE FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} AND id = $2";

/// Many rows at once, as in ajwt's own tables.
const KEY_USED: &str = "
WITH used AS (
    SELECT id, TIMESTAMPTZ 'epoch' + millis * INTERVAL '1 millisecond' AS used_at
    FROM asymmetric_jwt_auth_publickey JOIN unnest($1::BIGINT[], $2::BIGINT[]) AS used (used_id, millis)
        ON id = used_id ORDER BY id FOR NO KEY UPDATE OF asymmetric_jwt_auth_publickey)
UPDATE asymmetric_jwt_auth_publickey SET last_used_on = greatest(last_used_on, used_at) FROM used
WHERE asymmetric_jwt_auth_publickey.id = used.id";
const TRUST_USED: &str = "
WITH used AS (
    SELECT id, TIMESTAMPTZ 'epoch' + millis * INTERVAL '1 millisecond' AS used_at
    FROM asymmetric_jwt_auth_jwksendpointtrust JOIN unnest($1::BIGINT[], $2::BIGINT[]) AS used (used_id, millis)
        ON id = used_id ORDER BY id FOR NO KEY UPDATE OF asymmetric_jwt_auth_jwksendpointtrust)
UPDATE asymmetric_jwt_auth_jwksendpointtrust SET last_used_on = greatest(last_used_on, used_at) FROM used
WHERE asymmetric_jwt_auth_jwksendpointtrust.id = used.id";
