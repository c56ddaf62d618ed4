//! Leases and fences: who may act on a job, and until when.
//!
//! A claim gives an agent a *fence* — a token that grows with every claim — and a *lease* by the
//! store's clock. Every later write names fence and nonce; a write with any but the current pair
//! is [fenced](crate::lease::Fence) off without a side effect (DESIGN §3.2, 3.3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::NodeId;
use crate::ids::{Incarnation, JobId, Nonce};

/// A claim's token. Ordered by epoch, then sequence; strictly increasing per job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The store's epoch when the claim was made; greater after every restart or failover.
    pub epoch: u64,
    /// Counts the claims of one job.
    pub sequence: u64,
}

impl Fence {
    /// The token of the next claim of a job whose last token was `self`, in `epoch`.
    ///
    /// The sequence goes on across epochs, so that tokens grow even if an epoch were repeated.
    #[must_use]
    pub const fn next(self, epoch: u64) -> Self {
        Self {
            epoch,
            sequence: self.sequence + 1,
        }
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// A claim as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// Its token.
    pub fence: Fence,
    /// The random number the agent chose for this claim.
    pub nonce: Nonce,
}

/// One run of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The agent.
    pub agent: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// Bounds on leases, set by the store's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// Length of a lease, in milliseconds. Also how long nothing expires after a store start.
    pub lease_ms: u64,
    /// How often holders renew, in milliseconds.
    pub renew_ms: u64,
}

impl Default for LeaseTerms {
    /// 20 s and 5 s (DESIGN §5): three renewals may be lost before a claim is.
    fn default() -> Self {
        Self {
            lease_ms: 20_000,
            renew_ms: 5_000,
        }
    }
}

impl LeaseTerms {
    /// Length of a lease.
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Interval between renewals.
    pub const fn renewal(&self) -> Duration {
        Duration::from_millis(self.renew_ms)
    }
}

/// How far a held job has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Claimed, nothing begun.
    Assigned,
    /// Fetching image and input.
    Preparing,
    /// The program runs.
    Running,
}

/// A held job in a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldJob {
    /// The claim.
    pub claim: Claim,
    /// How far it has got; moves the job's state forward, never back.
    pub phase: Phase,
}

/// Why a listed claim is held no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// The user cancelled the job.
    Cancelled,
    /// The claim is not the current one.
    Fenced,
    /// The job is over; its finish was accepted earlier.
    Finished,
}

/// A listed claim that is held no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// The claim as listed.
    pub claim: Claim,
    /// Why.
    pub reason: LostReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_grow_within_and_across_epochs() {
        let first = Fence {
            epoch: 5,
            sequence: 9,
        };
        assert!(first.next(5) > first);
        assert!(first.next(6) > first.next(5));
    }
}
