//! What a store shows of its jobs.

use mutual_model::identity::NodeId;
use mutual_model::ids::{ClientKey, ContentId, JobId, Namespace};
use mutual_model::job::{Failure, JobState, TaskSpec};
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::receipt::StorageReceipt;
use mutual_model::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// How an object is encrypted and who may learn its key. No plaintext key stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncMeta {
    /// The scheme, `aes-256-gcm-stream/1`.
    pub scheme: String,
    /// The data key, sealed: to the demand store for inputs, to the submitter for results.
    /// At most 1 KiB.
    #[serde(with = "hex::serde")]
    pub sealed_key: Vec<u8>,
}

/// Where an object is and how to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Root of its Merkle DAG (`manifest_root_cid`).
    pub root: ContentId,
    /// Bytes of all its blocks.
    pub bytes: u64,
    /// Addresses of peers that serve it, at most 16 of 512 bytes each.
    pub seeders: Vec<String>,
    /// Its encryption.
    pub enc_meta: EncMeta,
    /// Who vouches for holding it, at most 16.
    #[serde(default)]
    pub receipts: Vec<StorageReceipt>,
}

/// One file of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Path below the output directory.
    pub path: String,
    /// Bytes of the plain file.
    pub bytes: u64,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Mean processor use while running, in cores.
    pub cpu_avg: f64,
    /// Peak memory in bytes.
    pub mem_peak_bytes: u64,
    /// Bytes read from storage.
    pub io_read_bytes: u64,
    /// Bytes written to storage.
    pub io_write_bytes: u64,
    /// Time spent fetching image and input, in milliseconds.
    pub preparing_ms: u64,
    /// Time from the program's start to its end, in milliseconds.
    pub running_ms: u64,
}

/// What a finished attempt left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultView {
    /// The output object; absent when the attempt failed before there was one.
    pub output: Option<Manifest>,
    /// Its files, at most 1,000 listed.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// The log object.
    pub log: Option<Manifest>,
    /// What it used.
    pub metrics: Metrics,
}

/// A job's saved progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The claim that saved it.
    pub fence: Fence,
    /// Counts within the claim.
    pub sequence: u64,
    /// Where it is. Its key is sealed to the demand store.
    pub manifest: Manifest,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why", content = "detail")]
pub enum Reason {
    /// The last attempt failed.
    Failure(Failure),
    /// The user ended it, with these words.
    Cancelled(String),
    /// It waited longer than allowed.
    WaitedTooLong,
    /// Its holder's lease ended or its holder was declared dead.
    HolderLost,
    /// Its holder gave it back, for this reason.
    Released(String),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// With a result.
    Succeeded,
    /// With a failure.
    Failed,
    /// Given back by its holder; does not count against the retries.
    Released,
    /// Its lease ran out.
    LeaseExpired,
    /// Its holder was declared dead.
    Revoked,
    /// The user ended the job.
    Cancelled,
}

/// One claim of a job, past or present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its token.
    pub fence: Fence,
    /// Who held it.
    pub holder: Holder,
    /// HTTP address of the holder, for logs.
    pub agent_url: String,
    /// When it was claimed, by the store's clock.
    pub claimed_at: UnixMillis,
    /// When its program started, by the store's clock.
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the store's clock.
    pub ended_at: Option<UnixMillis>,
    /// How it ended; `None` while it lasts.
    pub end: Option<AttemptEnd>,
    /// Its log, if it failed: another attempt may follow, and what this one said is wanted then too.
    #[serde(default)]
    pub log: Option<Manifest>,
}

/// Everything a store shows of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its submitter's name for it.
    pub client_key: ClientKey,
    /// Who submitted it: the key that its result's data key is sealed to, and a name.
    pub submitter: Submitter,
    /// What it is.
    pub spec: TaskSpec,
    /// Where it stands.
    pub state: JobState,
    /// Why, where there is more to say.
    pub reason: Option<Reason>,
    /// When it was submitted, by the store's clock, as are all times here.
    pub created_at: UnixMillis,
    /// When it first became `queued`.
    pub queued_at: Option<UnixMillis>,
    /// When it reached a terminal state.
    pub finished_at: Option<UnixMillis>,
    /// Attempts that count against its retries: failures and holders' deaths.
    pub attempts_counted: u32,
    /// Its last 16 attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Its input.
    pub input: Option<Manifest>,
    /// Its best checkpoint and the one before, best first.
    pub checkpoints: Vec<Checkpoint>,
    /// What it left.
    pub result: Option<ResultView>,
    /// Whether a replica answered, so that this may be out of date (DESIGN §3, liveness).
    #[serde(default)]
    pub possibly_old: bool,
}

/// Who submitted a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitter {
    /// Name of the user or node, from its credential.
    pub subject: String,
    /// X25519 key that the result's data key is sealed to.
    pub sealing: mutual_model::identity::SealingPublic,
}

impl JobView {
    /// The attempt in force, if an agent holds the job.
    pub fn current(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|attempt| attempt.end.is_none())
    }

    /// Whether the last holder that did not give the job back died or fell silent.
    pub fn has_lost_holder(&self) -> bool {
        let ends = self.attempts.iter().rev().filter_map(|attempt| attempt.end);
        let mut ends = ends.filter(|end| *end != AttemptEnd::Released);
        let last = ends.next();
        matches!(last, Some(AttemptEnd::Revoked | AttemptEnd::LeaseExpired))
    }
}

/// Which jobs to list. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    /// Only this namespace; all of the caller's if absent.
    #[serde(default)]
    pub namespace: Option<Namespace>,
    /// Only these states; all if empty.
    #[serde(default)]
    pub states: Vec<JobState>,
    /// Only jobs whose task name starts with this.
    #[serde(default)]
    pub name_prefix: Option<String>,
    /// Only jobs held by this agent.
    #[serde(default)]
    pub holder: Option<NodeId>,
    /// Only jobs older than this one: the last of the page before.
    #[serde(default)]
    pub before: Option<JobId>,
    /// At most this many, 1 to 1,000; 100 if 0.
    #[serde(default)]
    pub limit: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// `before` for the next page; `None` on the last.
    pub next: Option<JobId>,
    /// Whether a replica answered, so that the page may be out of date (DESIGN §3, liveness).
    #[serde(default)]
    pub possibly_old: bool,
}

/// One change of a job's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEvent {
    /// Grows with every change in this store; gaps are possible.
    pub sequence: u64,
    /// When, by the store's clock.
    pub at: UnixMillis,
    /// The job.
    pub job: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The state it entered.
    pub state: JobState,
    /// The claim it happened under.
    pub claim: Option<Claim>,
    /// Who held it.
    pub agent: Option<NodeId>,
    /// Why, where there is more to say.
    pub reason: Option<Reason>,
}

/// Changes since a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventPage {
    /// In order.
    pub events: Vec<JobEvent>,
    /// Position to ask from next.
    pub next: u64,
}
