//! The trait that every demand store implements, and the requests it takes.

use std::fmt::Debug;

use async_trait::async_trait;
use mutual_model::guardian::StateHash;
use mutual_model::identity::{NodeId, PublicKey, SealingPublic};
use mutual_model::ids::{ClientKey, Incarnation, JobId, Namespace, Nonce, StoreId};
use mutual_model::job::{Failure, JobState, TaskSpec};
use mutual_model::lease::{Claim, Fence, HeldJob, LeaseTerms, Lost};
use mutual_model::matching::Offer;
use mutual_model::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::error::StoreResult;
use crate::view::{Checkpoint, EventPage, JobFilter, JobPage, JobView, Manifest, ResultView};

/// What a principal may do within its namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Look at jobs.
    Read,
    /// Submit jobs, attach inputs and cancel.
    Submit,
    /// Claim jobs and report on them.
    Work,
    /// Vote that an agent is dead.
    Guard,
    /// Declare an agent dead alone, requeue, and read every namespace's events.
    Operate,
}

/// Who asks: what an outer layer made sure of. Stores trust it and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// A name for people: user or node.
    pub subject: String,
    /// The node, if a node asks.
    pub node: Option<NodeId>,
    /// Where secrets for this principal are sealed to.
    pub sealing: SealingPublic,
    /// The namespaces it may touch.
    pub namespaces: Vec<Namespace>,
    /// What it may do there.
    pub rights: Vec<Right>,
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreInfo {
    /// The same for every server of one store.
    pub store: StoreId,
    /// Current epoch.
    pub epoch: u64,
    /// The store's clock.
    pub now: UnixMillis,
    /// Lease terms.
    pub terms: LeaseTerms,
    /// `memory`, `sqlite` or `postgres`.
    pub backend: String,
    /// The serving node's key, if a server stands in between.
    #[serde(default)]
    pub server: Option<PublicKey>,
    /// Where data keys of inputs are sealed to, if a server stands in between.
    #[serde(default)]
    pub sealing: Option<SealingPublic>,
}

/// A task to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Namespace to submit to.
    pub namespace: Namespace,
    /// Unique within the namespace; a repeat with the same payload gives the same job, another
    /// payload is a conflict (DESIGN §3.8).
    pub client_key: ClientKey,
    /// The task.
    pub spec: TaskSpec,
    /// Where the result's key is sealed to; the principal's own key if absent.
    #[serde(default)]
    pub result_key: Option<SealingPublic>,
    /// The input, if it is seeded already; the job is then `queued` at once.
    #[serde(default)]
    pub input: Option<Manifest>,
}

/// The answer to one submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// The job, new or the one of an earlier identical submission.
    pub job: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Whether it had been submitted before.
    pub repeated: bool,
}

/// Which jobs a claim is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimScope {
    /// Exactly these, at most 256; those that are not free or do not fit are left out.
    Jobs(Vec<JobId>),
    /// The best queued ones of the principal's namespaces, by rank: priority aged by waiting time
    /// (one priority step is worth 60 s), recovered ones first.
    Any,
}

/// A request for jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The asking run of the principal's node.
    pub incarnation: Incarnation,
    /// Names this request: repeated with the same nonce (the reply was lost), it gives back the
    /// claims it already made, as far as they are still current, and makes no new ones if any
    /// claim was made under this nonce.
    pub nonce: Nonce,
    /// Which jobs.
    pub scope: ClaimScope,
    /// What the agent has to give.
    pub offer: Offer,
    /// Where the agent serves logs, at most 256 bytes.
    pub agent_url: String,
}

/// One claimed job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimGrant {
    /// The claim.
    pub claim: Claim,
    /// The job's namespace.
    pub namespace: Namespace,
    /// The task.
    pub spec: TaskSpec,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// The input. A server in between has re-sealed its key to the claimant.
    pub input: Option<Manifest>,
    /// Checkpoints to resume from, best first, at most two. Keys re-sealed likewise.
    pub checkpoints: Vec<Checkpoint>,
    /// Where the result's data key is to be sealed to.
    pub result_key: SealingPublic,
}

/// The answer to a request for jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimReply {
    /// What was claimed; may be empty.
    pub grants: Vec<ClaimGrant>,
    /// Length of the lease from the moment the request was SENT, in milliseconds.
    pub lease_ms: u64,
    /// Store's clock.
    pub now: UnixMillis,
}

/// A renewal of all leases of one incarnation, or a report of progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The asking run of the principal's node.
    pub incarnation: Incarnation,
    /// What it holds, at most 4,096.
    pub held: Vec<HeldJob>,
    /// Whether `held` is everything it holds. A claim missing from two complete lists in a row
    /// is taken for one whose reply was lost, and released without counting an attempt.
    pub complete: bool,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewReply {
    /// Listed claims that stand.
    pub held: Vec<JobId>,
    /// Listed claims that do not: stop those.
    pub lost: Vec<Lost>,
    /// Held jobs that a user asks a checkpoint of.
    pub checkpoint_wanted: Vec<JobId>,
    /// Digest of every claim this run held when the renewal came, listed or not, without
    /// checkpoints: a run whose own differs has lost a reply, and should list all of them again.
    pub state: StateHash,
    /// Length of the lease from the moment the request was SENT, in milliseconds.
    pub lease_ms: u64,
    /// Store's clock.
    pub now: UnixMillis,
}

/// A saved checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointReport {
    /// The claim that saved it.
    pub claim: Claim,
    /// Counts within the claim, from 1. A sequence at or below the last is ignored.
    pub sequence: u64,
    /// Where it is; needs a receipt from another peer unless `result_copies` is 0.
    pub manifest: Manifest,
}

/// A claim given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The claim.
    pub claim: Claim,
    /// Why, at most 1 KiB, for `mutual explain`.
    pub reason: String,
}

/// How an attempt ended, as its holder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Success,
    /// Badly.
    Failure(Failure),
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishRequest {
    /// The claim.
    pub claim: Claim,
    /// How it ended.
    pub outcome: Outcome,
    /// What it left. A success needs `result_copies` receipts from peers other than the holder.
    pub result: ResultView,
}

/// What a finish did to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It is over.
    Ended,
    /// A failure with retries left: it is queued again.
    Retried,
}

/// The answer to a finish; the same for the same claim and result, however often (DESIGN §3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishReply {
    /// What it did.
    pub disposition: Disposition,
    /// The job's state right after the original finish.
    pub state: JobState,
}

/// Why an incarnation is taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The kernel closed its session and nobody answers at its address any more.
    Closed,
    /// It has been silent for too long; it may still run.
    Silent,
    /// It says so itself: a later run of the same node ends its earlier ones.
    Superseded,
}

/// A verdict that an incarnation is dead (DESIGN §7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The agent.
    pub agent: NodeId,
    /// Its run. For [`Verdict::Superseded`]: the caller's own new run; all earlier ones end.
    pub incarnation: Incarnation,
    /// Why.
    pub verdict: Verdict,
    /// Refused if the store heard from it within this time, in milliseconds.
    pub silent_ms: u64,
    /// Single use.
    pub nonce: Nonce,
}

/// What a verdict did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationReply {
    /// Whether the quorum was reached and the incarnation has ended.
    pub revoked: bool,
    /// Jobs that are queued again.
    pub requeued: Vec<JobId>,
    /// Jobs whose retries were used up.
    pub buried: Vec<JobId>,
    /// Exclusive jobs that wait for their lease to expire instead ([`Verdict::Silent`] only).
    pub waiting: Vec<JobId>,
}

/// What a sweep of expired things did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequeueReport {
    /// Jobs queued again because their lease expired.
    pub requeued: Vec<JobId>,
    /// Jobs whose retries were used up.
    pub buried: Vec<JobId>,
    /// Jobs that waited too long.
    pub expired: Vec<JobId>,
    /// Milliseconds until something may expire; when to sweep again at the latest.
    pub next_ms: u64,
}

/// A durable store of jobs. Every method is one transaction; its doc says what makes a repeat safe.
///
/// Methods are **not** cancel-safe unless said so: a dropped future may or may not have taken
/// effect, exactly like [`StoreError::Unknown`](crate::StoreError::Unknown).
#[async_trait]
pub trait DemandStore: Send + Sync + Debug {
    /// What the store says of itself. Read-only.
    async fn info(&self) -> StoreResult<StoreInfo>;

    /// Stores up to 1,000 tasks at once, all or none. Idempotent by client key. Needs
    /// [`Right::Submit`].
    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>>;

    /// Attaches the input a job waits for and queues it. Idempotent: the same manifest again is
    /// answered alike, another is a conflict. Needs [`Right::Submit`] and a storage receipt.
    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView>;

    /// One job. Needs [`Right::Read`].
    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView>;

    /// A page of jobs. Needs [`Right::Read`].
    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage>;

    /// Ends a job by its user's will. Idempotent. A job that is over is left as it is. Needs
    /// [`Right::Submit`].
    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView>;

    /// Claims jobs. Idempotent by nonce. Needs [`Right::Work`] and a node.
    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply>;

    /// Renews every lease of an incarnation and reports progress. Needs [`Right::Work`].
    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply>;

    /// Records a checkpoint. Idempotent by (fence, sequence). Needs [`Right::Work`].
    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()>;

    /// Gives a claim back without counting an attempt. Needs [`Right::Work`].
    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()>;

    /// Ends an attempt. The same claim and result give the same reply from a transaction that
    /// writes; another result is a conflict. Accepted while the fence is current, even after the
    /// lease expired. Needs [`Right::Work`].
    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply>;

    /// Votes that an incarnation is dead; with enough votes, or from a principal with
    /// [`Right::Operate`], ends all its claims in one statement. Single use by nonce. Needs
    /// [`Right::Guard`]; [`Verdict::Superseded`] needs only [`Right::Work`] and one's own node.
    async fn revoke(&self, who: &Principal, revocation: Revocation)
    -> StoreResult<RevocationReply>;

    /// Queues again what expired by the store's clock, at most `limit` jobs. Needs
    /// [`Right::Operate`]; anyone with [`Right::Work`] may too, since it only does what is due.
    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport>;

    /// Changes after a position, at most `limit` (1 to 10,000), of the caller's namespaces.
    /// Needs [`Right::Read`]. Read-only.
    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage>;

    /// Asks the holder for a checkpoint with its next renewal. Needs [`Right::Submit`].
    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()>;

    /// Begins a new epoch, for example after a restore. Needs [`Right::Operate`].
    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64>;

    /// Ends many attempts at once, each as [`finish`](Self::finish) would; answers in order. What is
    /// refused leaves the others as they are. A store may take them in one transaction: if that
    /// fails as a whole, all are answered so. Over HTTP, a batch holds at most 1,000.
    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let each = requests
            .into_iter()
            .map(|request| self.finish(who, request));
        futures::future::join_all(each).await
    }

    /// A cell that changes whenever this instance committed a change of some job: a hint to ask
    /// for [`events`](Self::events) now. Changes made through other servers of the store may not
    /// show. `None` where there is no such hint.
    fn changes(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        None
    }
}

/// A fence as stores number them: for a first claim in `epoch`.
pub const fn first_fence(epoch: u64) -> Fence {
    Fence { epoch, sequence: 0 }.next(epoch)
}
