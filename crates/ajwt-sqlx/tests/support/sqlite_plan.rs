//! What SQLite would do for a statement.

use sqlx::{AssertSqlSafe, Row as _, SqlitePool};

/// The steps, for these values.
pub(crate) async fn plan(pool: &SqlitePool, statement: &str, values: &[&str]) -> Vec<String> {
    let mut explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
    for value in values {
        explain = explain.bind(*value);
    }
    let steps = explain.fetch_all(pool).await.expect("a plan");
    steps.iter().map(|step| step.get("detail")).collect()
}
