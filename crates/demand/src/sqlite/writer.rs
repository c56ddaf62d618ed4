//! The one thread that writes, many operations per commit.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mutual_model::ids::StoreId;
use mutual_model::time::{UnixMillis, millis};
use rusqlite::{Connection, Transaction, TransactionBehavior, named_params};
use tokio::sync::oneshot;

use super::failed;
use super::rows;
use super::statements as sql;
use crate::clock::{Clock, StepWatch};
use crate::config::StoreConfig;
use crate::notify::Changes;
use crate::{StoreError, StoreInfo, StoreResult};

/// Operations that wait at most; beyond it the store says that it is overloaded.
const WAITING_MAX: usize = 8_192;
/// Operations in one commit: bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 512;
/// When an overloaded caller should try again: a few commits later.
const RETRY_AFTER_MS: u64 = 100;

/// What an operation may use: the transaction and what holds for all of it.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) db: &'a Connection,
    pub(super) config: &'a StoreConfig,
    pub(super) now: UnixMillis,
    pub(super) epoch: u64,
    pub(super) grace_until: UnixMillis,
}

impl Work<'_> {
    pub(super) fn is_grace(&self) -> bool {
        self.now < self.grace_until
    }

    pub(super) fn lease_ms(&self) -> u64 {
        millis(self.config.terms.lease())
    }

    pub(super) fn lease_end(&self) -> UnixMillis {
        self.now.after(self.config.terms.lease())
    }
}

/// Something to do inside a transaction, and somebody who waits for it.
trait Operation: Send {
    /// Runs it; `false` if it did nothing that may stay.
    fn apply(&mut self, work: &Work<'_>) -> bool;
    /// Answers, once the commit succeeded or failed.
    fn settle(self: Box<Self>, committed: &StoreResult<()>);
}

struct Pending<T, F> {
    operate: Option<F>,
    outcome: Option<StoreResult<T>>,
    answer: oneshot::Sender<StoreResult<T>>,
}

impl<T: Send, F: FnOnce(&Work<'_>) -> StoreResult<T> + Send> Operation for Pending<T, F> {
    fn apply(&mut self, work: &Work<'_>) -> bool {
        let outcome = self.operate.take().map(|operate| operate(work));
        let is_kept = matches!(outcome, Some(Ok(_)));
        self.outcome = outcome;
        is_kept
    }

    fn settle(self: Box<Self>, committed: &StoreResult<()>) {
        let not_run = || Err(StoreError::Unavailable("the operation was not run".into()));
        let outcome = match (self.outcome, committed) {
            // A refusal changed nothing, so it does not depend on the commit.
            (Some(Err(refusal)), _) => Err(refusal),
            (_, Err(error)) => Err(error.clone()),
            (outcome, Ok(())) => outcome.unwrap_or_else(not_run),
        };
        // Whoever no longer waits learns of it by repeating the request.
        let _ = self.answer.send(outcome);
    }
}

enum Order {
    Run(Box<dyn Operation>),
    NewEpoch(oneshot::Sender<StoreResult<u64>>),
}

/// The callers' end.
#[derive(Debug)]
pub(super) struct Writer {
    /// Taken only by `drop`.
    inbox: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    shown: Arc<Mutex<StoreInfo>>,
}

impl Writer {
    /// Begins an epoch and starts the thread.
    pub(super) fn start(
        connection: Connection,
        lock: File,
        config: StoreConfig,
        changes: Arc<Changes>,
    ) -> StoreResult<Self> {
        let (inbox, orders) = sync_channel(WAITING_MAX);
        let clock = Arc::clone(&config.clock);
        let engine = Engine::new(connection, lock, config, changes)?;
        let shown = Arc::clone(&engine.shown);
        let thread = std::thread::Builder::new()
            .name("demand-writer".into())
            .spawn(move || engine.run(&orders))
            .map_err(|error| StoreError::Unavailable(format!("no thread to write: {error}")))?;
        Ok(Self {
            inbox: Some(inbox),
            thread: Some(thread),
            clock,
            shown,
        })
    }

    pub(super) fn info(&self) -> StoreInfo {
        let mut info = self
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        info.now = self.clock.read().wall;
        info
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        operate: impl FnOnce(&Work<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (answer, reply) = oneshot::channel();
        self.send(Order::Run(Box::new(Pending {
            operate: Some(operate),
            outcome: None,
            answer,
        })))?;
        reply.await.unwrap_or_else(|_| Err(writer_died()))
    }

    pub(super) async fn new_epoch(&self) -> StoreResult<u64> {
        let (answer, reply) = oneshot::channel();
        self.send(Order::NewEpoch(answer))?;
        reply.await.unwrap_or_else(|_| Err(writer_died()))
    }

    fn send(&self, order: Order) -> StoreResult<()> {
        let stopped = || StoreError::Unavailable("the store's writer has stopped".into());
        let inbox = self.inbox.as_ref().ok_or_else(stopped)?;
        inbox.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            },
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

impl Drop for Writer {
    /// Waits until everything sent is committed and the file is let go, so that whoever opens it
    /// next finds it free.
    fn drop(&mut self) {
        self.inbox = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

fn writer_died() -> StoreError {
    StoreError::Unknown("the store's writer stopped before it answered".into())
}

/// The thread's own state.
struct Engine {
    connection: Connection,
    _lock: File,
    config: StoreConfig,
    changes: Arc<Changes>,
    shown: Arc<Mutex<StoreInfo>>,
    epoch: u64,
    grace_until: UnixMillis,
    steps: StepWatch,
}

impl Engine {
    fn new(
        connection: Connection,
        lock: File,
        config: StoreConfig,
        changes: Arc<Changes>,
    ) -> StoreResult<Self> {
        let reading = config.clock.read();
        let is_new = !connection
            .prepare(sql::STORE_ROW)
            .and_then(|mut row| row.exists([]))
            .map_err(failed)?;
        let (store, epoch) = renew_epoch(&connection, reading.wall).map_err(failed)?;
        let info = StoreInfo {
            store,
            epoch,
            now: reading.wall,
            terms: config.terms,
            backend: "sqlite".into(),
            server: None,
            sealing: None,
        };
        // Nothing was ever leased from a new store, so nothing needs grace.
        let grace_until = if is_new {
            UnixMillis(0)
        } else {
            reading.wall.after(config.terms.lease())
        };
        Ok(Self {
            connection,
            _lock: lock,
            steps: StepWatch::new(reading),
            grace_until,
            shown: Arc::new(Mutex::new(info)),
            config,
            changes,
            epoch,
        })
    }

    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Run(operation) => batch.push(operation),
                    Order::NewEpoch(answer) => {
                        self.commit(std::mem::take(&mut batch));
                        let _ = answer.send(self.begin_epoch());
                    }
                }
                next = if batch.len() < BATCH_MAX {
                    orders.try_recv().ok()
                } else {
                    None
                };
            }
            self.commit(batch);
        }
    }

    fn begin_epoch(&mut self) -> StoreResult<u64> {
        let now = self.config.clock.read().wall;
        let (_, epoch) = renew_epoch(&self.connection, now).map_err(failed)?;
        self.epoch = epoch;
        self.grace_until = now.after(self.config.terms.lease());
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .epoch = epoch;
        Ok(epoch)
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Operation>>) {
        if batch.is_empty() {
            return;
        }
        let before = self.connection.total_changes();
        let committed = self.transact(&mut batch);
        if let Err(error) = &committed {
            tracing::warn!(%error, operations = batch.len(), "a commit failed");
        }
        let changed = self.connection.total_changes() != before;
        for operation in batch {
            operation.settle(&committed);
        }
        if changed {
            self.changes.announce();
        }
    }

    fn transact(&mut self, batch: &mut [Box<dyn Operation>]) -> StoreResult<()> {
        let reading = self.config.clock.read();
        if self.steps.stepped(reading) {
            tracing::warn!(
                now = reading.wall.0,
                "the clock was set: nothing expires for one lease"
            );
            self.grace_until = reading.wall.after(self.config.terms.lease());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let work = Work {
            db: &transaction,
            config: &self.config,
            now: reading.wall,
            epoch: self.epoch,
            grace_until: self.grace_until,
        };
        for operation in batch {
            apply_alone(&work, operation.as_mut())?;
        }
        durable(transaction)
    }
}

/// Runs one operation so that its failure undoes itself and nothing else.
fn apply_alone(work: &Work<'_>, operation: &mut dyn Operation) -> StoreResult<()> {
    let run = |statement: &str| {
        work.db
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute([]))
            .map_err(failed)
    };
    run("SAVEPOINT operation")?;
    if !operation.apply(work) {
        run("ROLLBACK TO operation")?;
    }
    run("RELEASE operation")?;
    Ok(())
}

/// Commits; an I/O error while doing so leaves open what the disk holds.
fn durable(transaction: Transaction<'_>) -> StoreResult<()> {
    use rusqlite::ErrorCode as Code;
    transaction
        .commit()
        .map_err(|error| match error.sqlite_error_code() {
            Some(Code::SystemIoFailure) => StoreError::Unknown(error.to_string()),
            _ => failed(error),
        })
}

fn renew_epoch(connection: &Connection, now: UnixMillis) -> rusqlite::Result<(StoreId, u64)> {
    let id: [u8; 16] = rand::random();
    let token: [u8; 16] = rand::random();
    connection.query_row(
        sql::EPOCH_RENEW,
        named_params! {":id": id, ":token": token, ":now": rows::time(now)},
        |row| Ok((StoreId(row.get(0)?), rows::unsigned(row, 1)?)),
    )
}
