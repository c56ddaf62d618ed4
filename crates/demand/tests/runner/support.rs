//! What the stands share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use mutual_demand::conformance::{self, Harness};
use mutual_demand::*;
use mutual_model::ids::JobId;

/// Runs the whole suite and fails with every case that did not hold.
pub(crate) async fn pass(harness: &dyn Harness) {
    let filter = std::env::var("MUTUAL_CASE").unwrap_or_default();
    let report = conformance::run(harness, &filter).await;
    let failed: Vec<_> = report
        .failed
        .iter()
        .map(|(name, said)| format!("{name}: {said}"))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(!report.passed.is_empty());
}

/// A store whose answers can be lost after the work is done.
#[derive(Debug)]
pub(crate) struct Deaf {
    pub(crate) inner: Arc<dyn DemandStore>,
    pub(crate) is_lost: Arc<AtomicBool>,
    /// What is heard instead.
    pub(crate) says: StoreError,
}

impl Deaf {
    pub(crate) fn new(inner: Arc<dyn DemandStore>, is_lost: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            is_lost,
            says: StoreError::Unknown("the reply was lost".into()),
        }
    }

    fn hear<T>(&self, outcome: StoreResult<T>) -> StoreResult<T> {
        if self.is_lost.swap(false, Ordering::SeqCst) {
            return Err(self.says.clone());
        }
        outcome
    }
}

#[async_trait]
impl DemandStore for Deaf {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.inner.info().await
    }
    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        self.hear(self.inner.submit(who, tasks).await)
    }
    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        self.hear(self.inner.attach_manifest(who, job, input).await)
    }
    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        self.inner.job(who, job).await
    }
    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        self.inner.jobs(who, filter).await
    }
    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        self.hear(self.inner.cancel(who, job, reason).await)
    }
    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        self.hear(self.inner.try_claim(who, request).await)
    }
    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        self.hear(self.inner.renew(who, request).await)
    }
    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        self.hear(self.inner.checkpoint(who, report).await)
    }
    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        self.hear(self.inner.release(who, request).await)
    }
    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        self.hear(self.inner.finish(who, request).await)
    }
    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let count = requests.len();
        let outcomes = self.inner.finish_many(who, requests).await;
        let heard = self.hear(Ok(outcomes));
        heard.unwrap_or_else(|lost| vec![Err(lost); count])
    }
    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        self.hear(self.inner.revoke(who, revocation).await)
    }
    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        self.hear(self.inner.requeue(who, limit).await)
    }
    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        self.inner.events(who, after, limit).await
    }
    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        self.hear(self.inner.request_checkpoint(who, job).await)
    }
    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        self.inner.new_epoch(who).await
    }
    fn changes(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.inner.changes()
    }
}
