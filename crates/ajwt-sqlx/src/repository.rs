/// What the repositories of all databases do alike: some of their own methods, and
/// [`KeyAdmin`](ajwt_server::KeyAdmin). A macro, for the bounds that sqlx asks of a function over any database would
/// take a page, and the trait is another crate's, which rules out one implementation for whatever has a trait of ours.
///
/// What a database does otherwise is told by the module that invokes it: by its `tables` and `django`; by
/// `statements`, which are those of a schema; by `insert`, which adds a row and returns its id, or `None` if there is
/// one like it; by `of_user`, `activation` and `row_change` of the repository, which make statements with their
/// arguments; and by three functions:
///
/// - `transaction` works in one, and commits it.
/// - `found` takes what came of looking for a user, and makes nothing found of the error of a name that none can have.
/// - `own` makes of a name or a fingerprint what ajwt's own tables have in its place.
macro_rules! repository {
    (
        $Repository:ident, $Connection:ident, pool: $Pool:ty,
        transaction: $transaction:path, found: $found:path, own: $own:path
    ) => {
        // A block of its own, whose imports are nobody else's.
        const _: () = {
            use std::sync::Arc;

            use ajwt_core::{Timestamp, Username};
            use ajwt_server::{
                AdminError, BatchedUsage, Freshness, KeyAdmin, KeyRecord, NewKey, RepositoryError,
                TrustRecord, UserRecord, UserRepository as _,
            };
            use sqlx::SqlStr;

            use $crate::{
                audit::{self, AuditRecord, Entry, RowChange},
                failure::failed,
                rows,
                schema::{self, Schema},
                user_rows,
            };

            impl $Repository {
                /// On these tables. Without it they are ajwt's own.
                #[must_use]
                pub fn with_schema(mut self, schema: Schema) -> Self {
                    self.sql = statements(&schema);
                    self.schema = schema;
                    self
                }

                /// On behalf of this person or program, cut to 150 characters: who made a change, in the
                /// [audit](Self::audit) table. Without it that is `unknown`. Clones may have different ones.
                #[must_use]
                pub fn with_actor(mut self, actor: &str) -> Self {
                    self.actor = audit::actor(actor).into();
                    self
                }

                /// The pool.
                #[must_use]
                pub const fn pool(&self) -> &$Pool {
                    &self.pool
                }

                /// Looks whether the tables of users and keys are there, and changes nothing: for a service that does
                /// not migrate and would rather not start than answer each request with 503. Over Django's tables it
                /// also looks whose keys they hold.
                ///
                /// # Errors
                /// [`RepositoryError`] if they cannot be read, with [`MissingTables`](crate::MissingTables) for its
                /// source where the migrations were not run, and with [`CustomUserModel`](crate::CustomUserModel)
                /// where Django's keys are those of users in another table than `auth_user`.
                pub async fn check(&self) -> Result<(), RepositoryError> {
                    const WHAT: &str = "looking at the tables";
                    if self.schema.is_django() {
                        let others = sqlx::query_scalar(django::HAS_OTHER_USERS).fetch_one(&self.pool).await;
                        let checked = self.schema.check_user_model(others.map_err(failed(WHAT))?);
                        checked.map_err(|error| RepositoryError::new(WHAT, error))?;
                    }
                    self.find_by_username("", Freshness::Current).await.map(drop)
                }

                /// Notes uses of keys in these tables, each key at most once per 30 s.
                ///
                /// # Panics
                /// Outside of a tokio runtime with its timer enabled.
                #[must_use]
                pub fn batched_usage(&self) -> BatchedUsage {
                    BatchedUsage::new(Arc::new(self.clone()), BatchedUsage::DEFAULT_INTERVAL)
                }

                /// The last changes that were made through [`KeyAdmin`](ajwt_server::KeyAdmin), newest first.
                ///
                /// # Errors
                /// [`RepositoryError`] if the database failed, and over Django's tables, which have no audit.
                pub async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
                    const WHAT: &str = "reading the audit table";
                    self.schema.check_audit(WHAT)?;
                    let failed = failed(WHAT);
                    let list = sqlx::query(tables::AUDIT).bind(i64::from(limit));
                    let rows = list.fetch_all(&self.pool).await.map_err(&failed)?;
                    rows.iter().map(rows::audit_record).collect::<Result<_, _>>().map_err(failed)
                }

                /// Refuses a name that nobody has, and one that several have, as authentication does: a change would
                /// be made to any one of them, or to all.
                async fn check_user(
                    &self,
                    connection: &mut $Connection,
                    sql: &SqlStr,
                    username: &Username,
                ) -> Result<(), AdminError> {
                    let failed = failed("reading a user");
                    let found = self.of_user(sql, username).fetch_all(connection).await;
                    match $found(found).map_err(&failed)?.len() {
                        0 => Err(AdminError::unknown_user(username)),
                        1 => Ok(()),
                        _ => Err(failed(user_rows::ambiguous()).into()),
                    }
                }

                async fn list_keys(
                    &self,
                    connection: &mut $Connection,
                    username: &Username,
                ) -> Result<Vec<KeyRecord>, sqlx::Error> {
                    let rows = self.of_user(&self.sql.list_keys, username).fetch_all(connection).await?;
                    let records = rows.iter().map(rows::key_record).collect::<Result<_, _>>()?;
                    Ok(self.schema.complete(records, &self.keys))
                }

                async fn list_trusts(
                    &self,
                    connection: &mut $Connection,
                    username: &Username,
                ) -> Result<Vec<TrustRecord>, sqlx::Error> {
                    let rows = self.of_user(&self.sql.list_trusts, username).fetch_all(connection).await?;
                    rows.iter().map(rows::trust_record).collect()
                }

                /// Notes a change in its own transaction.
                async fn note(
                    &self,
                    connection: &mut $Connection,
                    username: &Username,
                    at: Timestamp,
                    entry: &Entry,
                ) -> Result<(), sqlx::Error> {
                    if self.schema.is_django() {
                        return Ok(());
                    }
                    let note = sqlx::query(tables::ADD_AUDIT).bind(at.as_millis()).bind(&*self.actor);
                    let note = note.bind(entry.action).bind($own(username.as_str())).bind(&entry.detail);
                    note.execute(connection).await.map(drop)
                }

                async fn change_row(&self, username: &Username, change: RowChange) -> Result<(), AdminError> {
                    let failed = failed("changing a key or trust");
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        self.check_user(connection, &self.sql.lock_user, username).await?;
                        let query = self.row_change(username, &change.sql, change.id, change.argument);
                        let changed = query.execute(&mut *connection).await.map_err(&failed)?.rows_affected();
                        if changed == 0 {
                            return Err(change.missing);
                        }
                        let now = self.clock.now();
                        self.note(connection, username, now, &change.entry).await.map_err(&failed)?;
                        Ok(())
                    })
                    .await
                }
            }

            #[async_trait::async_trait]
            impl KeyAdmin for $Repository {
                async fn add_user(&self, username: &Username) -> Result<(), AdminError> {
                    self.schema.check_add_user()?;
                    let failed = failed("adding a user");
                    let now = self.clock.now();
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        let add = sqlx::query(tables::ADD_USER);
                        let add = add.bind($own(username.as_str())).bind(now.as_millis());
                        if insert(add, connection).await.map_err(&failed)?.is_none() {
                            return Err(AdminError::UserExists { username: username.as_str().to_owned() });
                        }
                        let entry = Entry::of_user("add_user");
                        self.note(connection, username, now, &entry).await.map_err(&failed)?;
                        Ok(())
                    })
                    .await
                }

                async fn set_user_active(&self, username: &Username, active: bool) -> Result<(), AdminError> {
                    self.schema.check_set_user_active()?;
                    let failed = failed("changing a user");
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        self.check_user(connection, &self.sql.lock_user, username).await?;
                        let change = self.activation(username, active);
                        change.execute(&mut *connection).await.map_err(&failed)?;
                        let entry = Entry::activation(active);
                        self.note(connection, username, self.clock.now(), &entry).await.map_err(&failed)?;
                        Ok(())
                    })
                    .await
                }

                async fn remove_user(&self, username: &Username) -> Result<(), AdminError> {
                    self.schema.check_remove_user()?;
                    let failed = failed("removing a user");
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        self.check_user(connection, &self.sql.lock_user, username).await?;
                        for sql in tables::REMOVE_USER {
                            let remove = sqlx::query(sql).bind($own(username.as_str()));
                            remove.execute(&mut *connection).await.map_err(&failed)?;
                        }
                        let entry = Entry::of_user("remove_user");
                        self.note(connection, username, self.clock.now(), &entry).await.map_err(&failed)?;
                        Ok(())
                    })
                    .await
                }

                async fn users(&self) -> Result<Vec<UserRecord>, AdminError> {
                    let failed = failed("listing users");
                    let list = sqlx::query(self.sql.list_users.clone());
                    let rows = list.fetch_all(&self.pool).await.map_err(&failed)?;
                    let records = rows.iter().filter_map(|row| rows::user_record(row).transpose());
                    let mut records: Vec<_> = records.collect::<Result<_, _>>().map_err(failed)?;
                    // Not by the database, whose collation need not be that of bytes.
                    records.sort();
                    Ok(records)
                }

                async fn add_key(&self, username: &Username, key: &NewKey) -> Result<KeyRecord, AdminError> {
                    self.schema.check_new_key(key)?;
                    let failed = failed("adding a key");
                    let now = self.clock.now();
                    let fingerprint = key.key().fingerprint().as_str();
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        self.check_user(connection, &self.sql.lock_user, username).await?;
                        let add = self.of_user(&self.sql.add_key, username);
                        let mut add = add.bind(key.text()).bind(key.comment());
                        if !self.schema.is_django() {
                            add = add.bind($own(fingerprint)).bind(now.as_millis());
                            add = add.bind(key.not_before().map(Timestamp::as_millis));
                            add = add.bind(key.expires_at().map(Timestamp::as_millis));
                        }
                        let Some(id) = insert(add, connection).await.map_err(&failed)? else {
                            return Err(AdminError::DuplicateKey { fingerprint: fingerprint.to_owned() });
                        };
                        let keys = self.list_keys(connection, username).await.map_err(&failed)?;
                        schema::check_keys(&keys, id, fingerprint)?;
                        let entry = Entry::added_key(id, fingerprint);
                        self.note(connection, username, now, &entry).await.map_err(&failed)?;
                        let created_at =
                            if self.schema.is_django() { Timestamp::from_millis(0) } else { now };
                        Ok(KeyRecord::new(id, key, created_at))
                    })
                    .await
                }

                async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError> {
                    let failed = failed("listing keys");
                    let mut connection = self.pool.acquire().await.map_err(&failed)?;
                    self.check_user(&mut connection, &self.sql.user_exists, username).await?;
                    Ok(self.list_keys(&mut connection, username).await.map_err(failed)?)
                }

                async fn set_key_expiry(
                    &self,
                    username: &Username,
                    key_id: i64,
                    expires_at: Option<Timestamp>,
                ) -> Result<(), AdminError> {
                    let sql = self.sql.set_key_expiry.clone().ok_or_else(schema::no_expiry)?;
                    self.change_row(username, RowChange::key_expiry(sql, key_id, expires_at)).await
                }

                async fn revoke_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
                    let sql = self.sql.revoke_key.clone().ok_or_else(schema::no_revocation)?;
                    self.change_row(username, RowChange::key_revocation(sql, key_id, self.clock.now())).await
                }

                async fn remove_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
                    let sql = self.sql.remove_key.clone();
                    self.change_row(username, RowChange::key_removal(sql, key_id)).await
                }

                async fn add_trust(&self, username: &Username, url: &str) -> Result<TrustRecord, AdminError> {
                    AdminError::check_trust_url(url)?;
                    self.schema.check_new_trust(url)?;
                    let failed = failed("adding a trust");
                    let now = self.clock.now();
                    $transaction(&self.pool, &failed, async |connection: &mut $Connection| {
                        self.check_user(connection, &self.sql.lock_user, username).await?;
                        let mut add = self.of_user(&self.sql.add_trust, username).bind(url);
                        if !self.schema.is_django() {
                            add = add.bind(now.as_millis());
                        }
                        let added = insert(add, connection).await.map_err(&failed)?;
                        let trusts = self.list_trusts(connection, username).await.map_err(&failed)?;
                        let Some(id) = added else {
                            return Err(self
                                .schema
                                .trust_exists(trusts.iter().any(|trust| trust.url == url)));
                        };
                        schema::check_trusts(&trusts, id)?;
                        let entry = Entry::added_trust(id, url);
                        self.note(connection, username, now, &entry).await.map_err(&failed)?;
                        Ok(TrustRecord::new(id, url, None))
                    })
                    .await
                }

                async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError> {
                    let failed = failed("listing trusts");
                    let mut connection = self.pool.acquire().await.map_err(&failed)?;
                    self.check_user(&mut connection, &self.sql.user_exists, username).await?;
                    Ok(self.list_trusts(&mut connection, username).await.map_err(failed)?)
                }

                async fn remove_trust(&self, username: &Username, trust_id: i64) -> Result<(), AdminError> {
                    let sql = self.sql.remove_trust.clone();
                    self.change_row(username, RowChange::trust_removal(sql, trust_id)).await
                }
            }
        };
    };
}

pub(crate) use repository;
