//! The command line. Each command's options stand with the command.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use clap::{
    Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};

use crate::{
    audit::Audit,
    explain::Explain,
    failure::Failure,
    gateway::{self, Gateway},
    key::Key,
    keygen::Keygen,
    manual::{Completions, Manual},
    migrate::Migrate,
    nonce::Nonce,
    request::Request,
    token::Token,
    trust::Trust,
    user::User,
};

/// The exit code of a command that did its work, and whose answer is no.
pub(crate) const REFUSED: u8 = 3;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it could not be done; one line on standard error says why
  2  the command line is wrong
  3  done, and the answer is no: explain found that the token would be refused, or the server
     answered a request with a redirect, with 4xx or 5xx, or with a header grpc-status other than 0";

/// Proves to services who calls them, with a JWT that works once
#[derive(Parser)]
#[command(name = "ajwt", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Command {
    Keygen(Keygen),
    Key(Key),
    Token(Token),
    Explain(Explain),
    Request(Request),
    Migrate(Migrate),
    User(User),
    Trust(Trust),
    Audit(Audit),
    Nonce(Nonce),
    Gateway(Gateway),
    Completions(Completions),
    #[command(name = "man")]
    Manual(Manual),
}

/// Reads the command line, and the configuration that it names. Ends the program where it is wrong,
/// or asks for help.
pub(crate) fn parse() -> Result<Command, Failure> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = command().try_get_matches_from(&arguments);
    let variable = match &parsed {
        Ok(matches) => empty_variable(&Cli::command(), matches),
        // What is missing was to come from the variable, perhaps.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let found = command().ignore_errors(true).try_get_matches_from(&arguments);
            found.ok().and_then(|matches| empty_variable(&Cli::command(), &matches))
        }
        Err(_) => None,
    };
    // Before the file is read, which does not speak for an empty variable.
    if let Some(variable) = variable {
        return Err(Failure::new(format!("{variable} is empty: give it a value, or unset it")));
    }
    let mut matches = parsed.unwrap_or_else(|error| error.exit());
    if let Some((gateway::COMMAND, given)) = matches.subcommand()
        && let Some(configured) = gateway::with_configuration(given, &arguments, command())?
    {
        matches = configured;
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok(cli.command)
}

/// The name of a variable that is empty, as `${NAME:-}` of a compose file makes it, in which nothing else was given. What
/// was to have an audience, or a file of settings, must not go on without.
fn empty_variable(command: &clap::Command, matches: &ArgMatches) -> Option<String> {
    let is_given =
        |argument: &Arg| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
    let variable = |argument: &Arg| argument.get_env().filter(|name| is_empty(name)).map(OsStr::to_owned);
    let found = command.get_arguments().filter(|argument| !is_given(argument)).find_map(variable);
    match found {
        Some(variable) => Some(variable.to_string_lossy().into_owned()),
        None => {
            let (name, matches) = matches.subcommand()?;
            empty_variable(command.find_subcommand(name)?, matches)
        }
    }
}

fn is_empty(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// The command line, whose help shows no values of variables: some hold passwords. Those that are empty are left out: see
/// [`empty_variable`].
pub(crate) fn command() -> clap::Command {
    fn with_variables(argument: Arg) -> Arg {
        let argument = argument.hide_env_values(true);
        if argument.get_env().is_some_and(is_empty) { argument.env(None::<&'static str>) } else { argument }
    }
    fn adjusted(command: clap::Command) -> clap::Command {
        command.mut_args(with_variables).mut_subcommands(adjusted)
    }
    adjusted(Cli::command())
}

impl Command {
    pub(crate) async fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Explain(explain) => return explain.run().await,
            Self::Request(request) => return request.run().await,
            Self::Keygen(keygen) => keygen.run()?,
            Self::Key(key) => key.run().await?,
            Self::Token(token) => token.run()?,
            Self::Migrate(migrate) => migrate.run().await?,
            Self::User(user) => user.run().await?,
            Self::Trust(trust) => trust.run().await?,
            Self::Audit(audit) => audit.run().await?,
            Self::Nonce(nonce) => nonce.run().await?,
            Self::Gateway(gateway) => gateway.run().await?,
            Self::Completions(completions) => completions.run()?,
            Self::Manual(manual) => manual.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::{
        database::{AdminOptions, DatabaseOptions},
        nonce::{NonceOptions, Store},
        private_key::{Access, SigningKey},
    };

    /// Of a type with `Debug` it is not known which of the two is meant, and nothing of this compiles.
    trait Unprinted<Meant> {
        fn check() {}
    }

    impl<T> Unprinted<()> for T {}

    impl<T: Debug> Unprinted<u8> for T {}

    #[test]
    fn what_may_hold_a_password_or_a_token_prints_nothing() {
        <Access as Unprinted<_>>::check();
        <SigningKey as Unprinted<_>>::check();
        <Keygen as Unprinted<_>>::check();
        <Key as Unprinted<_>>::check();
        <Token as Unprinted<_>>::check();
        <DatabaseOptions as Unprinted<_>>::check();
        <AdminOptions as Unprinted<_>>::check();
        <NonceOptions as Unprinted<_>>::check();
        <Store<'_> as Unprinted<_>>::check();
        <Explain as Unprinted<_>>::check();
        <Request as Unprinted<_>>::check();
        <Command as Unprinted<_>>::check();
    }
}
