//! ajwt's own tables in MySQL and MariaDB, and those that stand beside users of the application's own.

use crate::{schema::Statements, user_table::Dialect};

pub(super) const DIALECT: Dialect = Dialect { quote: '`', is_named: IS_NAMED };

const IS_NAMED: &str = "{name} = ? AND CAST(CONVERT({name} USING utf8mb4) AS BINARY) = ?";

pub(super) const STATEMENTS: Statements<&'static str> = Statements {
    find_user: FIND_USER,
    user_exists: USER_EXISTS,
    lock_user: LOCK_USER,
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
///
/// Who is active: a number of any type, BIT and UNSIGNED among them, is made one of a type that can be read. A
/// text is no, and so is ENUM, whose number is never 0 whatever its text says: HEX tells the two apart.
const FIND_USER: &str = "
SELECT 'user' AS kind, 0 AS id, CAST(CONVERT({name} USING utf8mb4) AS BINARY) AS text,
    HEX({active}) = HEX({active} + 0) AND {active} <> 0 AS active, NULL AS not_before, NULL AS expires_at,
    ({revision}) AS revision
FROM {users} WHERE {is_named}
UNION ALL
(SELECT 'key', id, LEFT(`key`, 16385), NULL, not_before, expires_at, NULL FROM ajwt_public_key
    WHERE user_id = {user} AND revoked_at IS NULL
    ORDER BY id DESC LIMIT 32)
UNION ALL
(SELECT 'trust', id, jwks_url, NULL, NULL, NULL, NULL FROM ajwt_jwks_endpoint_trust
    WHERE user_id = {user} ORDER BY id DESC LIMIT 32)";

const USER_EXISTS: &str = "SELECT 1 FROM {users} WHERE {is_named}";
/// Nothing that was read in the transaction can change under it.
const LOCK_USER: &str = "SELECT 1 FROM {users} WHERE {is_named} FOR UPDATE";
pub(super) const ADD_USER: &str = "INSERT INTO ajwt_user (username, active, created_at) VALUES (?, TRUE, ?)";
/// A name of bytes is told as it is: of what is no UTF-8 `CONVERT` makes question marks, and another name.
const LIST_USERS: &str = "
SELECT IF(CHARSET({name}) = 'binary', CAST({name} AS BINARY), CAST(CONVERT({name} USING utf8mb4) AS BINARY)),
    HEX({active}) = HEX({active} + 0) AND {active} <> 0
FROM {users} WHERE {name} IS NOT NULL";
const SET_USER_ACTIVE: &str = "UPDATE {users} SET {active} = ? WHERE {is_named}";
/// Not left to the cascade, which fires no triggers.
pub(super) const REMOVE_USER: [&str; 3] = [
    "DELETE FROM ajwt_public_key WHERE user_id = (SELECT id FROM ajwt_user WHERE username = ?)",
    "DELETE FROM ajwt_jwks_endpoint_trust WHERE user_id = (SELECT id FROM ajwt_user WHERE username = ?)",
    "DELETE FROM ajwt_user WHERE username = ?",
];

const ADD_KEY: &str = "
INSERT INTO ajwt_public_key
    (user_id, `key`, comment, fingerprint, created_at, not_before, expires_at)
VALUES ({user}, ?, ?, ?, ?, ?, ?)";
const LIST_KEYS: &str = "
SELECT id, `key`, fingerprint, comment, created_at, not_before, expires_at, revoked_at, last_used_on
FROM ajwt_public_key WHERE user_id = {user} ORDER BY id DESC";
const SET_KEY_EXPIRY: &str = "UPDATE ajwt_public_key SET expires_at = ? WHERE user_id = {user} AND id = ?";
const REVOKE_KEY: &str = "
UPDATE ajwt_public_key SET revoked_at = coalesce(revoked_at, ?) WHERE user_id = {user} AND id = ?";
const REMOVE_KEY: &str = "DELETE FROM ajwt_public_key WHERE user_id = {user} AND id = ?";

const ADD_TRUST: &str = "
INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at) VALUES ({user}, ?, ?)";
const LIST_TRUSTS: &str = "
SELECT id, jwks_url, last_used_on FROM ajwt_jwks_endpoint_trust WHERE user_id = {user} ORDER BY id DESC";
const TRUSTED_URLS: &str = "
SELECT jwks_url FROM ajwt_jwks_endpoint_trust WHERE user_id IN (SELECT {id} FROM {users} WHERE {active})";
const REMOVE_TRUST: &str = "DELETE FROM ajwt_jwks_endpoint_trust WHERE user_id = {user} AND id = ?";

const KEY_USED: &str = "
UPDATE ajwt_public_key SET last_used_on = greatest(coalesce(last_used_on, ?), ?) WHERE id = ?";
const TRUST_USED: &str = "
UPDATE ajwt_jwks_endpoint_trust SET last_used_on = greatest(coalesce(last_used_on, ?), ?) WHERE id = ?";

pub(super) const ADD_AUDIT: &str = "
INSERT INTO ajwt_audit (at, actor, action, username, detail) VALUES (?, ?, ?, ?, ?)";
pub(super) const AUDIT: &str = "
SELECT id, at, actor, action, username, detail FROM ajwt_audit ORDER BY id DESC LIMIT ?";
