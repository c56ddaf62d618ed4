//! What the experiments on real processes share: a cloud, tasks that leave evidence, faults, and
//! the judgement of what came of them.
//!
//! Everything is seen from outside the product: the tasks themselves note when they begin, that
//! they live, and when they end ([`evidence`]); the kernel tells when it closed a dead process's
//! sockets ([`eof`]); the demand store tells who held what. Wall-clock times in microseconds since
//! 1970, all of one machine.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) mod baseline;
pub(crate) mod chart;
pub(crate) mod eof;
pub(crate) mod evidence;
pub(crate) mod field;
pub(crate) mod judge;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod recovery;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod series;
pub(crate) mod times;
pub(crate) mod traffic;
pub(crate) mod watch;

/// Microseconds since 1970 by this machine's clock.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// From one wall-clock time to another, in seconds; negative if it was before.
pub(crate) fn seconds_between(from_us: u64, to_us: u64) -> f64 {
    (to_us as f64 - from_us as f64) / 1e6
}
