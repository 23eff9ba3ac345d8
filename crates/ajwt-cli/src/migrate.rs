use clap::Args;

use crate::{database::DatabaseOptions, failure::Failure, output};

/// Makes or updates the tables.
#[derive(Args, Debug)]
pub(crate) struct Migrate {
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Migrate {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let database = self.database.open_to_migrate(true).await?;
        database.migrate().await?;
        database.close().await;
        output::note("the tables are up to date");
        Ok(())
    }
}
