use std::error::Error;

use ajwt_core::{PublicKey, Username};
use ajwt_server::{KeyAdmin as _, NewKey};
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};

/// The administrator: sets a new database up, and registers the public halves of a user's keys.
pub async fn register(
    repository: &SqliteRepository,
    username: &str,
    keys: &[&PublicKey],
) -> Result<(), Box<dyn Error>> {
    let username = Username::new(username)?;
    repository.migrate().await?;
    // Said once, of a service that is new: no token was used before.
    SqliteNonceBackend::new(repository.pool().clone()).initialise().await?;
    repository.add_user(&username).await?;
    for key in keys {
        repository.add_key(&username, &NewKey::of_key((*key).clone())).await?;
    }
    Ok(())
}
