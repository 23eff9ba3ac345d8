//! The migration that applications copy makes the same tables as ajwt's own first one, but for whose users
//! their keys refer to.

/// The statements of a migration, each on one line, without comments.
fn statements(sql: &str) -> Vec<String> {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    text.split(';').map(|statement| statement.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

#[test]
fn tables_of_keys_and_trusts_are_those_of_ajwt() {
    for (database, own, copied) in [
        (
            "sqlite",
            include_str!("../migrations/sqlite/0001_tables.sql"),
            include_str!("../migrations/sqlite/beside/keys_and_trusts.sql"),
        ),
        (
            "postgres",
            include_str!("../migrations/postgres/0001_tables.sql"),
            include_str!("../migrations/postgres/beside/keys_and_trusts.sql"),
        ),
        (
            "mysql",
            include_str!("../migrations/mysql/0001_tables.sql"),
            include_str!("../migrations/mysql/beside/keys_and_trusts.sql"),
        ),
    ] {
        assert_eq!(copied.matches("REFERENCES accounts (id)").count(), 2, "{database}: keys and trusts");
        let copied = copied.replace("REFERENCES accounts (id)", "REFERENCES ajwt_user (id)");
        let of_keys_and_trusts = |statement: &String| {
            ["ajwt_public_key", "ajwt_jwks_endpoint_trust"].iter().any(|table| {
                statement.starts_with(&format!("CREATE TABLE {table} "))
                    || statement.contains(&format!(" ON {table} "))
            })
        };
        // A statement that failed half-way is run again on MySQL.
        let own = statements(&own.replace("CREATE TABLE IF NOT EXISTS", "CREATE TABLE"));
        let own: Vec<_> = own.into_iter().filter(of_keys_and_trusts).collect();
        assert_eq!(statements(&copied), own, "{database}");
    }
}
