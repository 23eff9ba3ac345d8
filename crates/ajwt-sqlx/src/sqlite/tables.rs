//! ajwt's own tables in SQLite, and those that stand beside users of the application's own.

use crate::{schema::Statements, user_table::Dialect};

/// In double quotes, which are SQL's own, a column that is not there would be a text that says its name.
pub(super) const DIALECT: Dialect = Dialect { quote: '`', is_named: IS_NAMED };

const IS_NAMED: &str = "{name} = ?1 AND {name} = ?1 COLLATE BINARY";

pub(super) const STATEMENTS: Statements<&'static str> = Statements {
    find_user: FIND_USER,
    user_exists: USER_EXISTS,
    lock_user: USER_EXISTS,
    list_users: LIST_USERS,
    set_user_active: SET_USER_ACTIVE,
    add_key: ADD_KEY,
    list_keys: LIST_KEYS,
    set_key_expiry: Some(SET_KEY_EXPIRY),
    revoke_key: Some(REVOKE_KEY),
    remove_key: REMOVE_KEY,
    add_trust: ADD_TRUST,
    list_trusts: LIST_TRUSTS,
    trusted_urls: TRUSTED_URLS,
    remove_trust: REMOVE_TRUST,
    key_used: KEY_USED,
    trust_used: TRUST_USED,
};

/// User, keys and trusts in one statement. The first column tells the kinds of row apart. Of a key
/// that is longer than any may be, no more is read than shows it.
const FIND_USER: &str = "
WITH found AS (SELECT {id} AS id, {name} AS username, {active} AS active FROM {users} WHERE {is_named})
SELECT 'user' AS kind, 0 AS id, username AS text, active, NULL AS not_before, NULL AS expires_at,
    ({revision}) AS revision
FROM found
UNION ALL
SELECT * FROM (
    SELECT 'key', id, substr(key, 1, 16385), NULL, not_before, expires_at, NULL FROM ajwt_public_key
    WHERE user_id = (SELECT id FROM found) AND revoked_at IS NULL ORDER BY id DESC LIMIT 32)
UNION ALL
SELECT * FROM (
    SELECT 'trust', id, jwks_url, NULL, NULL, NULL, NULL FROM ajwt_jwks_endpoint_trust
    WHERE user_id = (SELECT id FROM found) ORDER BY id DESC LIMIT 32)";

const USER_EXISTS: &str = "SELECT 1 FROM {users} WHERE {is_named}";
pub(super) const ADD_USER: &str = "
INSERT INTO ajwt_user (username, active, created_at) VALUES (?1, 1, ?2)
ON CONFLICT (username) DO NOTHING RETURNING id";
const LIST_USERS: &str = "SELECT {name}, {active} FROM {users} WHERE typeof({name}) = 'text'";
const SET_USER_ACTIVE: &str = "UPDATE {users} SET {active} = ?2 WHERE {is_named}";
/// Not left to the cascade: a pool of the application's own may have foreign keys off.
pub(super) const REMOVE_USER: [&str; 3] = [
    "DELETE FROM ajwt_public_key WHERE user_id = (SELECT id FROM ajwt_user WHERE username = ?1)",
    "DELETE FROM ajwt_jwks_endpoint_trust WHERE user_id = (SELECT id FROM ajwt_user WHERE username = ?1)",
    "DELETE FROM ajwt_user WHERE username = ?1",
];

const ADD_KEY: &str = "
INSERT INTO ajwt_public_key
    (user_id, key, comment, fingerprint, created_at, not_before, expires_at)
VALUES ({user}, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (user_id, fingerprint) DO NOTHING RETURNING id";
const LIST_KEYS: &str = "
SELECT id, key, fingerprint, comment, created_at, not_before, expires_at, revoked_at, last_used_on
FROM ajwt_public_key WHERE user_id = {user} ORDER BY id DESC";
const SET_KEY_EXPIRY: &str = "UPDATE ajwt_public_key SET expires_at = ?3 WHERE user_id = {user} AND id = ?2";
const REVOKE_KEY: &str = "
UPDATE ajwt_public_key SET revoked_at = coalesce(revoked_at, ?3) WHERE user_id = {user} AND id = ?2";
const REMOVE_KEY: &str = "DELETE FROM ajwt_public_key WHERE user_id = {user} AND id = ?2";

const ADD_TRUST: &str = "
INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at) VALUES ({user}, ?2, ?3)
ON CONFLICT (user_id, jwks_url) DO NOTHING RETURNING id";
const LIST_TRUSTS: &str = "
SELECT id, jwks_url, last_used_on FROM ajwt_jwks_endpoint_trust WHERE user_id = {user} ORDER BY id DESC";
const TRUSTED_URLS: &str = "
SELECT jwks_url FROM ajwt_jwks_endpoint_trust WHERE user_id IN (SELECT {id} FROM {users} WHERE {active})";
const REMOVE_TRUST: &str = "DELETE FROM ajwt_jwks_endpoint_trust WHERE user_id = {user} AND id = ?2";

const KEY_USED: &str = "
UPDATE ajwt_public_key SET last_used_on = max(coalesce(last_used_on, ?2), ?2) WHERE id = ?1";
const TRUST_USED: &str = "
UPDATE ajwt_jwks_endpoint_trust SET last_used_on = max(coalesce(last_used_on, ?2), ?2) WHERE id = ?1";

pub(super) const ADD_AUDIT: &str = "
INSERT INTO ajwt_audit (at, actor, action, username, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
pub(super) const AUDIT: &str = "
SELECT id, at, actor, action, username, detail FROM ajwt_audit ORDER BY id DESC LIMIT ?1";
