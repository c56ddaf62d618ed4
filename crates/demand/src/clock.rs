//! The store's clock: the only wall clock that decides anything (DESIGN §3).
//!
//! A store reads two clocks at once. The wall clock dates leases, because it survives a restart;
//! the monotonic one is there to notice when the wall clock was set, after which nothing expires
//! for one lease (DESIGN §3.10).

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutual_model::time::{UnixMillis, millis};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: UnixMillis,
    /// Time since an origin of the clock's choice; never goes back.
    pub monotonic: Duration,
}

/// Where a store takes its time from.
pub trait Clock: Send + Sync + Debug {
    /// Both clocks, read together.
    fn read(&self) -> Reading;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Reading {
            wall: UnixMillis(since_epoch.map_or(0, millis)),
            monotonic: self.origin.elapsed(),
        }
    }
}

/// A clock that moves only when told to, for tests and the simulator.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    pub const fn new(wall: UnixMillis) -> Self {
        Self {
            wall_ms: AtomicU64::new(wall.0),
            monotonic_ms: AtomicU64::new(0),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets the wall clock without time passing, as an operator or NTP would.
    pub fn step_to(&self, wall: UnixMillis) {
        self.wall_ms.store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn read(&self) -> Reading {
        Reading {
            wall: UnixMillis(self.wall_ms.load(Ordering::SeqCst)),
            monotonic: Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst)),
        }
    }
}

/// Beyond this the two clocks are taken to disagree: NTP slews at most 500 ppm, which is 10 ms in
/// a lease of 20 s, and a reading may be delayed by a busy machine.
const STEP_MS_MIN: u64 = 500;

/// Notices that a wall clock was set, by comparing how far each of the two clocks moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepWatch {
    last: Reading,
}

impl StepWatch {
    pub(crate) const fn new(first: Reading) -> Self {
        Self { last: first }
    }

    /// Whether the wall clock was set since the reading before.
    pub(crate) fn stepped(&mut self, now: Reading) -> bool {
        let expected = self
            .last
            .wall
            .after(now.monotonic.saturating_sub(self.last.monotonic));
        self.last = now;
        expected.0.abs_diff(now.wall.0) > STEP_MS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_is_told_from_time_passing() {
        let clock = ManualClock::new(UnixMillis(1_000_000));
        let mut watch = StepWatch::new(clock.read());
        clock.advance(Duration::from_secs(3_600));
        assert!(!watch.stepped(clock.read()));
        clock.step_to(UnixMillis(9_000_000));
        assert!(watch.stepped(clock.read()));
        assert!(!watch.stepped(clock.read()));
        clock.step_to(UnixMillis(1_000));
        assert!(watch.stepped(clock.read()));
    }
}
