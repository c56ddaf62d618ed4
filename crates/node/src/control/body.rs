//! The bodies of version 1: what is taken and what is answered.
//!
//! Requests are types of this edge, read strictly. A job is shown as the demand store shows it;
//! [`Task`] describes it for the OpenAPI document, and a test holds the two together.

use mutual_demand::{JobPage, JobView, Manifest, StoreInfo, Submission, Submitted};
use mutual_model::identity::SealingPublic;
use mutual_model::ids::{ClientKey, JobId, Namespace};
use mutual_model::job::{JobState, TaskSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Seeding;
use super::offer::{Declined, Neighbour};

/// A task to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTask {
    /// Namespace to submit to.
    #[schema(value_type = String, example = "lab")]
    namespace: Namespace,
    /// The submitter's own name for it, unique within the namespace: a repeated submission with
    /// the same key and payload gives the same job. Without one, a repeat makes another job.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "sweep-2026-11/17")]
    client_key: Option<ClientKey>,
    /// The task: `command` and `resources` {`cpu_millis`, `memory_bytes`, `gpus`, `scratch_bytes`},
    /// `timeout_ms`, `expires_ms` are needed; `name`, `env`, `image`, `class`, `has_input`,
    /// `outputs`, `retries`, `priority`, `on_disconnect`, `exclusive`, `network`, `array`,
    /// `labels`, `result_copies` and `checkpoint_ms` may be given.
    #[schema(value_type = Object)]
    spec: TaskSpec,
    /// X25519 key in hexadecimal that the result's key is sealed to; the token's own if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    result_key: Option<SealingPublic>,
    /// The input, if it is seeded already.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    input: Option<Manifest>,
}

/// Several tasks, stored together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTasks {
    pub(super) tasks: Vec<NewTask>,
}

impl NewTask {
    pub(super) fn into_submission(self) -> Submission {
        let fresh = || {
            let key = Uuid::from_bytes(rand::random()).simple().to_string();
            key.parse().expect("32 hexadecimal digits are a client key")
        };
        Submission {
            namespace: self.namespace,
            client_key: self.client_key.unwrap_or_else(fresh),
            spec: self.spec,
            result_key: self.result_key,
            input: self.input,
        }
    }
}

/// What became of one submitted task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The job.
    #[schema(value_type = Uuid)]
    job_id: JobId,
    /// Where it stands.
    #[schema(value_type = String, example = "queued")]
    state: JobState,
    /// Whether it had been submitted before.
    repeated: bool,
}

impl From<Submitted> for Accepted {
    fn from(submitted: Submitted) -> Self {
        Self {
            job_id: submitted.job,
            state: submitted.state,
            repeated: submitted.repeated,
        }
    }
}

/// The answer to a submission: the jobs in the order of the tasks, and all that a client needs to
/// seed their inputs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct SubmitAnswer {
    pub(super) tasks: Vec<Accepted>,
    /// The demand store: its id, clock, lease terms, its server's key, and the `sealing` key that
    /// data keys of inputs are sealed to.
    #[schema(value_type = Object)]
    pub(super) store: StoreInfo,
    pub(super) seeding: Seeding,
    /// Peers through which a client joins the DHT.
    pub(super) bootstrap: Vec<String>,
}

/// A task as the demand store shows it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes JobView, which is what is sent")]
pub(super) struct Task {
    /// Its id.
    id: Uuid,
    /// Its namespace.
    namespace: String,
    /// Its submitter's name for it.
    client_key: String,
    /// Who submitted it.
    #[schema(value_type = Object)]
    submitter: Value,
    /// What it is.
    #[schema(value_type = Object)]
    spec: Value,
    /// `awaiting_input`, `queued`, `assigned`, `preparing`, `running`, `succeeded`, `failed`,
    /// `cancelled`, `timed_out`, `expired` or `dead`.
    state: String,
    /// Why, where there is more to say.
    #[schema(value_type = Option<Object>)]
    reason: Option<Value>,
    /// When it was submitted, in unix milliseconds of the store's clock, as are all times here.
    created_at: u64,
    /// When it first became `queued`.
    queued_at: Option<u64>,
    /// When it ended.
    finished_at: Option<u64>,
    /// Attempts that count against its retries.
    attempts_counted: u32,
    /// Its last 16 attempts, oldest first: fence, holder, times, end.
    #[schema(value_type = Vec<Object>)]
    attempts: Vec<Value>,
    /// Its input.
    #[schema(value_type = Option<Object>)]
    input: Option<Value>,
    /// Its latest checkpoints, best first.
    #[schema(value_type = Vec<Object>)]
    checkpoints: Vec<Value>,
    /// What it left: output and log with their CIDs, artifacts, metrics.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Whether a replica of the store answered, its primary being away, so that this may be out of date.
    possibly_old: bool,
}

/// One page of tasks, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TaskPage {
    #[schema(value_type = Vec<Task>)]
    tasks: Vec<JobView>,
    /// `before` for the next page; absent on the last.
    #[schema(value_type = Option<Uuid>)]
    next: Option<JobId>,
    /// Whether a replica answered, so that the page may be out of date.
    possibly_old: bool,
}

impl From<JobPage> for TaskPage {
    fn from(page: JobPage) -> Self {
        Self {
            tasks: page.jobs,
            next: page.next,
            possibly_old: page.possibly_old,
        }
    }
}

/// One agent that has a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogStream {
    /// The agent.
    pub agent: String,
    /// Which attempt, counted from 1.
    pub attempt: u64,
    /// Its WebSocket address.
    pub url: String,
    /// Goes into the `authorization: Bearer` header of that request.
    pub token: String,
}

/// Where a task's log is. The log itself never passes through here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAccess {
    /// Agents that have it, the current or last holder first.
    pub streams: Vec<LogStream>,
    /// When the tokens stop opening streams, in unix milliseconds.
    pub expires: u64,
}

/// Why a task is where it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Explanation {
    #[schema(value_type = Task)]
    pub(super) task: JobView,
    /// How long it has been waiting in the queue, by the store's clock, in milliseconds.
    pub(super) waiting_ms: Option<u64>,
    /// Why agents left it, in their own words.
    #[schema(value_type = Vec<Object>)]
    pub(super) declined: Vec<Declined>,
    /// Every node known in its namespace, and what keeps it from taking the task.
    pub(super) nodes: Vec<Fit>,
}

/// Whether a task fits on a node.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Fit {
    /// The node.
    pub(super) node: String,
    /// What keeps it from taking the task; absent if nothing does.
    pub(super) unfit: Option<String>,
}

/// A node that is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct NodeView {
    /// Its id.
    id: String,
    /// Base URLs of its HTTP interface.
    http: Vec<String>,
    /// All that its owner offers.
    #[schema(value_type = Object)]
    total: mutual_model::resources::Resources,
    /// What it has to give now.
    #[schema(value_type = Object)]
    offer: mutual_model::matching::Offer,
}

impl From<Neighbour> for NodeView {
    fn from(neighbour: Neighbour) -> Self {
        Self {
            id: neighbour.id().to_string(),
            http: neighbour.http,
            total: neighbour.total,
            offer: neighbour.offer,
        }
    }
}

/// A demand store behind this control.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct StoreView {
    /// Its addresses.
    pub(super) url: String,
    /// What it says of itself, if it answers.
    #[schema(value_type = Option<Object>)]
    pub(super) info: Option<StoreInfo>,
    /// Why there is no answer.
    pub(super) problem: Option<String>,
}

/// Whether this process works.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`: a process that does not work does not answer.
    pub(super) status: &'static str,
    /// This program's version.
    pub(super) version: &'static str,
}
