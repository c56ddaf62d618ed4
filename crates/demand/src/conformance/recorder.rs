//! Notes every call and its answer for the history checker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mutual_model::history::{Answer, Deed, Observation};
use mutual_model::ids::JobId;
use mutual_model::time::Timestamp;

use super::Stand;
use crate::deeds;
use crate::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, EventPage, FinishReply, FinishRequest,
    JobFilter, JobPage, JobView, Manifest, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, StoreError, StoreInfo, StoreResult, Submission,
    Submitted,
};

/// A store that remembers what was said to it.
pub(super) struct Recorder {
    stand: Arc<dyn Stand>,
    notes: Mutex<Vec<Observation>>,
    last: AtomicU64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn new(stand: Arc<dyn Stand>) -> Self {
        Self {
            stand,
            notes: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    pub(super) fn history(&self) -> Vec<Observation> {
        let mut notes = self
            .notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        notes.sort_by_key(|note| note.called);
        notes
    }

    /// A stamp greater than every one before, in the time of leases.
    pub(super) fn stamp(&self) -> Timestamp {
        let now = u64::try_from(self.stand.elapsed().as_micros()).unwrap_or(u64::MAX);
        let before = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                Some(now.max(last + 1))
            });
        Timestamp(now.max(before.unwrap_or(0) + 1))
    }

    pub(super) fn note(&self, called: Timestamp, deed: Deed) {
        let returned = self.stamp();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(Observation {
            called,
            returned,
            deed,
        });
    }

    fn note_view(&self, called: Timestamp, who: &Principal, view: &JobView) {
        self.note(called, deeds::seen(&who.namespaces, view));
    }

    /// Namespaces are part of who may know that a job is gone; only its owners count.
    fn note_missing<T>(
        &self,
        called: Timestamp,
        job: JobId,
        outcome: &StoreResult<T>,
        who: &Principal,
    ) {
        let is_owner = who
            .namespaces
            .iter()
            .any(|namespace| self.submitted_in(job, namespace));
        if matches!(outcome, Err(StoreError::NotFound)) && is_owner {
            self.note(called, Deed::Missing { job });
        }
    }

    fn note_finish(
        &self,
        called: Timestamp,
        who: &Principal,
        request: &FinishRequest,
        outcome: &StoreResult<FinishReply>,
    ) -> StoreResult<()> {
        let producer = who.node.unwrap_or(mutual_model::identity::NodeId([0; 32]));
        let needed = super::world::COPIES;
        let deed = deeds::finish(producer, request, needed, outcome)?;
        self.note(called, deed);
        Ok(())
    }

    fn submitted_in(&self, job: JobId, sought: &mutual_model::ids::Namespace) -> bool {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().any(|note| {
            matches!(&note.deed, Deed::Submit { namespace, answer: Answer::Done(known), .. }
                if *known == job && namespace == sought)
        })
    }
}

#[async_trait]
impl DemandStore for Recorder {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.stand.store().info().await
    }

    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        let called = self.stamp();
        let outcome = self.stand.store().submit(who, tasks.clone()).await;
        for (index, task) in tasks.iter().enumerate() {
            let job = outcome.clone().map(|submitted| submitted[index].job);
            self.note(called, deeds::submit(task, &job)?);
        }
        outcome
    }

    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        let called = self.stamp();
        let outcome = self.stand.store().attach_manifest(who, job, input).await;
        if let Ok(view) = &outcome {
            self.note_view(called, who, view);
        }
        outcome
    }

    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        let called = self.stamp();
        let outcome = self.stand.store().job(who, job).await;
        if let Ok(view) = &outcome {
            self.note_view(called, who, view);
        }
        self.note_missing(called, job, &outcome, who);
        outcome
    }

    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        let called = self.stamp();
        let outcome = self.stand.store().jobs(who, filter).await;
        for view in outcome.iter().flat_map(|page| &page.jobs) {
            self.note_view(called, who, view);
        }
        outcome
    }

    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        let called = self.stamp();
        let outcome = self.stand.store().cancel(who, job, reason).await;
        self.note(called, deeds::cancel(job, &outcome));
        outcome
    }

    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        let called = self.stamp();
        let outcome = self.stand.store().try_claim(who, request.clone()).await;
        if let Some(agent) = who.node {
            self.note(called, deeds::claim(agent, &request, &outcome));
        }
        outcome
    }

    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        let called = self.stamp();
        let outcome = self.stand.store().renew(who, request.clone()).await;
        if let Some(agent) = who.node {
            self.note(called, deeds::renew(agent, &request, &outcome));
        }
        outcome
    }

    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        let called = self.stamp();
        let outcome = self.stand.store().checkpoint(who, report.clone()).await;
        self.note(called, deeds::checkpoint(&report, &outcome));
        outcome
    }

    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        let called = self.stamp();
        let outcome = self.stand.store().release(who, request.clone()).await;
        self.note(called, deeds::release(&request, &outcome));
        outcome
    }

    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        let called = self.stamp();
        let outcome = self.stand.store().finish(who, request.clone()).await;
        self.note_finish(called, who, &request, &outcome)?;
        outcome
    }

    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let called = self.stamp();
        let store = self.stand.store();
        let outcomes = store.finish_many(who, requests.clone()).await;
        for (request, outcome) in requests.iter().zip(&outcomes) {
            if let Err(error) = self.note_finish(called, who, request, outcome) {
                return vec![Err(error); requests.len()];
            }
        }
        outcomes
    }

    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        let called = self.stamp();
        let outcome = self.stand.store().revoke(who, revocation.clone()).await;
        self.note(called, deeds::revoke(&revocation, &outcome));
        outcome
    }

    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        let called = self.stamp();
        let outcome = self.stand.store().requeue(who, limit).await;
        self.note(called, deeds::requeue(&outcome));
        outcome
    }

    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        self.stand.store().events(who, after, limit).await
    }

    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        self.stand.store().request_checkpoint(who, job).await
    }

    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        let called = self.stamp();
        let epoch = self.stand.store().new_epoch(who).await?;
        let lease_ms = super::config().terms.lease_ms;
        self.note(
            called,
            Deed::Opened {
                epoch,
                lease_ms,
                reopened: true,
            },
        );
        Ok(epoch)
    }
}
