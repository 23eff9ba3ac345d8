//! What PostgreSQL would do for a statement.

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, postgres::PgArguments, query::Query};

/// A statement that is explained, and its values.
pub(crate) type Explain = Query<'static, Postgres, PgArguments>;

/// The lines that it prints.
pub(crate) async fn plan(
    pool: &PgPool,
    statement: &str,
    bind: impl FnOnce(Explain) -> Explain,
) -> Vec<String> {
    let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN {statement}")));
    let lines = bind(explain).fetch_all(pool).await.expect("a plan");
    lines.iter().map(|line| line.get(0)).collect()
}
