//! Data goes to standard output, everything else to standard error.

use std::io::{self, Write as _};

use comfy_table::{Table, presets};
use serde_json::{Map, Value};

use crate::failure::{Failure, written};

/// Characters that [`beginning`] leaves of a text.
const MAX_SHOWN: usize = 200;

/// A row of a table: names of columns and what stands in them.
pub(crate) type Row = Vec<(&'static str, Value)>;

/// How a table is written.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Writes JSON: an array of objects
    #[arg(long)]
    json: bool,
}

impl Format {
    /// Writes rows under these columns.
    pub(crate) fn write(self, columns: &[&'static str], rows: Vec<Row>) -> Result<(), Failure> {
        if self.json {
            let object = |row: Row| {
                let members = row.into_iter().map(|(name, value)| (name.to_owned(), value));
                Value::Object(members.collect::<Map<_, _>>())
            };
            return line(&format!("{:#}", Value::Array(rows.into_iter().map(object).collect())));
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|column| column.to_uppercase().replace('_', " ")));
        for row in rows {
            table.add_row(row.iter().map(|(_, value)| cell(value)));
        }
        // Every line begins with the padding of its first cell.
        text(&table.trim_fmt().lines().fold(String::new(), |mut all, line| {
            all.extend([line.strip_prefix(' ').unwrap_or(line), "\n"]);
            all
        }))
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Text that cannot mislead whoever reads it on a terminal: what does not print, and what changes the
/// direction of writing, is escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            c => printable.extend(c.escape_debug()),
        }
    }
    printable
}

/// The beginning of a text that somebody else has made as long as he liked, as [`printable`] has it.
pub(crate) fn beginning(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN).and_then(|(end, _)| text.get(..end)) {
        Some(beginning) => printable(beginning) + "..",
        None => printable(text),
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    written(writeln!(output, "{text}").and_then(|()| output.flush()))
}

/// Writes a text, with its line ends, to standard output.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    written(output.write_all(bytes).and_then(|()| output.flush()))
}

/// Goes on where whoever reads the output has closed it: it has had enough, or does not want to know.
pub(crate) fn unless_closed(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure::OutputClosed) => Ok(()),
        result => result,
    }
}

/// Tells something on standard error.
pub(crate) fn note(text: &str) {
    // Where even that is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "ajwt: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}b \"c\" caf\u{e9}"), "a\\u{1b}[2J\\u{202e}b \"c\" caf\u{e9}");
    }

    #[test]
    fn what_is_long_is_cut() {
        let whole = "\u{e9}".repeat(MAX_SHOWN - 1) + "\n";
        assert_eq!(beginning(&whole), whole.replace('\n', "\\n"));
        assert_eq!(beginning(&(whole.clone() + "b")), whole.replace('\n', "\\n") + "..");
    }
}
