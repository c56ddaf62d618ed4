//! The steps of a task's life as one table: what is done, by whose request, and what makes a repeat of it harmless.
//!
//! Whatever dies between two steps, or in the middle of one, the step is taken again by whoever comes next. A test on real
//! processes kills every role after every step and takes every step twice; it goes by this table.

use super::JobState;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The task is stored.
    Submit,
    /// Its input, seeded and vouched for, is attached.
    Attach,
    /// An agent claims it and begins to prepare.
    Claim,
    /// The program runs, and its holder says so with each renewal.
    Run,
    /// What it has so far is saved, and another peer holds it.
    Checkpoint,
    /// Its result is stored and vouched for, and the finish waits for the store's answer.
    Finish,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 6] = [
        Self::Submit,
        Self::Attach,
        Self::Claim,
        Self::Run,
        Self::Checkpoint,
        Self::Finish,
    ];

    /// The request to the demand store that takes it.
    pub const fn request(self) -> &'static str {
        match self {
            Self::Submit => "POST /jobs",
            Self::Attach => "POST /jobs/{id}/manifest",
            Self::Claim => "POST /try-claim",
            Self::Run => "POST /renew",
            Self::Checkpoint => "POST /jobs/{id}/checkpoint",
            Self::Finish => "POST /jobs/{id}/finish",
        }
    }

    /// What makes the same request again harmless, by anyone who may make it at all (DESIGN §3.7, 3.8, 3.11).
    pub const fn repeat(self) -> &'static str {
        match self {
            Self::Submit => "the client key names the job",
            Self::Attach => "the same manifest is answered alike, another is a conflict",
            Self::Claim => "the nonce names the claims it made",
            Self::Run => "it says what is so, not what changed",
            Self::Checkpoint => "fence and sequence name the checkpoint",
            Self::Finish => "claim and result name the end, another result is a conflict",
        }
    }

    /// Where a task with an input stands after it.
    pub const fn state(self) -> JobState {
        match self {
            Self::Submit => JobState::AwaitingInput,
            Self::Attach => JobState::Queued,
            Self::Claim => JobState::Assigned,
            Self::Run | Self::Checkpoint => JobState::Running,
            Self::Finish => JobState::Succeeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_from_the_first_state_to_the_last_in_order() {
        let states = Step::ALL.map(Step::state);
        assert!(states.is_sorted());
        assert!(Step::ALL.is_sorted());
        assert_eq!(states.last(), Some(&JobState::Succeeded));
    }
}
