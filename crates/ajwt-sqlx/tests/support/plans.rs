//! What a database would do for a statement of the library, among thousands of rows.
#![allow(dead_code, reason = "each test file uses a part")]

/// A table of users, by the names that it and its columns have in SQL.
pub(crate) struct Users<'a> {
    pub(crate) table: &'a str,
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) active: &'a str,
    /// SQL for the revision.
    pub(crate) revision: &'a str,
}

/// ajwt's own.
pub(crate) const OWN: Users<'static> = Users {
    table: "ajwt_user",
    id: "id",
    name: "username",
    active: "active",
    revision: "SELECT revision FROM ajwt_revision WHERE id = 1",
};

/// SQL for as many numbers, `n`, from 0 on: at most 10,000.
pub(crate) fn numbers(count: usize) -> String {
    let digits: Vec<_> = (0..10).map(|digit| format!("SELECT {digit} AS d")).collect();
    let digits = digits.join(" UNION ALL ");
    let places: Vec<_> = (0..4).map(|place| format!("({digits}) AS d{place}")).collect();
    let places = places.join(" CROSS JOIN ");
    let n = "d0.d + 10 * d1.d + 100 * d2.d + 1000 * d3.d AS n";
    format!("(SELECT {n} FROM {places}) AS numbers WHERE n < {count}")
}

/// A statement of the library as a source has it, for a table of users.
pub(crate) fn statement(source: &str, name: &str, users: &Users<'_>) -> String {
    let mut statement = text(source, name);
    let is_named = if statement.contains("{is_named}") || statement.contains("{user}") {
        text(source, "IS_NAMED")
    } else {
        String::new()
    };
    for (name, value) in [
        ("{user}", "(SELECT {id} FROM {users} WHERE {is_named})"),
        ("{is_named}", is_named.as_str()),
        ("{users}", users.table),
        ("{id}", users.id),
        ("{name}", users.name),
        ("{active}", users.active),
        ("{revision}", users.revision),
    ] {
        statement = statement.replace(name, value);
    }
    statement
}

fn text(source: &str, name: &str) -> String {
    let (_, text) = source.split_once(&format!("const {name}: &str = \"")).expect("the text");
    let (text, _) = text.split_once("\";").expect("its end");
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Each of these tables has a step in the plan, and none reads it whole.
pub(crate) fn assert_searched(plan: &[String], tables: [&str; 3]) {
    for table in tables {
        assert!(plan.iter().any(|step| step.contains(table)), "{table}: {plan:#?}");
        let whole = [
            // In SQLite.
            format!("SCAN {table}"),
            // In PostgreSQL, which quotes a name that has capitals; the last two read rows of all users, the newest
            // first, until there are enough.
            format!("Seq Scan on {table}"),
            format!("Seq Scan on \"{table}\""),
            format!("using {table}_pkey"),
            format!("using \"{table}_pkey\""),
            // In MariaDB.
            format!("{table} ALL "),
            format!("{table} index "),
        ];
        let reads = plan.iter().find(|step| whole.iter().any(|whole| step.contains(whole)));
        assert!(reads.is_none(), "{reads:?}: {plan:#?}");
    }
}
