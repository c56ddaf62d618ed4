//! One checker of the promises of DESIGN §3 over a recorded list of observations.
//!
//! Whoever drives a demand store — the conformance suite, a simulation, a chaos run on real
//! processes — notes for each call when it was made, when it returned, and what was said; and of
//! programs and machines when they ran, died and slept. The checker knows nothing of how a store or
//! an agent works; it looks for observations that correct ones could not have caused together. Calls
//! that overlap in time may have happened in either order, so only *A returned before B was called*
//! counts as before. The order of the list means nothing.
//!
//! Time is that in which leases are measured. Each promise is one function in a file of its own
//! kind; [`check`] runs them all, in time that grows with the length of the history.
//!
//! # Recording a run of real processes
//! * Note what you do and see: [`Deed::Submit`], [`Deed::Died`] for a process that you killed,
//!   [`Deed::Ran`] for stretches in which you are sure that a program ran, [`Deed::Calm`] when you
//!   have stopped breaking things. Times are microseconds since an origin of your choice.
//! * At the end, list the jobs. `mutual_demand::JobView::observations` turns a view with its
//!   attempts, fences and ends into claims, finishes, releases and verdicts as the store knows them.
//! * [`Journal`] appends all of it to a file as it happens, [`read`] brings it back, [`check`] judges.
//!
//! What was not noted is not judged: a run without [`Deed::Renew`] says nothing about leases.

use serde::{Deserialize, Serialize};

mod checkpoints;
mod deed;
mod ends;
mod executions;
mod fences;
mod file;
mod leases;
mod ledger;
mod liveness;
mod submissions;

#[cfg(test)]
mod tests;

pub use deed::{
    Answer, Deed, Digest, Execution, Finish, Granted, Ground, Observation, Saved, Sight,
};
pub use file::{Journal, LINE_BYTES_MAX, OBSERVATIONS_MAX, ReadError, read};
use ledger::{Ledger, Place};

/// [`Violation::invariant`] of what DESIGN §3 says of executions, below its list.
pub const EXECUTIONS: u8 = 17;
/// [`Violation::invariant`] of what DESIGN §3 says must happen at last.
pub const LIVENESS: u8 = 18;

/// What no correct store or agent could have caused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("invariant {invariant}: {what} (observations {observations:?})")]
pub struct Violation {
    /// Number of the invariant in DESIGN §3, or [`EXECUTIONS`] or [`LIVENESS`].
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
    /// Finishes refused: work done twice that did not count.
    pub refused_finishes: usize,
    /// Stretches of execution.
    pub executions: usize,
    /// Deaths of agents.
    pub deaths: usize,
    /// Calls whose outcome nobody knew.
    pub unknown: usize,
}

type Found = Vec<Violation>;

const PROMISES: &[fn(&Ledger<'_>) -> Found] = &[
    ends::one_accepted_finish,
    fences::grow_per_claim,
    fences::nothing_stale_is_accepted,
    ends::terminal_states_absorb,
    submissions::none_is_lost,
    ends::no_finish_is_lost,
    ends::repeats_are_answered_alike,
    submissions::one_job_per_key,
    fences::one_holder_at_a_time,
    leases::none_ends_early,
    leases::nothing_expires_in_grace,
    fences::epochs_never_fall,
    checkpoints::the_best_is_offered,
    checkpoints::the_best_is_taken,
    submissions::namespaces_are_apart,
    ends::attempts_are_bounded,
    ends::success_is_vouched_for,
    executions::under_a_claim,
    executions::none_outlives_its_agent,
    executions::none_outlives_its_lease,
    executions::none_overlap,
    liveness::every_job_ends,
];

/// Checks every promise.
///
/// # Errors
/// Every [`Violation`] found.
pub fn check(history: &[Observation]) -> Result<Summary, Vec<Violation>> {
    let ledger = Ledger::new(history);
    let found: Found = PROMISES
        .iter()
        .flat_map(|promise| promise(&ledger))
        .collect();
    if found.is_empty() {
        Ok(summary(history, &ledger))
    } else {
        Err(found)
    }
}

fn summary(history: &[Observation], ledger: &Ledger<'_>) -> Summary {
    let acknowledged = ledger
        .jobs
        .values()
        .filter(|told| !told.acknowledged.is_empty());
    let mut summary = Summary {
        observations: history.len(),
        jobs: acknowledged.count(),
        ..Summary::default()
    };
    for deed in history.iter().map(|observation| &observation.deed) {
        match deed {
            Deed::Claim { answer, .. } => summary.claims += answer.done().map_or(0, Vec::len),
            Deed::Finish(finish) => {
                summary.finishes += usize::from(finish.answer.done().is_some());
                summary.refused_finishes += usize::from(finish.answer == Answer::Refused);
            }
            Deed::Ran(_) => summary.executions += 1,
            Deed::Died { .. } => summary.deaths += 1,
            _ => {}
        }
        summary.unknown += usize::from(deed.is_unknown());
    }
    summary
}

fn violation(invariant: u8, what: String, observations: &[Place]) -> Violation {
    Violation {
        invariant,
        what,
        observations: observations.to_vec(),
    }
}
