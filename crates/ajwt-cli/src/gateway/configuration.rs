//! The configuration file: the options of the command line under the same names.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgMatches, parser::ValueSource};
use reqwest::Url;
use toml::{Table, Value};

use super::COMMAND;
use crate::{failure::Failure, input, output};

/// Bytes that the file may have.
const MAX_LEN: usize = 1024 * 1024;

/// What is given by these arguments, and by the file's options where neither the arguments nor the environment have
/// them. `None`: no file is named.
pub(crate) fn with_configuration(
    given: &ArgMatches,
    arguments: &[OsString],
    cli: clap::Command,
) -> Result<Option<ArgMatches>, Failure> {
    let Some(path) = given.get_one::<PathBuf>("config") else { return Ok(None) };
    let wrong = |problem: String| Failure::new(format!("the configuration {}: {problem}", path.display()));
    let text = input::read(path, MAX_LEN)?;
    let text = std::str::from_utf8(&text).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    let table: Table = text.parse().map_err(|error| wrong(toml_problem(&error, text)))?;
    // A group may well be that of the service.
    if let Some(mode) = input::mode(path)
        && mode & 0o004 != 0
        && table.values().filter_map(values).flatten().any(|value| holds_password(&value))
    {
        output::note(&format!(
            "the configuration {path} holds a password and has mode {mode:04o}, so everybody on this host can read it: \
             chmod o-r {path}",
            path = path.display()
        ));
    }

    let options = cli.find_subcommand(COMMAND);
    let mut configured = Vec::new();
    for (name, value) in &table {
        let option = options.and_then(|options| {
            options.get_arguments().find(|option| option.get_long() == Some(name) && name != "config")
        });
        let Some(option) = option else {
            return Err(wrong(format!("{name:?} is no option; ajwt gateway --help lists them")));
        };
        let is_given = given
            .value_source(option.get_id().as_str())
            .is_some_and(|source| matches!(source, ValueSource::CommandLine | ValueSource::EnvVariable));
        if !is_given {
            let values = values(value)
                .ok_or_else(|| wrong(format!("{name}: a text, a number, true or false is due")))?;
            // Of an audience it would be as good as none.
            if values.is_empty() {
                return Err(wrong(format!("{name} is empty: give it a value, or leave it out")));
            }
            let takes_value = option.get_action().takes_values();
            for value in values {
                configured.extend(argument(name, &value, takes_value).map_err(wrong)?);
            }
        }
    }
    // After the name of the program and that of the command.
    let (names, rest) = arguments.split_at_checked(2).unwrap_or((arguments, &[]));
    // Without the file they were good.
    let matches = cli.try_get_matches_from(names.iter().chain(&configured).chain(rest));
    matches.map(Some).map_err(|error| wrong(clap_problem(&error)))
}

/// Where it is wrong and why. Not the line itself, which may hold a password.
fn toml_problem(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.split('\n').count();
    format!("line {line} is no TOML: {}", error.message())
}

/// What is wrong, in one line, without what is said of command lines: how they are written, and where help is.
fn clap_problem(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let problem = text.split("\n\n").next().unwrap_or_default();
    let problem = problem.strip_prefix("error: ").unwrap_or(problem);
    problem.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn argument(name: &str, value: &str, takes_value: bool) -> Result<Option<OsString>, String> {
    match (takes_value, value) {
        (true, value) => Ok(Some(format!("--{name}={value}").into())),
        (false, "true") => Ok(Some(format!("--{name}").into())),
        // What is not given is false already.
        (false, "false") => Ok(None),
        (false, _) => Err(format!("{name}: true or false is due")),
    }
}

/// The values of an option: several in an array.
fn values(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(truth) => Some(vec![truth.to_string()]),
        Value::Array(values) => {
            let values: Option<Vec<_>> = values.iter().map(self::values).collect();
            values.map(|values| values.concat())
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// Whether a value is a URL with a password, or lists one: those of several servers are separated by commas.
fn holds_password(value: &str) -> bool {
    let has_one = |text: &str| {
        Url::parse(text).is_ok_and(|url| {
            url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
        })
    };
    has_one(value) || value.split(',').any(has_one)
}
