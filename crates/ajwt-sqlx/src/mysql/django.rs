//! Django's tables in MySQL and MariaDB. Times there are `DATETIME(6)`, in UTC. Names are compared
//! byte for byte, whatever the column's collation, which is blind to case by default; the first
//! comparison, of texts, is the one that an index may serve.

use crate::{mysql::tables, schema::Statements};

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
    SELECT 1 FROM information_schema.key_column_usage
    WHERE table_schema = database() AND column_name = 'user_id'
        AND table_name IN ('asymmetric_jwt_auth_publickey', 'asymmetric_jwt_auth_jwksendpointtrust')
        AND NOT (referenced_table_schema = database() AND referenced_table_name = 'auth_user'))";

/// The texts of three tables in one column: each may have a collation of its own, of which the server chooses none, so
/// that one is named.
const FIND_USER: &str = "
SELECT 'user' AS kind, 0 AS id, CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin AS text, {active} AS active,
    NULL AS not_before, NULL AS expires_at, NULL AS revision
FROM {users} WHERE {is_named}
UNION ALL
(SELECT 'key', id, LEFT(`key`, 16385), NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_publickey
    WHERE user_id = {user} ORDER BY id DESC LIMIT 32)
UNION ALL
(SELECT 'trust', id, jwks_url, NULL, NULL, NULL, NULL FROM asymmetric_jwt_auth_jwksendpointtrust
    WHERE user_id = {user} ORDER BY id DESC LIMIT 32)";

const ADD_KEY: &str =
    "INSERT INTO asymmetric_jwt_auth_publickey (user_id, `key`, comment) VALUES ({user}, ?, ?)";
const LIST_KEYS: &str = "
SELECT id, LEFT(`key`, 16385), '', comment, 0, NULL, NULL, NULL,
    TIMESTAMPDIFF(MICROSECOND, TIMESTAMP '1970-01-01 00:00:00', last_used_on) DIV 1000
FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} ORDER BY id DESC";
const REMOVE_KEY: &str = "DELETE FROM asymmetric_jwt_auth_publickey WHERE user_id = {user} AND id = ?";

const ADD_TRUST: &str = "
INSERT INTO asymmetric_jwt_auth_jwksendpointtrust (user_id, jwks_url) VALUES ({user}, ?)";
const LIST_TRUSTS: &str = "
SELECT id, jwks_url, TIMESTAMPDIFF(MICROSECOND, TIMESTAMP '1970-01-01 00:00:00', last_used_on) DIV 1000
FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} ORDER BY id DESC";
const TRUSTED_URLS: &str = "
SELECT jwks_url FROM asymmetric_jwt_auth_jwksendpointtrust
WHERE user_id IN (SELECT {id} FROM {users} WHERE {active})";
const REMOVE_TRUST: &str =
    "DELETE FROM asymmetric_jwt_auth_jwksendpointtrust WHERE user_id = {user} AND id = ?";

const KEY_USED: &str = "
UPDATE asymmetric_jwt_auth_publickey SET last_used_on = greatest(
    coalesce(last_used_on, TIMESTAMP '1970-01-01 00:00:00' + INTERVAL ? * 1000 MICROSECOND),
    TIMESTAMP '1970-01-01 00:00:00' + INTERVAL ? * 1000 MICROSECOND) WHERE id = ?";
const TRUST_USED: &str = "
UPDATE asymmetric_jwt_auth_jwksendpointtrust SET last_used_on = greatest(
    coalesce(last_used_on, TIMESTAMP '1970-01-01 00:00:00' + INTERVAL ? * 1000 MICROSECOND),
    TIMESTAMP '1970-01-01 00:00:00' + INTERVAL ? * 1000 MICROSECOND) WHERE id = ?";
