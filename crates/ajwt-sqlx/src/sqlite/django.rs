//! Django's tables in SQLite. Times there are texts, in UTC, as in `2026-11-24 12:00:00.123456`, or
//! without a fraction where it is zero. Names are compared byte for byte, whatever the column's
//! collation; the first comparison is the one that an index may serve.

use crate::{schema::Statements, sqlite::tables};

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
    SELECT 1 FROM (
        SELECT * FROM pragma_foreign_key_list('asymmetric_jwt_auth_publickey')
        UNION ALL SELECT * FROM pragma_foreign_key_list('asymmetric_jwt_auth_jwksendpointtrust'))
    WHERE \"from\" = 'user_id' COLLATE NOCASE AND \"table\" <> 'auth_user' COLLATE NOCASE)";

const FIND_USER: &str = "
WITH found AS (SELECT {id} AS id, {name} AS username, {active} AS active FROM {users} WHERE {is_named})
SELECT 'user' AS kind, 0 AS id, username AS text, active, NULL AS not_before, NULL AS expires_at,
    NULL AS revision
FROM found
UNION ALL
SELECT * FROM (
    SELECT 'key', id, substr(key, 1, 16385), NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_publickey
    WHERE user_id = (SELECT id FROM found) ORDER BY id DESC LIMIT 32)
UNION ALL
SELECT * FROM (
    SELECT 'trust', id, jwks_url, NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_jwksendpointtrust
    WHERE user_id = (SELECT id FROM found) ORDER BY id DESC LIMIT 32)";

const ADD_KEY: &str = "
INSERT INTO asymmetric_jwt_auth_publickey (user_id, key, comment) VALUES ({user}, ?2, ?3) RETURNING id";
const LIST_KEYS: &str = "
SELECT id, substr(key, 1, 16385), '', comment, 0, NULL, NULL, NULL,
    CAST(strftime('%s', substr(last_used_on, 1, 19)) AS INTEGER) * 1000
        + CAST(substr(substr(last_used_on, 21) || '000', 1, 3) AS INTEGER)
FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} ORDER BY id DESC";
const REMOVE_KEY: &str = "DELETE FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} AND id = ?2";

const ADD_TRUST: &str = "
INSERT INTO asymmetric_jwt_auth_jwksendpointtrust (user_id, jwks_url) VALUES ({user}, ?2)
ON CONFLICT (user_id) DO NOTHING RETURNING id";
const LIST_TRUSTS: &str = "
SELECT id, jwks_url,
    CAST(strftime('%s', substr(last_used_on, 1, 19)) AS INTEGER) * 1000
        + CAST(substr(substr(last_used_on, 21) || '000', 1, 3) AS INTEGER)
FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} ORDER BY id DESC";
const TRUSTED_URLS: &str = "
SELECT jwks_url FROM asymmetric_jwt_auth_jwksendpointtrust
WHERE user_id IN (SELECT {id} FROM {users} WHERE {active})";
const REMOVE_TRUST: &str =
    "DELETE FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} AND id = ?2";

const KEY_USED: &str = "
WITH used AS (
    SELECT strftime('%Y-%m-%d %H:%M:%S', ?2 / 1000, 'unixepoch')
        || CASE ?2 % 1000 WHEN 0 THEN '' ELSE printf('.%03d000', ?2 % 1000) END AS at)
UPDATE asymmetric_jwt_auth_publickey
SET last_used_on = (SELECT max(coalesce(last_used_on, at), at) FROM used) WHERE id = ?1";
const TRUST_USED: &str = "
WITH used AS (
    SELECT strftime('%Y-%m-%d %H:%M:%S', ?2 / 1000, 'unixepoch')
        || CASE ?2 % 1000 WHEN 0 THEN '' ELSE printf('.%03d000', ?2 % 1000) END AS at)
UPDATE asymmetric_jwt_auth_jwksendpointtrust
SET last_used_on = (SELECT max(coalesce(last_used_on, at), at) FROM used) WHERE id = ?1";
