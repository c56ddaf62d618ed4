//! One operation as one transaction, or as one statement that is one: repeated when the database asks for it, and honest
//! about what is not known.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use mutual_model::ids::StoreId;
use mutual_model::time::{UnixMillis, millis};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::pool::{Lent, Pool};
use super::rows;
use super::session::{Named, Session};
use super::statements as sql;
use crate::config::StoreConfig;
use crate::{StoreError, StoreInfo, StoreResult};

/// Why an operation did not come to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The rules say no.
    Refused(StoreError),
    /// The database did.
    Database(tokio_postgres::Error),
    /// Rows changed under it; begin again.
    Again,
}

pub(super) type Done<T> = Result<T, Fault>;

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl Fault {
    /// A stored value that cannot be read.
    pub(super) fn damaged(column: usize, error: impl std::fmt::Display) -> Self {
        Self::Refused(StoreError::Internal(format!(
            "damaged column {column}: {error}"
        )))
    }

    /// What to say when it is not worth another try.
    pub(super) fn refusal(self) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Database(error) if error.as_db_error().is_none() => {
                StoreError::Unavailable(error.to_string())
            }
            Self::Database(error) => {
                let said = error.as_db_error().map(ToString::to_string);
                StoreError::Internal(said.unwrap_or_default())
            }
            Self::Again => StoreError::Overloaded { retry_after_ms: 20 },
        }
    }
}

/// What an operation may use: the transaction and what holds for all of it.
#[derive(Debug)]
pub(super) struct Work {
    session: Arc<Session>,
    pub(super) config: Arc<StoreConfig>,
    store: StoreId,
    pub(super) now: UnixMillis,
    pub(super) epoch: u64,
    pub(super) grace_until: UnixMillis,
}

impl Work {
    pub(super) fn is_grace(&self) -> bool {
        self.now < self.grace_until
    }

    pub(super) fn lease_ms(&self) -> u64 {
        millis(self.config.terms.lease())
    }

    pub(super) fn lease_end(&self) -> i64 {
        rows::time(self.now.after(self.config.terms.lease()))
    }

    pub(super) fn time(&self) -> i64 {
        rows::time(self.now)
    }

    pub(super) fn info(&self) -> StoreInfo {
        StoreInfo {
            store: self.store,
            epoch: self.epoch,
            now: self.now,
            terms: self.config.terms,
            backend: "postgres".into(),
            server: None,
            sealing: None,
        }
    }

    pub(super) async fn query(&self, sql: &'static str, named: Named<'_>) -> Done<Vec<Row>> {
        Ok(self.session.query(sql, named).await?)
    }

    pub(super) async fn first(&self, sql: &'static str, named: Named<'_>) -> Done<Option<Row>> {
        Ok(self.query(sql, named).await?.into_iter().next())
    }

    pub(super) async fn one(&self, sql: &'static str, named: Named<'_>) -> Done<Row> {
        let row = self.first(sql, named).await?;
        row.ok_or_else(|| StoreError::Internal("a row is missing".into()).into())
    }

    pub(super) async fn execute(&self, sql: &'static str, named: Named<'_>) -> Done<u64> {
        Ok(self.session.execute(sql, named).await?)
    }
}

/// Tries before an operation that the database keeps undoing is given up.
const TRIES: usize = 8;

/// Runs an operation in a transaction of its own.
pub(super) async fn transact<T, A>(
    pool: &Pool,
    given: &A,
    operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
) -> StoreResult<T>
where
    T: Send + 'static,
    A: Send + Sync + 'static,
{
    let mut last = StoreError::Overloaded { retry_after_ms: 20 };
    for _ in 0..TRIES {
        let lent = pool.lend().await?;
        match attempt(pool, &lent, given, operate).await {
            Ok(value) => return commit(pool, lent, value).await,
            Err(fault) => match settle(pool, lent, fault).await {
                Verdict::Final(error) => return Err(error),
                Verdict::Again(error) | Verdict::Elsewhere(error) => last = error,
            },
        }
    }
    Err(last)
}

/// Runs an operation that only looks, outside of any bookkeeping, on a connection that is not used again.
pub(super) async fn look<T, A>(
    pool: &Pool,
    lent: &Lent,
    given: &A,
    operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
) -> Done<T> {
    lent.session
        .simple("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    operate(&begun(pool, lent).await?, given).await
}

async fn attempt<T, A>(
    pool: &Pool,
    lent: &Lent,
    given: &A,
    operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
) -> Done<T> {
    let asked = Instant::now();
    let begin = lent.session.simple("BEGIN");
    let moment = lent.session.query(sql::MOMENT, &[]);
    // Both are sent before either is answered: one round trip.
    let (begun, moment) = futures::future::join(begin, moment).await;
    begun?;
    let mut work = work_at(pool, lent, &moment?)?;
    let now = work.now;
    if pool.stepped(asked, now) {
        tracing::warn!(
            now = now.0,
            "the database's clock was set: nothing expires for one lease"
        );
        let lease_ms = rows::number(work.lease_ms());
        let row = work.one(sql::GRACE, &[("lease_ms", &lease_ms)]).await?;
        work.grace_until = UnixMillis(rows::unsigned(&row, 0)?);
    }
    operate(&work, given).await
}

async fn begun(pool: &Pool, lent: &Lent) -> Done<Work> {
    work_at(pool, lent, &lent.session.query(sql::MOMENT, &[]).await?)
}

fn work_at(pool: &Pool, lent: &Lent, moment: &[Row]) -> Done<Work> {
    let Some(row) = moment.first() else {
        return Err(StoreError::Internal("the store has no row".into()).into());
    };
    Ok(Work {
        session: Arc::clone(&lent.session),
        config: Arc::clone(&pool.config),
        store: pool.store,
        now: UnixMillis(rows::unsigned(row, 0)?),
        epoch: rows::unsigned(row, 1)?,
        grace_until: UnixMillis(rows::unsigned(row, 2)?),
    })
}

async fn commit<T>(pool: &Pool, lent: Lent, value: T) -> StoreResult<T> {
    match lent.session.simple("COMMIT").await {
        Ok(()) if lent.session.is_doubtful() => Err(wait_cut_short()),
        Ok(()) => {
            pool.take_back(lent);
            Ok(value)
        }
        // The server undid it and says why.
        Err(error) if error.as_db_error().is_some() && !lent.session.is_closed() => {
            Err(Fault::Database(error).refusal())
        }
        Err(error) => Err(StoreError::Unknown(format!(
            "no answer to a commit: {error}"
        ))),
    }
}

enum Verdict {
    /// Nothing was changed, and another try would say the same.
    Final(StoreError),
    /// Nothing was changed; another try may do.
    Again(StoreError),
    /// Nothing was changed; another try may do on another connection.
    Elsewhere(StoreError),
}

/// Undoes what was begun, and judges whether to begin again. Nothing was committed.
async fn settle(pool: &Pool, lent: Lent, fault: Fault) -> Verdict {
    let verdict = judge(fault);
    if matches!(verdict, Verdict::Elsewhere(_)) {
        // The server no longer is the primary, or went away: the others lead there too.
        pool.forget_all();
    } else if lent.session.simple("ROLLBACK").await.is_ok() {
        pool.take_back(lent);
    }
    verdict
}

fn judge(fault: Fault) -> Verdict {
    let code = match &fault {
        Fault::Database(error) => error.code().cloned(),
        Fault::Refused(_) | Fault::Again => None,
    };
    let is_lost = matches!(&fault, Fault::Database(error) if error.as_db_error().is_none());
    if is_lost || code.as_ref().is_some_and(leads_nowhere) {
        return Verdict::Elsewhere(StoreError::Unavailable(format!("{:?}", fault.refusal())));
    }
    let may_repeat = matches!(fault, Fault::Again) || code.as_ref().is_some_and(asks_again);
    let error = match code {
        Some(code) if code == SqlState::LOCK_NOT_AVAILABLE => {
            StoreError::Unavailable("a row stayed locked".into())
        }
        _ => fault.refusal(),
    };
    if may_repeat {
        return Verdict::Again(error);
    }
    Verdict::Final(error)
}

/// Runs one statement that commits by itself, in a single round trip; repeating it must do no harm.
///
/// When a connection fails nobody knows whether it was committed. So it is repeated, and if no try is answered the
/// outcome is unknown.
pub(super) async fn alone(
    pool: &Pool,
    statement: &'static str,
    named: Named<'_>,
) -> StoreResult<Vec<Row>> {
    let mut last = StoreError::Overloaded { retry_after_ms: 20 };
    let mut may_be_done = false;
    for _ in 0..TRIES {
        let lent = match pool.lend().await {
            Ok(lent) => lent,
            Err(error) => return Err(perhaps(may_be_done, error)),
        };
        match lent.session.query(statement, named).await {
            Ok(_) if lent.session.is_doubtful() => return Err(wait_cut_short()),
            Ok(rows) => {
                pool.take_back(lent);
                return Ok(rows);
            }
            Err(error) => {
                may_be_done |= error.as_db_error().is_none() || lent.session.is_closed();
                match judge(Fault::Database(error)) {
                    Verdict::Final(error) => return Err(perhaps(may_be_done, error)),
                    Verdict::Again(error) => last = error,
                    Verdict::Elsewhere(error) => {
                        pool.forget_all();
                        last = error;
                    }
                }
            }
        }
    }
    Err(perhaps(may_be_done, last))
}

/// What to say of a failure after tries that may have been committed.
fn perhaps(may_be_done: bool, error: StoreError) -> StoreError {
    match may_be_done {
        true => StoreError::Unknown(error.to_string()),
        false => error,
    }
}

fn wait_cut_short() -> StoreError {
    StoreError::Unknown("the wait for a standby was cut short".into())
}

fn leads_nowhere(code: &SqlState) -> bool {
    [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ]
    .contains(code)
}

fn asks_again(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .contains(code)
}
