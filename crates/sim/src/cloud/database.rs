//! The database: the memory store in a process that can be killed, on a disk that can be slow.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use mutual_demand::memory::MemoryStore;
use mutual_demand::{
    Clock, DemandStore as _, JobFilter, Principal, Reading, StoreConfig, StoreError, StoreInfo,
    StoreResult,
};
use mutual_model::job::JobState;
use mutual_model::lease::LeaseTerms;
use mutual_model::time::{Timestamp, UnixMillis};

use super::slips::Slip;
use super::wire::{CallId, Place, Reply, Request};

/// Leases last a fraction of what they do by default, so that a short world sees many.
pub(super) const TERMS: LeaseTerms = LeaseTerms {
    lease_ms: 1_600,
    renew_ms: 400,
};
/// Jobs in an answer to a server that looks for queued ones.
const QUEUED_MAX: u32 = 16;
const EPOCH: UnixMillis = UnixMillis(1_800_000_000_000);

/// The store's clock: virtual time, and how far its wall clock was set.
#[derive(Debug, Default)]
struct StoreClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl Clock for StoreClock {
    fn read(&self) -> Reading {
        Reading {
            wall: UnixMillis(self.wall_ms.load(Ordering::Relaxed)),
            monotonic: Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed)),
        }
    }
}

/// A call that was taken in and not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) server: Place,
    pub(super) who: Place,
    pub(super) request: Rc<Request>,
}

#[derive(Debug)]
pub(super) struct Database {
    store: MemoryStore,
    clock: Arc<StoreClock>,
    skew_ms: i64,
    /// Counts its processes.
    pub(super) run: u32,
    pub(super) is_up: bool,
    /// The longest that a commit takes.
    pub(super) disk: Duration,
    pub(super) taken: BTreeMap<CallId, Taken>,
    pub(super) slip: Option<Slip>,
}

/// How long a commit takes at most on a disk that is well.
pub(super) const QUICK: Duration = Duration::from_millis(2);

impl Database {
    pub(super) fn new(seed: u64, quorum: u32, slip: Option<Slip>) -> anyhow::Result<Self> {
        let clock = Arc::new(StoreClock::default());
        clock.wall_ms.store(EPOCH.0, Ordering::Relaxed);
        let config = StoreConfig {
            terms: TERMS,
            quorum,
            clock: clock.clone(),
            ..StoreConfig::default()
        };
        Ok(Self {
            store: MemoryStore::new(config, seed)?,
            clock,
            skew_ms: 0,
            run: 0,
            is_up: true,
            disk: QUICK,
            taken: BTreeMap::new(),
            slip,
        })
    }

    /// Sets the store's wall clock.
    pub(super) fn step_clock(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Winds the clock to the present.
    pub(super) fn wind(&self, now: Timestamp) {
        let ms = now.0 / 1_000;
        let wall = EPOCH
            .0
            .saturating_add(ms)
            .saturating_add_signed(self.skew_ms);
        self.clock.wall_ms.store(wall, Ordering::Relaxed);
        self.clock.monotonic_ms.store(ms, Ordering::Relaxed);
    }

    /// Begins anew on the same records.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.wind(now);
        self.store.restart();
        self.is_up = true;
    }

    pub(super) fn info(&self) -> anyhow::Result<StoreInfo> {
        let info = self.store.info().now_or_never();
        Ok(info.context("the memory store never waits")??)
    }

    /// Carries a request out at once.
    pub(super) fn apply(
        &self,
        now: Timestamp,
        who: &Principal,
        request: &Request,
    ) -> StoreResult<Reply> {
        self.wind(now);
        if let Some(slip) = &self.slip
            && let Some(reply) = slip.instead_of(request)
        {
            return reply;
        }
        if self.slip == Some(Slip::RequeueEarly) && matches!(request, Request::Requeue(_)) {
            // As if every lease were half as long.
            self.wind(now.after(TERMS.lease() / 2));
        }
        let reply = self.call(who, request).now_or_never();
        let reply = reply.unwrap_or_else(|| Err(StoreError::Internal("it waited".into())));
        match (&self.slip, reply) {
            (Some(slip), Err(error)) => slip.instead_of_error(request, error),
            (Some(slip), Ok(reply)) => Ok(slip.renewed(request, reply)),
            (None, reply) => reply,
        }
    }

    async fn call(&self, who: &Principal, request: &Request) -> StoreResult<Reply> {
        let store = &self.store;
        Ok(match request.clone() {
            Request::Submit(task) => {
                let submitted = store.submit(who, vec![task]).await?;
                let first = submitted.first();
                let first = first.ok_or_else(|| StoreError::Internal("nothing stored".into()))?;
                Reply::Submitted(first.job)
            }
            Request::Cancel(job) => Reply::View(store.cancel(who, job, "").await?.into()),
            Request::Look(job) => Reply::View(store.job(who, job).await?.into()),
            Request::WantCheckpoint(job) => {
                store.request_checkpoint(who, job).await?;
                Reply::Done
            }
            Request::Claim(request) => Reply::Claimed(store.try_claim(who, request).await?),
            Request::Renew(request) => Reply::Renewed(store.renew(who, request).await?),
            Request::Checkpoint(report) => {
                store.checkpoint(who, report).await?;
                Reply::Done
            }
            Request::Release(request) => {
                store.release(who, request).await?;
                Reply::Done
            }
            Request::Finish(request) => Reply::Finished(store.finish(who, request).await?),
            Request::Revoke(verdict) => Reply::Revoked(store.revoke(who, verdict).await?),
            Request::Requeue(limit) => Reply::Swept(store.requeue(who, limit).await?),
            Request::Queued => {
                let filter = JobFilter {
                    states: vec![JobState::Queued],
                    limit: QUEUED_MAX,
                    ..JobFilter::default()
                };
                Reply::Views(store.jobs(who, &filter).await?.jobs)
            }
        })
    }

    /// Begins an epoch, as after a restore.
    pub(super) fn begin_epoch(&self, now: Timestamp, who: &Principal) -> anyhow::Result<u64> {
        self.wind(now);
        let epoch = self.store.new_epoch(who).now_or_never();
        Ok(epoch.context("the memory store never waits")??)
    }
}
