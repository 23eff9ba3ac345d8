use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use crate::schema::Statements;

/// A users table of the application's own, beside which ajwt keeps keys and trusts.
///
/// All names are exactly as the database has them, case and all: they are quoted.
///
/// ```
/// use ajwt_sqlx::{Schema, UserTable};
///
/// let accounts =
///     UserTable::new("accounts").with_id("account_id").with_name("email").with_active("enabled");
/// let schema = Schema::with_users(accounts);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTable {
    namespace: Option<String>,
    table: String,
    id: String,
    name: String,
    active: Option<String>,
}

impl UserTable {
    /// The table of this name, with the columns `id`, `username` and `active`.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            namespace: None,
            table: table.into(),
            id: "id".to_owned(),
            name: "username".to_owned(),
            active: Some("active".to_owned()),
        }
    }

    /// Whether it has this name, wherever it is.
    pub(crate) fn is_table(&self, name: &str) -> bool {
        self.table == name
    }

    /// In this schema (PostgreSQL) or database (MySQL, SQLite's attached ones). Without it the
    /// connection decides.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// With this primary key, of any type: an integer, a UUID, a text. The column `user_id` of the
    /// tables of keys and trusts refers to it.
    #[must_use]
    pub fn with_id(mut self, column: impl Into<String>) -> Self {
        self.id = column.into();
        self
    }

    /// With names in this column: of texts, unique, and with an index. Whatever its collation, names
    /// are compared byte for byte; a name that two rows have authenticates nobody, and
    /// [`KeyAdmin`](ajwt_server::KeyAdmin) fails for it; a row without a name is no user.
    #[must_use]
    pub fn with_name(mut self, column: impl Into<String>) -> Self {
        self.name = column.into();
        self
    }

    /// With this column of booleans that says who may authenticate. `NULL` is no. On MySQL it may hold numbers
    /// of any type, `BIT` too, where 0 is no; a text or an `ENUM` is no, whatever it says.
    #[must_use]
    pub fn with_active(mut self, column: impl Into<String>) -> Self {
        self.active = Some(column.into());
        self
    }

    /// With no such column: who is in the table may authenticate.
    #[must_use]
    pub fn without_active(mut self) -> Self {
        self.active = None;
        self
    }

    pub(crate) const fn has_active(&self) -> bool {
        self.active.is_some()
    }

    /// The statements with this table put in. In braces stand: `users`, the table; `id`, `name` and
    /// `active`, its columns; `is_named`, the condition that a row has the name asked for; `user`, the
    /// id of that row; and `revision`.
    pub(crate) fn fill(
        &self,
        dialect: &Dialect,
        statements: &Statements<&'static str>,
        revision: &str,
    ) -> Statements {
        let quoted = |name: &str| {
            let doubled = name.replace(dialect.quote, &format!("{0}{0}", dialect.quote));
            format!("{0}{doubled}{0}", dialect.quote)
        };
        let namespace = self.namespace.as_deref().map(|name| quoted(name) + ".").unwrap_or_default();
        let users = namespace + &quoted(&self.table);
        let (id, name) = (quoted(&self.id), quoted(&self.name));
        let active = self.active.as_deref().map_or_else(|| "TRUE".to_owned(), quoted);
        let is_named = fill(dialect.is_named, &[("name", &name)]);
        let user = format!("(SELECT {id} FROM {users} WHERE {is_named})");
        let values = [
            ("users", &*users),
            ("id", &*id),
            ("name", &*name),
            ("active", &*active),
            ("is_named", &*is_named),
            ("user", &*user),
            ("revision", revision),
        ];
        // Made of this crate's own texts and of quoted names.
        statements.map(|template| AssertSqlSafe(fill(template, &values)).into_sql_str())
    }
}

/// How a database writes what depends on the users table.
pub(crate) struct Dialect {
    /// Stands before and after the name of a table or column, and twice for itself within.
    pub(crate) quote: char,
    /// The condition that the column `{name}` has the name asked for, byte for byte, whatever its type
    /// and collation. The first comparison is the one that an index may serve.
    pub(crate) is_named: &'static str,
}

/// A text with what stands in braces replaced, in one pass: what was put in is not looked at.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        filled.push_str(before);
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => filled.push_str(value),
            None => filled.extend(["{", name, "}"]),
        }
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_never_filled() {
        let dialect = Dialect { quote: '"', is_named: "{name} = ?1" };
        let users = UserTable::new("{revision}\" --").with_id("{user}").with_name("{").in_namespace("a.b");
        let statement = "{active} {user} {unknown} {revision} {";
        let statements = Statements { find_user: statement, ..Statements::default() };
        let filled = users.fill(&dialect, &statements, "NULL");
        assert_eq!(
            filled.find_user.as_str(),
            r#""active" (SELECT "{user}" FROM "a.b"."{revision}"" --" WHERE "{" = ?1) {unknown} NULL {"#
        );
    }
}
