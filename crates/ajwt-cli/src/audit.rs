use ajwt_sqlx::AuditRecord;
use clap::Args;

use crate::{database::DatabaseOptions, failure::Failure, output::Format, time};

const COLUMNS: [&str; 6] = ["id", "at", "actor", "action", "username", "detail"];

/// Shows who changed what, newest first.
#[derive(Args)]
pub(crate) struct Audit {
    /// How many changes
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Audit {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let database = self.database.open().await?;
        let records = database.audit(self.limit).await?;
        database.close().await;
        let row = |record: AuditRecord| {
            vec![
                ("id", record.id.into()),
                ("at", time::text(record.at).into()),
                ("actor", record.actor.into()),
                ("action", record.action.into()),
                ("username", record.username.into()),
                ("detail", record.detail.into()),
            ]
        };
        self.format.write(&COLUMNS, records.into_iter().map(row).collect())
    }
}
