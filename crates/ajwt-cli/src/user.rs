use ajwt_core::Username;
use ajwt_server::UserRecord;
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
        let shown = |name: &Username| output::printable(name.as_str());
        let done = match &self.action {
            Action::List { format, admin } => return list(format, admin).await,
            Action::Add(Named { name, admin }) => {
                admin.with(async |store| store.add_user(name).await).await?;
                let name = shown(name);
                format!("added the user {name}; ajwt key add {name} FILE gives it a key")
            }
            Action::Disable(Named { name, admin }) => {
                admin.with(async |store| store.set_user_active(name, false).await).await?;
                format!("disabled the user {}", shown(name))
            }
            Action::Enable(Named { name, admin }) => {
                admin.with(async |store| store.set_user_active(name, true).await).await?;
                format!("enabled the user {}", shown(name))
            }
            Action::Remove(Named { name, admin }) => {
                admin.with(async |store| store.remove_user(name).await).await?;
                format!("removed the user {}", shown(name))
            }
        };
        output::note(&done);
        Ok(())
    }
}

async fn list(format: &Format, admin: &AdminOptions) -> Result<(), Failure> {
    let users = admin.with(async |store| store.users().await).await?;
    let row = |user: UserRecord| vec![("username", user.username.into()), ("active", user.active.into())];
    format.write(&["username", "active"], users.into_iter().map(row).collect())
}
