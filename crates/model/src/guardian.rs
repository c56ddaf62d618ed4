//! Guardians: the nodes that watch an agent and start the recovery of its jobs (DESIGN §7).
//!
//! Every agent has a few guardians besides the sessions it keeps with its demand stores. Each
//! guardian holds a TCP session to the agent, which the kernel closes when the process dies, and
//! hears its heartbeats, which stop also when the machine freezes or the network is cut.
//!
//! ```text
//!   agent                          guardian                              demand store
//!   Circle: who are my guardians?
//!     │── watch me (run, stores) ──▶ Watcher: a ward more
//!     │◀──────── session ───────────┤
//!     │── beat 1, 2, 3, … ─────────▶│ alive
//!     ✕ (no beats)                  │ suspect ── silent for 60 ms ─────────▶ counts votes, ends
//!     ✕ (session closed, refused)   │ dead ───── closed, a little later ───▶ the run's leases
//! ```
//!
//! Two cores, both sans-IO: [`Circle`] keeps an agent's guardians, [`Watcher`] judges its wards.
//!
//! # How silence is judged
//! By phi accrual (Hayashibara, Défago, Yared and Katayama, 2004): a ward is suspect once a gap is
//! so long that, by the gaps seen so far, a longer one has probability 10^−phi. The limit adapts to
//! the network and to the load of the machine, between two bounds. A guardian that was itself held
//! up blames nobody for it, and grows more patient with everybody while its own heartbeats are late,
//! as Lifeguard does (Dadgar, Phillips and Currey, 2018).
//!
//! # What a verdict is worth
//! It is a vote: the demand store ends a run when enough guardians agree within a lease, and refuses
//! whoever claims a silence in which the store itself heard the agent. A closed session is what the
//! store sees, too, and sooner; so guardians leave it a moment before they speak.

use std::time::Duration;

use crate::ids::JobId;
use crate::lease::{Claim, Fence};

mod beat;
mod circle;
mod rhythm;
#[cfg(test)]
mod tests;
mod watcher;

pub use beat::{BEAT_BYTES, Beat, BeatError};
pub use circle::{Circle, CircleAction, CircleConfig, CircleEvent};
pub use watcher::{
    Answer, Cause, Charge, Health, Loss, Watcher, WatcherAction, WatcherConfig, WatcherEvent,
};

/// How eagerly silence is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Silence {
    /// Pause between two heartbeats.
    pub interval: Duration,
    /// A gap is too long when a longer one has probability 10^−phi. 8 means that a regular ward is
    /// suspected wrongly once in a hundred million beats, were gaps normally distributed.
    pub phi: f64,
    /// No gap shorter than this is too long, however regular the ward was.
    pub least: Duration,
    /// Every gap longer than this is too long, however irregular the ward was.
    pub most: Duration,
}

impl Silence {
    /// Any network: a beat each second; suspect after 3 to 15 s. A route that changes or a laptop's
    /// radio that naps takes a second or two, and a false verdict costs a task all its progress,
    /// while a lease of 20 s ends by itself soon after.
    pub const WIDE: Self = Self {
        interval: Duration::from_secs(1),
        phi: 8.0,
        least: Duration::from_secs(3),
        most: Duration::from_secs(15),
    };

    /// One local network: a beat each 20 ms; suspect after 60 ms to 1 s. Three beats must be lost in
    /// a row. A beat costs sender and guardian some 50 µs of work each: on a machine that hosts
    /// dozens of agents, beat less often.
    pub const FAST: Self = Self {
        interval: Duration::from_millis(20),
        phi: 8.0,
        least: Duration::from_millis(60),
        most: Duration::from_secs(1),
    };
}

crate::bytes::fixed_bytes! {
    /// Digest of what an agent holds, carried by each heartbeat and each renewal's answer.
    StateHash, 32, "state hash"
}

impl Default for StateHash {
    /// Of nothing held.
    fn default() -> Self {
        Self::of([])
    }
}

impl StateHash {
    /// The digest of claims without regard to checkpoints.
    pub fn of_claims<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> Self {
        let held = claims.into_iter().map(|claim| (claim.job, claim.fence, 0));
        Self::of(held)
    }

    /// The digest of held jobs, each with its fence and its last acknowledged checkpoint (0 if
    /// none), whatever their order.
    pub fn of(held: impl IntoIterator<Item = (JobId, Fence, u64)>) -> Self {
        let mut held: Vec<_> = held.into_iter().collect();
        held.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mutual state v1");
        for (job, fence, checkpoint) in held {
            hasher.update(job.0.as_bytes());
            hasher.update(&fence.epoch.to_be_bytes());
            hasher.update(&fence.sequence.to_be_bytes());
            hasher.update(&checkpoint.to_be_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}
