//! Rules that every store applies alike, before and beside its own statements.
//!
//! Whatever can be decided without looking at stored rows is decided here, once: rights, bounds of
//! foreign documents, the order of the queue, packing, and the digests that tell a repeat from a
//! contradiction.

pub(crate) mod bounds;
pub(crate) mod digest;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod ending;
pub(crate) mod queue;
pub(crate) mod rights;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod swept;

/// Attempts shown of one job.
pub(crate) const ATTEMPTS_SHOWN: usize = 16;
/// Complete lists that must miss a claim before it is taken for one whose reply was lost.
pub(crate) const UNLISTED_MAX: u32 = 2;
/// How long an incarnation without jobs is remembered, so that a late verdict or claim of it is
/// judged rightly: 7 days.
pub(crate) const LEASE_MEMORY_MS: u64 = 7 * 24 * 3_600_000;
/// How long a verdict's nonce and events are remembered: 7 days.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) const EVENT_MEMORY_MS: u64 = 7 * 24 * 3_600_000;
/// Expired leases that a poll which found nothing sweeps by itself.
pub(crate) const SWEEP_BY_CLAIM_MAX: u32 = 64;
/// What a job says that was released because its holder did not list it.
pub(crate) const UNLISTED_REASON: &str = "its holder did not list it: the claim's reply was lost";
