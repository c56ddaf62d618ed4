//! A few connections, lent to one operation at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mutual_model::ids::StoreId;
use mutual_model::time::{UnixMillis, millis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::{self, Hosts};
use super::session::Session;
use crate::config::StoreConfig;
use crate::{StoreError, StoreResult};

/// Connections at most, opened as they are needed. Each mostly waits for the disk, and the database
/// makes the commits of all that wait durable together; three servers fit into PostgreSQL's own
/// default of 100.
const CONNECTIONS: usize = 32;
/// Operations that wait for one at most; beyond it the store says that it is overloaded.
const WAITING_MAX: usize = 4_096;
/// When an overloaded caller should try again.
const RETRY_AFTER_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) config: Arc<StoreConfig>,
    pub(super) store: StoreId,
    hosts: Hosts,
    idle: Mutex<VecDeque<Session>>,
    free: Arc<Semaphore>,
    places: Arc<Semaphore>,
    steps: Mutex<Moment>,
}

/// A reading of the database's clock between two of our own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    asked: Instant,
    answered: Instant,
    wall: UnixMillis,
}

impl Moment {
    /// A reading that has just been answered.
    pub(super) fn answered(asked: Instant, wall: UnixMillis) -> Self {
        let answered = Instant::now();
        Self {
            asked,
            answered,
            wall,
        }
    }
}

/// A lent connection.
pub(super) struct Lent {
    pub(super) session: Arc<Session>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Pool {
    pub(super) async fn open(url: &str, config: StoreConfig) -> StoreResult<Self> {
        let hosts = Hosts::parse(url)?;
        let session = hosts.connect(&config).await?;
        connect::begin_grace(&session, &config).await?;
        let store = connect::store_id(&session).await?;
        let steps = Mutex::new(connect::moment(&session).await?);
        Ok(Self {
            config: Arc::new(config),
            store,
            hosts,
            idle: Mutex::new(VecDeque::from([session])),
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            steps,
        })
    }

    /// A connection to the primary, an idle one if there is any.
    pub(super) async fn lend(&self) -> StoreResult<Lent> {
        let place =
            Arc::clone(&self.places)
                .try_acquire_owned()
                .map_err(|_| StoreError::Overloaded {
                    retry_after_ms: RETRY_AFTER_MS,
                })?;
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let session = match self.idle_one() {
            Some(session) => session,
            None => self.hosts.connect(&self.config).await?,
        };
        Ok(Lent {
            session: Arc::new(session),
            _permits: (place, permit),
        })
    }

    /// A new connection to a standby, for one look.
    pub(super) async fn lend_standby(&self) -> StoreResult<Lent> {
        let overloaded = |_| StoreError::Overloaded {
            retry_after_ms: RETRY_AFTER_MS,
        };
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(overloaded)?;
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let session = self.hosts.connect_standby().await?;
        Ok(Lent {
            session: Arc::new(session),
            _permits: (place, permit),
        })
    }

    fn idle_one(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop_back()).find(|session| !session.is_closed())
    }

    /// Takes a connection back that is between transactions. One that is not taken back is
    /// dropped, and its transaction with it.
    pub(super) fn take_back(&self, lent: Lent) {
        let Some(session) = Arc::into_inner(lent.session) else {
            return;
        };
        if !session.is_closed() && !session.is_doubtful() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(session);
        }
    }

    /// Lets go of every idle connection, for example because they lead to a former primary.
    pub(super) fn forget_all(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Whether the database's clock was set since it was last read, given when it was asked.
    pub(super) fn stepped(&self, asked: Instant, wall: UnixMillis) -> bool {
        let now = Moment::answered(asked, wall);
        let mut last = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked at the same time as the other reading: nothing to compare.
        if now.asked < last.answered {
            return false;
        }
        let before = std::mem::replace(&mut *last, now);
        is_step(&before, &now)
    }

    /// The database's clock as far as it is known without asking: for what decides nothing.
    pub(super) fn about_now(&self) -> UnixMillis {
        let last = *self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        last.wall.after(last.answered.elapsed())
    }
}

/// Beyond what the two of our own readings leave open, clocks that differ by this much were set.
const STEP_MIN: Duration = Duration::from_millis(500);

fn is_step(before: &Moment, now: &Moment) -> bool {
    let least = now
        .asked
        .saturating_duration_since(before.answered)
        .saturating_sub(STEP_MIN);
    let most = now.answered.saturating_duration_since(before.asked) + STEP_MIN;
    let is_back = now.wall.0 + millis(STEP_MIN) < before.wall.0;
    let passed = now.wall.since(before.wall);
    is_back || passed < least || passed > most
}
