//! A demand store in memory: the same rules without a disk.
//!
//! For the simulator and for tests. It takes its clock and a seed, so one seed gives one trace;
//! nothing in it awaits, so any executor drives it. [`MemoryStore::restart`] behaves as a durable
//! store does when its process starts again: everything acknowledged is there, the epoch is new,
//! and nothing expires for one lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mutual_model::ids::JobId;
use mutual_model::job::FieldError;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::StoreConfig;
use crate::notify::Changes;
use crate::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, EventPage, FinishReply, FinishRequest,
    JobFilter, JobPage, JobView, Manifest, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, StoreInfo, StoreResult, Submission, Submitted,
};

mod claims;
mod ends;
mod index;
mod jobs;
mod record;
mod state;
mod verdicts;

use state::State;

/// Everything in one map behind one lock.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changes: Changes,
}

impl MemoryStore {
    /// An empty store. Ids come from `seed` alone, time from the configuration's clock.
    ///
    /// # Errors
    /// [`FieldError`] if the configuration is out of bounds.
    pub fn new(config: StoreConfig, seed: u64) -> Result<Self, FieldError> {
        config.check()?;
        let clock = Arc::clone(&config.clock);
        let state = State::new(config, seed, clock.read());
        Ok(Self {
            clock,
            state: Mutex::new(state),
            changes: Changes::default(),
        })
    }

    /// Begins anew on the same records, as a durable store does after a crash.
    pub fn restart(&self) {
        let reading = self.clock.read();
        self.lock().begin_epoch(reading.wall);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation under the lock at one reading of the clock.
    fn with<T>(&self, operate: impl FnOnce(&mut State) -> StoreResult<T>) -> StoreResult<T> {
        let mut state = self.lock();
        state.tick(self.clock.read());
        let position = state.position();
        let outcome = operate(&mut state);
        let changed = state.position() != position;
        drop(state);
        if changed {
            self.changes.announce();
        }
        outcome
    }
}

#[async_trait]
impl DemandStore for MemoryStore {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.with(|state| Ok(state.info()))
    }

    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        self.with(|state| state.submit(who, tasks))
    }

    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        self.with(|state| state.attach_manifest(who, job, input))
    }

    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        self.with(|state| state.job(who, job))
    }

    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        self.with(|state| state.jobs(who, filter))
    }

    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        self.with(|state| state.cancel(who, job, reason))
    }

    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        self.with(|state| state.try_claim(who, &request))
    }

    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        self.with(|state| state.renew(who, &request))
    }

    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        self.with(|state| state.checkpoint(who, report))
    }

    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        self.with(|state| state.release(who, &request))
    }

    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        self.with(|state| state.finish(who, request))
    }

    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        self.with(|state| state.revoke(who, &revocation))
    }

    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        self.with(|state| state.requeue(who, limit))
    }

    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        self.with(|state| state.events(who, after, limit))
    }

    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        self.with(|state| state.request_checkpoint(who, job))
    }

    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        self.with(|state| state.new_epoch(who))
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}
