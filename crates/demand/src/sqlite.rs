//! A demand store in one SQLite file: the embedded default.
//!
//! SQLite lets one connection write at a time, and each durable commit waits for the disk. So one
//! thread owns the writing connection and **group-commits**: whatever operations wait when it is
//! free run in one `BEGIN IMMEDIATE` transaction, each in a savepoint of its own, and are answered
//! after the one commit (WAL, `synchronous=FULL`). Reads run beside it on a few other connections.
//!
//! The file is locked for as long as the store is open: a second process would go on with an old
//! epoch. Every opening begins a new epoch and gives every lease one more lease of grace
//! (DESIGN §3.10, §10).

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use mutual_model::ids::JobId;
use rusqlite::Connection;
use tokio::sync::watch;

use crate::config::StoreConfig;
use crate::notify::Changes;
use crate::rules::ending::{self, Ending};
use crate::rules::{bounds, rights};
use crate::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, EventPage, FinishReply, FinishRequest,
    JobFilter, JobPage, JobView, Manifest, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, Right, StoreError, StoreInfo, StoreResult,
    Submission, Submitted,
};

mod claims;
mod ends;
mod jobs;
mod open;
mod readers;
mod rows;
mod statements;
mod verdicts;
mod writer;

use readers::Readers;
use writer::{Work, Writer};

/// The SQLite this crate is tested with comes bundled; anything else is refused at opening.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// An open store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    changes: Arc<Changes>,
}

impl SqliteStore {
    /// Opens or creates the store at `path`, migrates it, and begins a new epoch.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a configuration out of bounds, [`StoreError::Unavailable`] if
    /// the file cannot be opened or another process has it open, [`StoreError::Internal`] if it is
    /// no store or one of a newer version of this program.
    pub fn open(path: impl AsRef<Path>, config: StoreConfig) -> StoreResult<Self> {
        config.check()?;
        let path = path.as_ref();
        let lock = open::lock(path)?;
        let connection = open::writing(path)?;
        let changes = Arc::new(Changes::default());
        let readers = Readers::open(path)?;
        let writer = Writer::start(connection, lock, config, Arc::clone(&changes))?;
        Ok(Self {
            writer,
            readers,
            changes,
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        operate: impl FnOnce(&Work<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.writer.run(operate).await
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.readers.run(look).await
    }
}

/// What a failed statement means to the caller: nothing was changed.
fn failed(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::DiskFull | Code::DatabaseBusy | Code::DatabaseLocked | Code::CannotOpen) => {
            StoreError::Unavailable(error.to_string())
        }
        _ => StoreError::Internal(error.to_string()),
    }
}

#[async_trait]
impl DemandStore for SqliteStore {
    async fn info(&self) -> StoreResult<StoreInfo> {
        Ok(self.writer.info())
    }

    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        rights::require(who, Right::Submit)?;
        bounds::submissions(&tasks, who.node.as_ref())?;
        let who = who.clone();
        self.write(move |work| jobs::submit(work, &who, &tasks))
            .await
    }

    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        let who = who.clone();
        self.write(move |work| jobs::attach(work, &who, job, &input))
            .await
    }

    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        rights::require(who, Right::Read)?;
        let who = who.clone();
        self.read(move |connection| jobs::view(connection, &who, job))
            .await
    }

    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        rights::require(who, Right::Read)?;
        let limit = bounds::page(filter)?;
        let (who, filter) = (who.clone(), filter.clone());
        self.read(move |connection| jobs::list(connection, &who, &filter, limit))
            .await
    }

    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        bounds::reason(reason)?;
        let (who, reason) = (who.clone(), reason.to_owned());
        self.write(move |work| jobs::cancel(work, &who, job, reason))
            .await
    }

    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        rights::worker(who)?;
        bounds::claim(&request)?;
        let who = who.clone();
        self.write(move |work| claims::try_claim(work, &who, &request))
            .await
    }

    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        let agent = rights::worker(who)?;
        bounds::renewal(&request)?;
        self.write(move |work| claims::renew(work, agent, &request))
            .await
    }

    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        rights::worker(who)?;
        bounds::checkpoint_sizes(&report)?;
        let who = who.clone();
        self.write(move |work| ends::checkpoint(work, &who, &report))
            .await
    }

    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        rights::worker(who)?;
        bounds::release(&request)?;
        let who = who.clone();
        self.write(move |work| ends::release(work, &who, &request))
            .await
    }

    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        let prepared = Ending::new(who, request)?;
        self.write(move |work| ends::finish(work, &prepared)).await
    }

    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let (tried, refused) = ending::prepare(who, requests);
        let count = tried.len();
        let ended = self.write(move |work| ends::finish_many(work, &tried));
        refused.with(count, ended.await)
    }

    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        rights::judge(who, &revocation)?;
        let who = who.clone();
        self.write(move |work| verdicts::revoke(work, &who, &revocation))
            .await
    }

    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        rights::require_any(who, &[Right::Operate, Right::Work])?;
        bounds::requeue(limit)?;
        let who = who.clone();
        self.write(move |work| verdicts::requeue(work, &who, limit))
            .await
    }

    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        let namespaces = rights::readable(who)?.map(<[_]>::to_vec);
        bounds::events(limit)?;
        self.read(move |connection| jobs::events(connection, namespaces.as_deref(), after, limit))
            .await
    }

    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        rights::require(who, Right::Submit)?;
        let who = who.clone();
        self.write(move |work| jobs::request_checkpoint(work, &who, job))
            .await
    }

    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        rights::require(who, Right::Operate)?;
        self.writer.new_epoch().await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}
