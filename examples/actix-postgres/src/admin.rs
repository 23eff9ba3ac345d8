use std::{error::Error, fs};

use ajwt_core::Username;
use ajwt_server::{AdminError, KeyAdmin as _, NewKey};
use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository};

/// Makes the tables of a new service.
pub(crate) async fn set_up(database_url: &str) -> Result<(), Box<dyn Error>> {
    let repository = PostgresRepository::connect(database_url).await?;
    repository.migrate().await?;
    // Our word that no token was used before: it spares the service 25 s of 503.
    PostgresNonceBackend::new(repository.pool().clone()).initialise().await?;
    Ok(())
}

/// Lets the owner of a key call as this user, who is made if need be. The file is a `.pub` or a PEM.
pub(crate) async fn add_key(database_url: &str, username: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let username = Username::new(username)?;
    let key = NewKey::from_text(fs::read(file)?)?;
    // Who made a change is in the audit table.
    let repository = PostgresRepository::connect(database_url).await?.with_actor("actix-postgres");
    match repository.add_user(&username).await {
        Ok(_) | Err(AdminError::UserExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    repository.add_key(&username, &key).await?;
    Ok(())
}
