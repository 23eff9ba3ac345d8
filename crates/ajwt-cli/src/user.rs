use ajwt_core::Username;
use ajwt_server::{AdminError, KeyAdmin, UserRecord};
use clap::{Args, Subcommand};

use crate::{
    database::AdminOptions,
    failure::Failure,
    output::{self, Format},
};

/// Adds, lists and changes users.
#[derive(Args)]
pub(crate) struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
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

#[derive(Args)]
struct Named {
    /// The user's name
    name: Username,
    #[command(flatten)]
    admin: AdminOptions,
}

impl User {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let done = match &self.action {
            Action::List { format, admin } => return list(format, admin).await,
            Action::Add(user) => {
                let name = user.change(async |users, name| users.add_user(name).await).await?;
                format!("added the user {name}; ajwt key add {name} FILE gives it a key")
            }
            Action::Disable(user) => {
                let name = user.change(async |users, name| users.set_user_active(name, false).await).await?;
                format!("disabled the user {name}")
            }
            Action::Enable(user) => {
                let name = user.change(async |users, name| users.set_user_active(name, true).await).await?;
                format!("enabled the user {name}")
            }
            Action::Remove(user) => {
                let name = user.change(async |users, name| users.remove_user(name).await).await?;
                format!("removed the user {name}")
            }
        };
        output::note(&done);
        Ok(())
    }
}

impl Named {
    /// Makes a change of this user, whose name it returns as it can be shown.
    async fn change(
        &self,
        change: impl AsyncFnOnce(&dyn KeyAdmin, &Username) -> Result<(), AdminError>,
    ) -> Result<String, Failure> {
        let database = self.admin.open().await?;
        change(database.admin(), &self.name).await?;
        database.close().await;
        Ok(output::printable(self.name.as_str()).to_string())
    }
}

async fn list(format: &Format, admin: &AdminOptions) -> Result<(), Failure> {
    let database = admin.open().await?;
    let users = database.admin().users().await?;
    database.close().await;
    let row = |user: UserRecord| vec![("username", user.username.into()), ("active", user.active.into())];
    format.write(&["username", "active"], users.into_iter().map(row).collect())
}
