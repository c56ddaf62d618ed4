//! What can be observed.

use serde::{Deserialize, Serialize};

use crate::bytes::fixed_bytes;
use crate::identity::NodeId;
use crate::ids::{ClientKey, Incarnation, JobId, Namespace, Nonce};
use crate::job::{JobState, OnDisconnect};
use crate::lease::{Claim, Fence, Holder};
use crate::time::Timestamp;

fixed_bytes!(
    /// A digest of a document: equal digests, equal documents.
    Digest,
    32,
    "digest"
);

/// One call and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// When it was made.
    pub called: Timestamp,
    /// When its answer arrived, or when waiting for it ended; not before `called`.
    pub returned: Timestamp,
    /// What it was.
    pub deed: Deed,
}

impl Observation {
    /// Whether this was over before `other` began.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.returned < other.called
    }
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// It was done.
    Done(T),
    /// It was not done, and changed nothing.
    Refused,
    /// It may or may not have been done.
    Unknown,
}

impl<T> Answer<T> {
    /// What was done, if it is known to be.
    pub const fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Refused | Self::Unknown => None,
        }
    }

    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Names a checkpoint of a job: the fence it was saved under and its number there.
pub type Saved = (Fence, u64);

/// One granted claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The claim.
    pub claim: Claim,
    /// The checkpoints offered to resume from, best first.
    pub resume: Vec<Saved>,
}

/// A job as it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sight {
    /// The job.
    pub job: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Namespaces of whoever looked.
    pub seen_by: Vec<Namespace>,
    /// Where it stood.
    pub state: JobState,
    /// Attempts that counted against its retries.
    pub counted: u32,
    /// Its retries.
    pub retries: u32,
    /// Digest of its result, if it had one.
    pub result: Option<Digest>,
}

/// An attempt's end as its holder reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// The claim.
    pub claim: Claim,
    /// Digest of outcome and result.
    pub digest: Digest,
    /// Digest of the result alone, as [`Sight::result`] has it.
    pub result: Digest,
    /// Whether it reported success.
    pub success: bool,
    /// Peers that vouched for the output.
    pub copies: u32,
    /// Peers that had to.
    pub copies_needed: u32,
    /// Whether the job was over then, and its state; `false` if it was queued again.
    pub answer: Answer<(bool, JobState)>,
}

/// A stretch of time in which a job's program executed without a pause.
///
/// One that is frozen and thawed makes two stretches. Whoever cannot see starts and ends exactly
/// notes a shorter stretch, of which it is sure: then nothing is accused that did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// Whose program it was.
    pub holder: Holder,
    /// The job.
    pub job: JobId,
    /// The claim's fence.
    pub fence: Fence,
    /// What the task wants of a holder that is cut off.
    pub on_disconnect: OnDisconnect,
    /// Whether two executions must never overlap.
    pub exclusive: bool,
    /// The checkpoint that it went on from.
    pub resumed: Option<Saved>,
    /// Checkpoints that were offered and could not be fetched.
    pub unfetched: Vec<Saved>,
}

/// Why an incarnation was declared dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// Its process was gone.
    Closed,
    /// It was silent.
    Silent,
    /// A later run of its node said so; all earlier ones ended with it.
    Superseded,
}

/// What a call was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Deed {
    /// A store began an epoch.
    Opened {
        /// The epoch.
        epoch: u64,
        /// Length of its leases, in milliseconds.
        lease_ms: u64,
        /// Whether there were jobs before, so that nothing may expire for one lease.
        reopened: bool,
    },
    /// The store's clock was set; nothing may expire for one lease.
    ClockSet,
    /// A task was submitted.
    Submit {
        /// Its namespace.
        namespace: Namespace,
        /// Its submitter's name for it.
        key: ClientKey,
        /// Digest of what was submitted.
        payload: Digest,
        /// The job.
        answer: Answer<JobId>,
    },
    /// An incarnation asked for jobs.
    Claim {
        /// Who.
        holder: Holder,
        /// The request's name.
        nonce: Nonce,
        /// What it was granted.
        answer: Answer<Vec<Granted>>,
    },
    /// An incarnation renewed what it holds.
    Renew {
        /// Who.
        holder: Holder,
        /// What it listed.
        listed: Vec<Claim>,
        /// Whether that was all it held.
        complete: bool,
        /// Of those, the claims that it still holds.
        answer: Answer<Vec<Claim>>,
    },
    /// A checkpoint was reported.
    Checkpoint {
        /// The claim that saved it.
        claim: Claim,
        /// Its number within the claim.
        sequence: u64,
        /// Whether it was taken.
        answer: Answer<()>,
    },
    /// A claim was given back.
    Release {
        /// The claim.
        claim: Claim,
        /// Whether it was taken.
        answer: Answer<()>,
    },
    /// An attempt was ended by its holder.
    Finish(Finish),
    /// A job was ended by its user.
    Cancel {
        /// The job.
        job: JobId,
        /// Its state then.
        answer: Answer<JobState>,
    },
    /// An incarnation was declared dead.
    Revoke {
        /// The agent.
        agent: NodeId,
        /// Its run; with [`Ground::Superseded`] all earlier ones, and not this one.
        incarnation: Incarnation,
        /// Why, where it is known.
        ground: Option<Ground>,
        /// Whether it was ended.
        answer: Answer<bool>,
    },
    /// What expired was looked for.
    Requeue {
        /// Jobs whose lease had expired.
        answer: Answer<Vec<JobId>>,
    },
    /// A job was looked at and shown.
    Seen(Sight),
    /// A job was looked at by somebody of its namespace, and was not there.
    Missing {
        /// The job.
        job: JobId,
    },
    /// A program executed, all the time from `called` to `returned`.
    Ran(Execution),
    /// An agent's process ended, whatever way; by `returned` nothing of it was left.
    Died {
        /// The agent's run.
        holder: Holder,
    },
    /// An agent's machine slept, with everything on it.
    Slept {
        /// The agent.
        agent: NodeId,
    },
    /// From here on no faults happen and a capable agent lives: within this time every job that is
    /// acknowledged by now must be over.
    Calm {
        /// The time, in milliseconds.
        within_ms: u64,
    },
}

impl Deed {
    /// Whether nobody knew the call's outcome.
    pub(super) const fn is_unknown(&self) -> bool {
        match self {
            Self::Submit { answer, .. } => answer.is_unknown(),
            Self::Claim { answer, .. } => answer.is_unknown(),
            Self::Renew { answer, .. } => answer.is_unknown(),
            Self::Checkpoint { answer, .. } | Self::Release { answer, .. } => answer.is_unknown(),
            Self::Finish(finish) => finish.answer.is_unknown(),
            Self::Cancel { answer, .. } => answer.is_unknown(),
            Self::Revoke { answer, .. } => answer.is_unknown(),
            Self::Requeue { answer } => answer.is_unknown(),
            Self::Opened { .. }
            | Self::ClockSet
            | Self::Seen(_)
            | Self::Missing { .. }
            | Self::Ran(_)
            | Self::Died { .. }
            | Self::Slept { .. }
            | Self::Calm { .. } => false,
        }
    }
}
