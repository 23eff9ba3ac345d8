use ajwt_core::Username;
use clap::{Args, Subcommand};

use crate::{
    database::AdminOptions,
    failure::Failure,
    output::{self, Format},
};

/// Adds, lists and changes users.
#[derive(Args, Debug)]
pub(crate) struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds an active user
    Add(Named),
    /// Lists all users
    List {
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Refuses all tokens of a user, whose keys stay on record
    Disable(Named),
    /// Ends that
    Enable(Named),
    /// Removes a user, with its keys and trusted URLs
    Remove(Named),
}

#[derive(Args, Debug)]
struct Named {
    /// The user's name
    #[arg(value_parser = username)]
    name: Username,
    #[command(flatten)]
    admin: AdminOptions,
}

/// Reads a name from the command line.
pub(crate) fn username(text: &str) -> Result<Username, ajwt_core::ClaimError> {
    Username::new(text)
}

impl User {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let (Action::Add(Named { name, admin })
        | Action::Disable(Named { name, admin })
        | Action::Enable(Named { name, admin })
        | Action::Remove(Named { name, admin })) = &self.action
        else {
            return self.list().await;
        };
        let database = admin.open().await?;
        let users = database.admin();
        match &self.action {
            Action::Add(_) => users.add_user(name).await?,
            Action::Disable(_) => users.set_user_active(name, false).await?,
            Action::Enable(_) => users.set_user_active(name, true).await?,
            Action::Remove(_) => users.remove_user(name).await?,
            Action::List { .. } => {}
        }
        database.close().await;
        let name = output::printable(name.as_str());
        output::note(&match &self.action {
            Action::Add(_) => format!("added the user {name}; ajwt key add {name} FILE gives it a key"),
            Action::Disable(_) => format!("disabled the user {name}"),
            Action::Enable(_) => format!("enabled the user {name}"),
            Action::Remove(_) | Action::List { .. } => format!("removed the user {name}"),
        });
        Ok(())
    }

    async fn list(&self) -> Result<(), Failure> {
        let Action::List { format, admin } = &self.action else { return Ok(()) };
        let database = admin.open().await?;
        let users = database.admin().users().await?;
        database.close().await;
        let row = |user: ajwt_server::UserRecord| {
            vec![("username", user.username.into()), ("active", user.active.into())]
        };
        format.write(&["username", "active"], users.into_iter().map(row).collect())
    }
}
