//! One checker of the promises of DESIGN §3 over a recorded list of observations.
//!
//! Whoever drives a demand store — the conformance suite, a simulation, a chaos run on real
//! processes — notes for each call when it was made, when it returned, and what was said. The
//! checker knows nothing of how a store works; it looks for pairs of observations that no correct
//! store could have caused. Calls that overlap in time may have happened in either order, so only
//! *A returned before B was called* counts as before.
//!
//! Time is that in which leases are measured. Each invariant is one function in a file of its own
//! kind; [`check`] runs them all.

use serde::{Deserialize, Serialize};

use crate::identity::NodeId;
use crate::ids::{ClientKey, Incarnation, JobId, Namespace, Nonce};
use crate::job::JobState;
use crate::lease::{Claim, Fence, Holder};
use crate::time::Timestamp;

mod checkpoints;
mod ends;
mod fences;
mod leases;
mod submissions;

#[cfg(test)]
mod tests;

/// One call and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was made.
    pub called: Timestamp,
    /// When its answer arrived, or when waiting for it ended.
    pub returned: Timestamp,
    /// What it was.
    pub deed: Deed,
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// One granted claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The claim.
    pub claim: Claim,
    /// Fence and sequence of the checkpoints offered to resume from, best first.
    pub resume: Vec<(Fence, u64)>,
}

/// A job as it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub result: Option<[u8; 32]>,
}

/// An attempt's end as its holder reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The claim.
    pub claim: Claim,
    /// Digest of outcome and result.
    pub digest: [u8; 32],
    /// Digest of the result alone, as [`Sight::result`] has it.
    pub result: [u8; 32],
    /// Whether it reported success.
    pub success: bool,
    /// Peers that vouched for the output.
    pub copies: u32,
    /// Peers that had to.
    pub copies_needed: u32,
    /// Whether the job was over then, and its state; `false` if it was queued again.
    pub answer: Answer<(bool, JobState)>,
}

/// What a call was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
        payload: [u8; 32],
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
        /// Jobs that it still holds.
        answer: Answer<Vec<JobId>>,
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
        /// Its run; all earlier ones, if it was superseded.
        incarnation: Incarnation,
        /// Whether it said so itself.
        superseded: bool,
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
}

/// What no correct store could have caused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("invariant {invariant}: {what} (observations {observations:?})")]
pub struct Violation {
    /// Number of the invariant in DESIGN §3.
    pub invariant: u8,
    /// What is wrong.
    pub what: String,
    /// Positions of the observations that contradict each other.
    pub observations: Vec<usize>,
}

/// What a history without contradiction held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Observations.
    pub observations: usize,
    /// Jobs acknowledged.
    pub jobs: usize,
    /// Claims granted, repeats included.
    pub claims: usize,
    /// Finishes acknowledged, repeats included.
    pub finishes: usize,
    /// Calls whose outcome nobody knew.
    pub unknown: usize,
}

/// The history as the invariants look at it.
pub(crate) type History<'a> = &'a [Observation];
pub(crate) type Found = Vec<Violation>;

const INVARIANTS: &[fn(History<'_>) -> Found] = &[
    ends::one_accepted_finish,
    fences::grow_per_claim,
    fences::nothing_stale_is_accepted,
    ends::terminal_states_absorb,
    submissions::none_is_lost,
    ends::no_finish_is_lost,
    ends::repeats_are_answered_alike,
    submissions::one_job_per_key,
    leases::one_holder_at_a_time,
    leases::none_ends_early,
    leases::nothing_expires_in_grace,
    fences::epochs_never_fall,
    checkpoints::resume_from_the_best,
    submissions::namespaces_are_apart,
    ends::attempts_are_bounded,
    ends::success_is_vouched_for,
];

/// Checks every invariant.
///
/// # Errors
/// Every [`Violation`] found.
pub fn check(history: &[Observation]) -> Result<Summary, Vec<Violation>> {
    let found: Found = INVARIANTS
        .iter()
        .flat_map(|invariant| invariant(history))
        .collect();
    if found.is_empty() {
        Ok(summary(history))
    } else {
        Err(found)
    }
}

fn summary(history: History<'_>) -> Summary {
    let mut summary = Summary {
        observations: history.len(),
        ..Summary::default()
    };
    let mut jobs = std::collections::BTreeSet::new();
    for observation in history {
        match &observation.deed {
            Deed::Submit {
                answer: Answer::Done(job),
                ..
            } => drop(jobs.insert(*job)),
            Deed::Claim {
                answer: Answer::Done(granted),
                ..
            } => summary.claims += granted.len(),
            Deed::Finish(Finish {
                answer: Answer::Done(_),
                ..
            }) => summary.finishes += 1,
            _ => {}
        }
        summary.unknown += usize::from(is_unknown(&observation.deed));
    }
    summary.jobs = jobs.len();
    summary
}

const fn is_unknown(deed: &Deed) -> bool {
    matches!(
        deed,
        Deed::Submit {
            answer: Answer::Unknown,
            ..
        } | Deed::Claim {
            answer: Answer::Unknown,
            ..
        } | Deed::Renew {
            answer: Answer::Unknown,
            ..
        } | Deed::Checkpoint {
            answer: Answer::Unknown,
            ..
        } | Deed::Release {
            answer: Answer::Unknown,
            ..
        } | Deed::Finish(Finish {
            answer: Answer::Unknown,
            ..
        }) | Deed::Cancel {
            answer: Answer::Unknown,
            ..
        } | Deed::Revoke {
            answer: Answer::Unknown,
            ..
        } | Deed::Requeue {
            answer: Answer::Unknown
        }
    )
}

pub(crate) fn violation(invariant: u8, what: String, observations: &[usize]) -> Violation {
    Violation {
        invariant,
        what,
        observations: observations.to_vec(),
    }
}

impl Observation {
    /// Whether this was over before `other` began.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.returned < other.called
    }
}

/// Everything that shows a claim in force: its grant, and each accepted word of its holder.
pub(crate) fn signs_of_life(history: History<'_>) -> Vec<(usize, Claim)> {
    let mut signs = Vec::new();
    let mut first_finish = std::collections::BTreeSet::new();
    for (position, observation) in history.iter().enumerate() {
        match &observation.deed {
            Deed::Renew {
                listed,
                answer: Answer::Done(held),
                ..
            } => {
                let kept = listed.iter().filter(|claim| held.contains(&claim.job));
                signs.extend(kept.map(|claim| (position, *claim)));
            }
            Deed::Checkpoint {
                claim,
                answer: Answer::Done(()),
                ..
            } => {
                signs.push((position, *claim));
            }
            // Later ones may be repeats, which are answered whatever became of the job.
            Deed::Finish(finish)
                if finish.answer.done().is_some()
                    && first_finish.insert(finish.claim)
                    && !has_doubtful_finish(history, finish) =>
            {
                signs.push((position, finish.claim));
            }
            _ => {}
        }
    }
    signs
}

/// Whether a finish of this claim went unanswered, so that an accepted one may be its repeat.
fn has_doubtful_finish(history: History<'_>, finish: &Finish) -> bool {
    history.iter().any(|observation| {
        matches!(&observation.deed, Deed::Finish(other)
            if other.claim == finish.claim && other.answer == Answer::Unknown)
    })
}

/// Every grant, with its position.
pub(crate) fn grants(history: History<'_>) -> impl Iterator<Item = (usize, Holder, &Granted)> {
    history
        .iter()
        .enumerate()
        .flat_map(|(position, observation)| {
            let (holder, granted) = match &observation.deed {
                Deed::Claim {
                    holder,
                    answer: Answer::Done(granted),
                    ..
                } => (Some(*holder), granted.as_slice()),
                _ => (None, [].as_slice()),
            };
            granted
                .iter()
                .filter_map(move |one| Some((position, holder?, one)))
        })
}
