//! What `--json` shows of a job: the program's own shape, so that scripts survive changes inside.
//!
//! Fields are only ever added. Times are RFC 3339 in UTC; lengths of time are in milliseconds.

use mutual_node::demand::{Attempt, Checkpoint, JobView, Manifest, Metrics, Reason};
use mutual_node::model::job::{ArrayIndex, JobState};
use mutual_node::model::time::UnixMillis;
use serde::Serialize;

use crate::output::utc_time;

/// One job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JobDocument {
    pub(crate) job: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) state: JobState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) submitter: String,
    pub(crate) command: Vec<String>,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) array: Option<ArrayIndex>,
    pub(crate) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<String>,
    pub(crate) retries: u32,
    pub(crate) attempts_counted: u32,
    pub(crate) attempts: Vec<AttemptDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_cid: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) checkpoints: Vec<CheckpointDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<ResultDocument>,
    /// Whether a replica of the store answered, its primary being away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) possibly_old: bool,
}

/// One claim of a job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AttemptDocument {
    pub(crate) fence: String,
    pub(crate) agent: String,
    pub(crate) agent_url: String,
    pub(crate) claimed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// `null` while it lasts.
    pub(crate) end: Option<mutual_node::demand::AttemptEnd>,
}

/// What a finished attempt left.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ResultDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_cid: Option<String>,
    pub(crate) artifacts: Vec<mutual_node::demand::Artifact>,
    /// Peers that vouch for the result with a storage receipt.
    pub(crate) copies: Vec<String>,
    pub(crate) metrics: Metrics,
}

fn maybe_time(at: Option<UnixMillis>) -> Option<String> {
    at.map(utc_time)
}

impl From<&JobView> for JobDocument {
    fn from(job: &JobView) -> Self {
        Self {
            job: job.id.to_string(),
            namespace: job.namespace.to_string(),
            name: job.spec.name.clone(),
            state: job.state,
            reason: job.reason.as_ref().map(reason_text),
            submitter: job.submitter.subject.clone(),
            command: job.spec.command.clone(),
            image: job.spec.image.to_string(),
            array: job.spec.array,
            created_at: utc_time(job.created_at),
            queued_at: maybe_time(job.queued_at),
            finished_at: maybe_time(job.finished_at),
            retries: job.spec.retries,
            attempts_counted: job.attempts_counted,
            attempts: job.attempts.iter().map(AttemptDocument::from).collect(),
            input_cid: job.input.as_ref().map(|input| input.root.to_string()),
            checkpoints: job.checkpoints.iter().map(Into::into).collect(),
            result: job.result.as_ref().map(ResultDocument::from),
            possibly_old: job.possibly_old,
        }
    }
}

/// A saved state of a job, from which its next attempt would go on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckpointDocument {
    /// The attempt that saved it.
    pub(crate) fence: String,
    /// Counts within the attempt.
    pub(crate) sequence: u64,
    pub(crate) cid: String,
    pub(crate) bytes: u64,
    /// Peers that vouch for it with a storage receipt.
    pub(crate) copies: Vec<String>,
}

impl From<&Checkpoint> for CheckpointDocument {
    fn from(saved: &Checkpoint) -> Self {
        Self {
            fence: saved.fence.to_string(),
            sequence: saved.sequence,
            cid: saved.manifest.root.to_string(),
            bytes: saved.manifest.bytes,
            copies: holders(&saved.manifest),
        }
    }
}

fn holders(manifest: &Manifest) -> Vec<String> {
    let receipts = manifest.receipts.iter();
    receipts
        .map(|receipt| receipt.holder.node_id().to_string())
        .collect()
}

impl From<&Attempt> for AttemptDocument {
    fn from(attempt: &Attempt) -> Self {
        Self {
            fence: attempt.fence.to_string(),
            agent: attempt.holder.agent.to_string(),
            agent_url: attempt.agent_url.clone(),
            claimed_at: utc_time(attempt.claimed_at),
            started_at: maybe_time(attempt.started_at),
            ended_at: maybe_time(attempt.ended_at),
            end: attempt.end,
        }
    }
}

impl From<&mutual_node::demand::ResultView> for ResultDocument {
    fn from(result: &mutual_node::demand::ResultView) -> Self {
        let output = result.output.as_ref();
        Self {
            cid: output.map(|output| output.root.to_string()),
            log_cid: result.log.as_ref().map(|log| log.root.to_string()),
            artifacts: result.artifacts.clone(),
            copies: output.map(holders).unwrap_or_default(),
            metrics: result.metrics,
        }
    }
}

/// Why a job is where it is, in words.
pub(crate) fn reason_text(reason: &Reason) -> String {
    match reason {
        Reason::Failure(failure) => failure.to_string(),
        Reason::Cancelled(words) if words.is_empty() => "cancelled".to_owned(),
        Reason::Cancelled(words) => format!("cancelled: {words}"),
        Reason::WaitedTooLong => "waited longer than it may".to_owned(),
        Reason::HolderLost => "its machine was lost".to_owned(),
        Reason::Released(words) => format!("given back: {words}"),
    }
}

/// The first characters of an id, enough to tell things apart on a screen.
pub(crate) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(8).collect()
}

/// What a job is called on a screen: its name, else its program; an array's member with its number.
pub(crate) fn title(job: &JobView) -> String {
    let spec = &job.spec;
    let name = match (spec.name.is_empty(), spec.command.first()) {
        (false, _) => spec.name.clone(),
        (true, Some(program)) => program.rsplit('/').next().unwrap_or(program).to_owned(),
        (true, None) => String::new(),
    };
    match spec.array {
        Some(array) => format!("{name}[{}/{}]", array.index, array.count),
        None => name,
    }
}
