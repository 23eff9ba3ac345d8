use std::{collections::HashSet, path::PathBuf};

use ajwt_core::{PublicKey, Timestamp, Username};
use ajwt_server::{AdminError, Clock as _, KeyAdmin, KeyRecord, MAX_KEYS, NewKey, SystemClock};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use self::show::Show;
use crate::{
    database::{AdminOptions, IntoFailure as _},
    failure::Failure,
    input,
    output::{self, Format, Row},
    time,
};

mod show;

const COLUMNS: [&str; 8] =
    ["id", "type", "fingerprint", "comment", "created_at", "expires_at", "revoked_at", "last_used_on"];

/// Bytes that an authorized_keys file may have.
const MAX_AUTHORIZED_KEYS_LEN: usize = 16 * 1024 * 1024;

/// Users that are asked, one by one, whether they have a key that has ended for another.
const ASKED: usize = 1000;

/// How to find them otherwise.
const A_KEY_THAT_LEAKED: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/database.md#a-key-that-leaked");

/// Shows keys, and adds, lists and changes those of a user.
#[derive(Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows the public half of a key of any format
    Show(Show),
    /// Adds a public key to a user
    Add {
        user: Username,
        /// The public key: PEM, OpenSSH or JWK; - is standard input
        file: PathBuf,
        /// Which system uses the key, who is responsible
        #[arg(long)]
        comment: Option<String>,
        /// When it ends: 2027-01-31 or 2027-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time::parse)]
        expires: Option<Timestamp>,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Adds the keys of an authorized_keys file to a user
    Import {
        user: Username,
        /// The file; - is standard input
        #[arg(long, value_name = "FILE")]
        authorized_keys: PathBuf,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Lists the keys of a user, newest first
    List {
        user: Username,
        #[command(flatten)]
        format: Format,
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Sets when a key ends
    Expire {
        #[command(flatten)]
        key: OfUser,
        /// 2027-01-31 or 2027-01-31T12:00:00Z, or never
        #[arg(value_parser = expiry)]
        time: Expiry,
    },
    /// Ends a key for ever; it stays on record
    Revoke(OfUser),
    /// Removes a key from the record
    Remove(OfUser),
}

#[derive(Args)]
struct OfUser {
    user: Username,
    /// The key's id, as ajwt key list tells it
    id: i64,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Clone, Copy, Debug)]
struct Expiry(Option<Timestamp>);

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    let time = time::parse(text).map_err(|due| format!("{due}; never is possible, too"))?;
    Ok(Expiry(Some(time)))
}

impl Key {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        match &self.action {
            Action::Show(show) => show.run(),
            Action::Add { user, file, comment, expires, format, admin } => {
                let key = input::public_key(file)?;
                let key = match comment {
                    Some(comment) => key.with_comment(comment)?,
                    None => key,
                };
                let key = key.with_validity(None, *expires);
                let record = admin.with(async |store| store.add_key(user, &key).await).await?;
                format.write(&COLUMNS, vec![row(&record)])
            }
            Action::Import { user, authorized_keys, format, admin } => {
                let text = input::read(authorized_keys, MAX_AUTHORIZED_KEYS_LEN)?;
                let of_file =
                    Failure::of(format!("{} is not usable, and no key was added", authorized_keys.display()));
                let keys = NewKey::from_authorized_keys(&*text).map_err(of_file)?;
                let records = admin.with(async |store| import(store, user, &keys).await).await?;
                format.write(&COLUMNS, records.iter().map(row).collect())
            }
            Action::List { user, format, admin } => {
                let records = admin.with(async |store| store.keys(user).await).await?;
                format.write(&COLUMNS, records.iter().map(row).collect())
            }
            Action::Expire { key: OfUser { user, id, admin }, time: Expiry(time) } => {
                let keys = admin
                    .with(async |store| {
                        store.set_key_expiry(user, *id, *time).await?;
                        store.keys(user).await
                    })
                    .await?;
                let is_revoked = keys.iter().any(|key| key.id == *id && key.revoked_at.is_some());
                output::note(&match time {
                    // Whatever its expiry is now.
                    _ if is_revoked => format!("key {id} is revoked, and stays so"),
                    Some(time) => format!("key {id} ends at {}", time::text(*time)),
                    None => format!("key {id} does not expire"),
                });
                Ok(())
            }
            Action::Revoke(OfUser { user, id, admin }) => {
                let trusts = admin
                    .with(async |store| {
                        let ended = fingerprint_of(store, user, *id).await;
                        store.revoke_key(user, *id).await?;
                        output::note(&format!("revoked key {id}"));
                        note_where_it_is_too(store, user, ended).await;
                        store.trusts(user).await
                    })
                    .await?;
                if !trusts.is_empty() {
                    output::note(
                        "the user has trusted URLs (ajwt trust list): a key that one of them publishes goes on working",
                    );
                }
                Ok(())
            }
            Action::Remove(OfUser { user, id, admin }) => {
                admin
                    .with(async |store| {
                        let ended = fingerprint_of(store, user, *id).await;
                        store.remove_key(user, *id).await?;
                        output::note(&format!("removed key {id}"));
                        note_where_it_is_too(store, user, ended).await;
                        Ok::<_, AdminError>(())
                    })
                    .await
            }
        }
    }
}

/// Adds the keys that the user does not have. A key that it has is no error, so that a file can be
/// imported again when it has grown, or when the database went away in the middle. More than count are an error before
/// the first is added.
async fn import(admin: &dyn KeyAdmin, user: &Username, keys: &[NewKey]) -> Result<Vec<KeyRecord>, Failure> {
    let known = admin.keys(user).await.map_err(AdminError::into_failure)?;
    let counting = known.iter().filter(|record| record.revoked_at.is_none()).count();
    let revoked: HashSet<String> = known
        .iter()
        .filter(|record| record.revoked_at.is_some())
        .map(|record| record.fingerprint.clone())
        .collect();
    let mut known: HashSet<String> = known.into_iter().map(|record| record.fingerprint).collect();
    let fingerprints = || keys.iter().map(|key| key.key().fingerprint().as_str());
    let new = fingerprints().filter(|key| !known.contains(*key)).collect::<HashSet<_>>().len();
    if new > 0 && counting.saturating_add(new) > MAX_KEYS {
        return Err(Failure::new(format!(
            "no key was added: {new} of the file are new, the user has {counting} that are not revoked, and at most \
             {MAX_KEYS} of a user count; revoke or remove keys (ajwt key list), or shorten the file"
        )));
    }
    let mut added = Vec::new();
    // Nothing shows where there is no terminal.
    let progress = ProgressBar::new(u64::try_from(keys.len()).unwrap_or(u64::MAX));
    for key in progress.wrap_iter(keys.iter()) {
        if !known.insert(key.key().fingerprint().as_str().to_owned()) {
            continue;
        }
        match admin.add_key(user, key).await {
            Ok(record) => added.push(record),
            // Somebody else was faster.
            Err(AdminError::DuplicateKey { .. }) => {}
            Err(error) => {
                let done =
                    format!("{} of {} keys were added; do it again to add the rest", added.len(), keys.len());
                return Err(Failure::of(done)(error));
            }
        }
    }
    progress.finish_and_clear();
    for key in fingerprints().filter(|key| revoked.contains(*key)) {
        output::note(&format!("the key {key} is revoked, and stays so"));
    }
    let others = if added.len() < keys.len() { "; the user has the others already" } else { "" };
    output::note(&format!("added {} of {} keys{others}", added.len(), keys.len()));
    Ok(added)
}

/// The fingerprint of a key that is about to end. `None`: there is none, or it is no usable key.
async fn fingerprint_of(
    admin: &dyn KeyAdmin,
    user: &Username,
    id: i64,
) -> Result<Option<String>, AdminError> {
    let keys = admin.keys(user).await?;
    Ok(keys.iter().find(|record| record.id == id).and_then(fingerprint))
}

/// By its text, whatever the row says of it.
fn fingerprint(record: &KeyRecord) -> Option<String> {
    let (key, _) = PublicKey::from_text(&record.text).ok()?;
    Some(key.fingerprint().as_str().to_owned())
}

/// Tells by what rows a key goes on working that has ended. That they could not be read is no reason to leave a key as
/// it is.
async fn note_where_it_is_too(
    admin: &dyn KeyAdmin,
    user: &Username,
    ended: Result<Option<String>, AdminError>,
) {
    let noted = match ended {
        Ok(Some(ended)) => note_other_rows(admin, user, &ended).await,
        ended => ended.map(drop),
    };
    if noted.is_err() {
        output::note(&format!(
            "the other keys could not all be read; see whether one of them is the same: {A_KEY_THAT_LEAKED}"
        ));
    }
}

async fn note_other_rows(admin: &dyn KeyAdmin, user: &Username, ended: &str) -> Result<(), AdminError> {
    // Django's table may hold it twice, and what plain SQL adds may have any fingerprint.
    for id in rows_of(admin, user, ended).await? {
        output::note(&format!("key {id} is the same one, and goes on working until it is ended, too"));
    }
    let users = admin.users().await?;
    if users.len() > ASKED {
        output::note(&format!(
            "there are too many users to see whether another one has the same key: {A_KEY_THAT_LEAKED}"
        ));
        return Ok(());
    }
    // A name that nobody can claim has no key that works.
    let others = users.iter().filter_map(|record| Username::new(record.username.as_str()).ok());
    for other in others.filter(|other| other != user) {
        for id in rows_of(admin, &other, ended).await? {
            let other = output::printable(other.as_str());
            output::note(&format!("key {id} of the user {other} is the same one: end it there, too"));
        }
    }
    Ok(())
}

/// A user's rows of a key that have not ended.
async fn rows_of(admin: &dyn KeyAdmin, user: &Username, ended: &str) -> Result<Vec<i64>, AdminError> {
    let now = SystemClock::new().now();
    let has_ended = |record: &KeyRecord| {
        record.revoked_at.is_some() || record.expires_at.is_some_and(|expires_at| expires_at <= now)
    };
    let keys = admin.keys(user).await?;
    let same = keys.iter().filter(|record| !has_ended(record));
    let same = same.filter(|record| fingerprint(record).is_some_and(|other| other == ended));
    Ok(same.map(|record| record.id).collect())
}

fn row(record: &KeyRecord) -> Row {
    let key_type = PublicKey::from_text(&record.text).map(|(key, _)| key.key_type().to_string());
    vec![
        ("id", record.id.into()),
        // A row that another program wrote may hold anything.
        ("type", key_type.map_or_else(|_| "no usable key".into(), Into::into)),
        ("fingerprint", record.fingerprint.clone().into()),
        ("comment", record.comment.clone().into()),
        // The epoch: the store's tables do not say.
        ("created_at", time::value(Some(record.created_at).filter(|time| time.as_millis() != 0))),
        ("expires_at", time::value(record.expires_at)),
        ("revoked_at", time::value(record.revoked_at)),
        ("last_used_on", time::value(record.last_used_on)),
    ]
}
