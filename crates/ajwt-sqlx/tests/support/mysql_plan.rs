//! What MariaDB would do for a statement.
#![allow(dead_code, reason = "each test file uses a part")]

use sqlx::{
    AssertSqlSafe, MySql, MySqlPool, Row as _,
    mysql::{MySqlArguments, MySqlRow},
    query::Query,
};

/// A statement that is explained, and its values.
pub(crate) type Explain = Query<'static, MySql, MySqlArguments>;

/// Of each step: table, how it is read, by which index, and what is done besides.
pub(crate) async fn plan(
    pool: &MySqlPool,
    statement: &str,
    bind: impl FnOnce(Explain) -> Explain,
) -> Vec<String> {
    let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN {statement}")));
    let steps = bind(explain).fetch_all(pool).await.expect("a plan");
    let shown = |step: &MySqlRow| {
        let text = |column| step.get::<Option<String>, _>(column).unwrap_or_default();
        format!("{} {} {} {}", text("table"), text("type"), text("key"), text("Extra"))
    };
    steps.iter().map(shown).collect()
}

/// How a statement finds the user `user777` by a name that may be of any type.
pub(crate) async fn plan_of_finding(pool: &MySqlPool, find_user: &str) -> Vec<String> {
    // As text and as bytes, which are compared one after the other.
    let bind = |explain: Explain| explain.bind("user777").bind(b"user777".as_slice());
    plan(pool, find_user, |explain| bind(bind(bind(explain)))).await
}
