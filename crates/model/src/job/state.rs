//! The life cycle of a job as one table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::FieldError;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Submitted; its input's manifest is still to come.
    AwaitingInput,
    /// Ready for any agent to claim.
    Queued,
    /// Claimed by an agent.
    Assigned,
    /// The holder fetches image and input.
    Preparing,
    /// The task's own program runs.
    Running,
    /// Ended well; the result can be fetched.
    Succeeded,
    /// Ended badly, with no retry left.
    Failed,
    /// Ended by its user.
    Cancelled,
    /// Ran past its time limit, with no retry left.
    TimedOut,
    /// Waited longer than its user allowed.
    Expired,
    /// Its holders died more often than it has retries.
    Dead,
}

/// What moves a job from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The manifest of the input arrived.
    InputReady,
    /// An agent claimed it.
    Claim,
    /// The holder began to fetch.
    Prepare,
    /// The holder started the program.
    Start,
    /// The holder gave it back, or its lease ended with retries left.
    Requeue,
    /// The holder finished it well.
    Succeed,
    /// The holder reported a failure with no retry left.
    Fail,
    /// The holder reported a time-out with no retry left.
    TimeOut,
    /// The user ended it.
    Cancel,
    /// It waited too long.
    Expire,
    /// A holder's death used up the last retry.
    Bury,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 11] = [
        Self::AwaitingInput,
        Self::Queued,
        Self::Assigned,
        Self::Preparing,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Expired,
        Self::Dead,
    ];

    /// Whether an agent holds the job.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Assigned | Self::Preparing | Self::Running)
    }

    /// Whether the job is over; nothing leaves such a state (DESIGN §3.4).
    pub const fn is_terminal(self) -> bool {
        !self.is_held() && !matches!(self, Self::AwaitingInput | Self::Queued)
    }

    /// The state after `transition`, or `None` if it is not allowed from here.
    pub const fn after(self, transition: Transition) -> Option<Self> {
        use JobState as S;
        use Transition as T;
        Some(match (self, transition) {
            (S::AwaitingInput, T::InputReady) => S::Queued,
            (S::Queued, T::Claim) => S::Assigned,
            (S::Assigned | S::Preparing, T::Prepare) => S::Preparing,
            (S::Assigned | S::Preparing | S::Running, T::Start) => S::Running,
            (S::Assigned | S::Preparing | S::Running, T::Requeue) => S::Queued,
            (S::Assigned | S::Preparing | S::Running, T::Succeed) => S::Succeeded,
            (S::Assigned | S::Preparing | S::Running, T::Fail) => S::Failed,
            (S::Assigned | S::Preparing | S::Running, T::TimeOut) => S::TimedOut,
            (S::Assigned | S::Preparing | S::Running, T::Bury) => S::Dead,
            (S::AwaitingInput | S::Queued, T::Expire) => S::Expired,
            (state, T::Cancel) if !state.is_terminal() => S::Cancelled,
            _ => return None,
        })
    }

    /// The name used in SQL, REST and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwaitingInput => "awaiting_input",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for JobState {
    type Err = FieldError;
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let known = Self::ALL.into_iter().find(|state| state.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            FieldError::new("state", "unknown state", format!("use one of {names}"))
        })
    }
}

/// Why an attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Failure {
    /// The program ended with a code other than 0.
    ExitCode {
        /// The code.
        code: i32,
    },
    /// The program was ended by a signal that the agent did not send.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The program used more memory than it asked for.
    OutOfMemory,
    /// The program ran past its time limit.
    TimeLimit,
    /// The program filled its scratch disk.
    ScratchFull,
    /// The task could not be started: no such command, no image, no such input.
    NotStarted {
        /// What went wrong, for the user.
        reason: String,
        /// Whether another agent may do better.
        retryable: bool,
    },
    /// The result could not be stored, or no peer would keep a copy.
    ResultNotStored {
        /// What went wrong, for the user.
        reason: String,
    },
}

impl Failure {
    /// Whether a further attempt makes sense.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotStarted { retryable, .. } => *retryable,
            Self::ExitCode { .. }
            | Self::Signal { .. }
            | Self::OutOfMemory
            | Self::TimeLimit
            | Self::ScratchFull
            | Self::ResultNotStored { .. } => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode { code } => write!(f, "exit code {code}"),
            Self::Signal { signal } => write!(f, "ended by signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::TimeLimit => f.write_str("time limit reached"),
            Self::ScratchFull => f.write_str("scratch disk full"),
            Self::NotStarted { reason, .. } => write!(f, "not started: {reason}"),
            Self::ResultNotStored { reason } => write!(f, "result not stored: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSITIONS: [Transition; 11] = [
        Transition::InputReady,
        Transition::Claim,
        Transition::Prepare,
        Transition::Start,
        Transition::Requeue,
        Transition::Succeed,
        Transition::Fail,
        Transition::TimeOut,
        Transition::Cancel,
        Transition::Expire,
        Transition::Bury,
    ];

    #[test]
    fn nothing_leaves_a_terminal_state() {
        for state in JobState::ALL
            .into_iter()
            .filter(|state| state.is_terminal())
        {
            for transition in TRANSITIONS {
                assert_eq!(state.after(transition), None, "{state} {transition:?}");
            }
        }
    }

    #[test]
    fn every_live_state_can_end_and_be_cancelled() {
        for state in JobState::ALL
            .into_iter()
            .filter(|state| !state.is_terminal())
        {
            assert_eq!(state.after(Transition::Cancel), Some(JobState::Cancelled));
            let ends = TRANSITIONS.into_iter().filter_map(|t| state.after(t));
            assert!(ends.into_iter().any(JobState::is_terminal), "{state}");
        }
    }

    #[test]
    fn names_read_back() {
        for state in JobState::ALL {
            assert_eq!(state.name().parse::<JobState>().unwrap(), state);
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.name()));
        }
        assert!("done".parse::<JobState>().is_err());
    }
}
