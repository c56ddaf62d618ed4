//! A demand store in PostgreSQL, for more than one demand server.
//!
//! Each operation is one short transaction at read committed on one of a few pooled connections;
//! the database commits those of different connections together. What happens to each task — submitting it, claiming it,
//! finishing it — is one statement and one round trip where nothing is unusual. Row locks carry the promises: a
//! claim takes only rows that nobody else has locked (`FOR UPDATE SKIP LOCKED`), whoever ends
//! another's claims locks the lease row before its jobs, and what a holder says is one conditional
//! statement. The database's clock, `store_now()`, decides everything.
//!
//! **What a lost connection means** (DESIGN §3.12): before `COMMIT` was sent, nothing happened;
//! after it, after a statement that commits by itself, and after a warning that the wait for a standby was cut short, nobody knows. A
//! statement is never cancelled: the connection is dropped instead.
//!
//! While no primary can be reached, jobs are still shown from a standby, marked as possibly old; nothing is decided there.
//!
//! The epoch is a stored row. It is renewed when a connection finds another system identifier or
//! WAL timeline than the row has, and by [`DemandStore::new_epoch`]. Starting a further server
//! does not renew it, but gives every lease one lease of grace.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use mutual_model::ids::JobId;
use tokio::sync::watch;

use crate::config::StoreConfig;
use crate::notify::Changes;
use crate::rules::{bounds, ending, rights};
use crate::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, EventPage, FinishReply, FinishRequest,
    JobFilter, JobPage, JobView, Manifest, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, Right, StoreError, StoreInfo, StoreResult,
    Submission, Submitted,
};

mod claims;
mod connect;
mod ends;
mod jobs;
mod pool;
mod replica;
mod rows;
mod session;
mod statements;
mod tls;
mod verdicts;
mod work;

use pool::Pool;
use work::{Done, Work};

/// A store that is reached.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Arc<Pool>,
    changes: Arc<Changes>,
}

/// Whether an operation changes anything; what only reads announces nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reads,
    Writes,
}

impl PostgresStore {
    /// Connects to the primary among the hosts of `url` (`postgres://user@host1,host2/db`), brings
    /// the layout up to date, and gives every lease one lease of grace. `?sslmode=require` asks for
    /// TLS under a certificate that this machine trusts, `&sslrootcert=PATH` for authorities of
    /// one's own; without, connections are plain.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a malformed URL or configuration,
    /// [`StoreError::Unavailable`] if no host is a primary that
    /// keeps what it acknowledges, [`StoreError::Internal`] if the
    /// layout is of a newer version of this program.
    pub async fn connect(url: &str, config: StoreConfig) -> StoreResult<Self> {
        config.check()?;
        let pool = Arc::new(Pool::open(url, config).await?);
        Ok(Self {
            pool,
            changes: Arc::new(Changes::default()),
        })
    }

    /// Runs one operation to its end, even if the caller no longer waits for it.
    async fn run<T, A>(
        &self,
        kind: Kind,
        given: A,
        operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
    ) -> StoreResult<T>
    where
        T: Send + 'static,
        A: Send + Sync + 'static,
    {
        let pool = Arc::clone(&self.pool);
        let operation = async move { work::transact(&pool, &given, operate).await };
        self.to_the_end(kind, operation).await
    }

    /// Reads what a user looks at, from a standby if there is no primary.
    async fn read<T, A>(
        &self,
        given: A,
        operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
    ) -> StoreResult<T>
    where
        T: replica::Dated + Send + 'static,
        A: Send + Sync + 'static,
    {
        let pool = Arc::clone(&self.pool);
        let operation = async move { replica::read(&pool, &given, operate).await };
        self.to_the_end(Kind::Reads, operation).await
    }

    async fn to_the_end<T: Send + 'static>(
        &self,
        kind: Kind,
        operation: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        let changes = Arc::clone(&self.changes);
        let task = tokio::spawn(async move {
            let outcome = operation.await;
            if kind == Kind::Writes && outcome.is_ok() {
                changes.announce();
            }
            outcome
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::Unknown(format!("an operation failed: {error}")))
        })
    }
}

#[async_trait]
impl DemandStore for PostgresStore {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.run(Kind::Reads, (), |work, ()| {
            Box::pin(async move { Ok(work.info()) })
        })
        .await
    }

    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        rights::require(who, Right::Submit)?;
        bounds::submissions(&tasks, who.node.as_ref())?;
        if let [task] = tasks.as_slice() {
            let (pool, who, task) = (Arc::clone(&self.pool), who.clone(), task.clone());
            let operation = async move { jobs::submit_one(&pool, &who, &task).await };
            return self.to_the_end(Kind::Writes, operation).await;
        }
        self.run(Kind::Writes, (who.clone(), tasks), |work, (who, tasks)| {
            Box::pin(jobs::submit(work, who, tasks))
        })
        .await
    }

    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        let given = (who.clone(), job, input);
        self.run(Kind::Writes, given, |work, (who, job, input)| {
            Box::pin(jobs::attach(work, who, *job, input))
        })
        .await
    }

    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        rights::require(who, Right::Read)?;
        self.read((who.clone(), job), |work, (who, job)| {
            Box::pin(jobs::view(work, who, *job))
        })
        .await
    }

    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        rights::require(who, Right::Read)?;
        let given = (who.clone(), filter.clone(), bounds::page(filter)?);
        self.read(given, |work, (who, filter, limit)| {
            Box::pin(jobs::list(work, who, filter, *limit))
        })
        .await
    }

    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        bounds::reason(reason)?;
        let given = (who.clone(), job, reason.to_owned());
        self.run(Kind::Writes, given, |work, (who, job, reason)| {
            Box::pin(jobs::cancel(work, who, *job, reason))
        })
        .await
    }

    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        rights::worker(who)?;
        bounds::claim(&request)?;
        let (pool, who) = (Arc::clone(&self.pool), who.clone());
        let operation = async move { claims::claim(&pool, who, request).await };
        self.to_the_end(Kind::Writes, operation).await
    }

    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        let agent = rights::worker(who)?;
        bounds::renewal(&request)?;
        self.run(Kind::Writes, (agent, request), |work, (agent, request)| {
            Box::pin(claims::renew(work, *agent, request))
        })
        .await
    }

    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        rights::worker(who)?;
        bounds::checkpoint_sizes(&report)?;
        self.run(
            Kind::Writes,
            (who.clone(), report),
            |work, (who, report)| Box::pin(ends::checkpoint(work, who, report)),
        )
        .await
    }

    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        rights::worker(who)?;
        bounds::release(&request)?;
        self.run(
            Kind::Writes,
            (who.clone(), request),
            |work, (who, request)| Box::pin(ends::release(work, who, request)),
        )
        .await
    }

    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        let only = self.finish_many(who, vec![request]).await.pop();
        only.unwrap_or_else(|| Err(StoreError::Internal("a finish has no answer".into())))
    }

    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let (tried, refused) = ending::prepare(who, requests);
        let count = tried.len();
        if count == 0 {
            return refused.with(0, Ok(Vec::new()));
        }
        let pool = Arc::clone(&self.pool);
        let operation = async move { ends::finish_many(&pool, tried).await };
        let ended = self.to_the_end(Kind::Writes, operation).await;
        refused.with(count, ended)
    }

    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        rights::judge(who, &revocation)?;
        let given = (who.clone(), revocation);
        self.run(Kind::Writes, given, |work, (who, revocation)| {
            Box::pin(verdicts::revoke(work, who, revocation))
        })
        .await
    }

    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        rights::require_any(who, &[Right::Operate, Right::Work])?;
        bounds::requeue(limit)?;
        self.run(Kind::Writes, (who.clone(), limit), |work, (who, limit)| {
            Box::pin(verdicts::requeue(work, who, *limit))
        })
        .await
    }

    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        let seen = rights::readable(who)?.map(<[_]>::to_vec);
        bounds::events(limit)?;
        self.run(
            Kind::Reads,
            (seen, after, limit),
            |work, (seen, after, limit)| {
                Box::pin(jobs::events(work, seen.as_deref(), *after, *limit))
            },
        )
        .await
    }

    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        rights::require(who, Right::Submit)?;
        self.run(Kind::Writes, (who.clone(), job), |work, (who, job)| {
            Box::pin(jobs::request_checkpoint(work, who, *job))
        })
        .await
    }

    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        rights::require(who, Right::Operate)?;
        self.run(Kind::Writes, (), |work, ()| {
            Box::pin(connect::new_epoch(work))
        })
        .await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}
