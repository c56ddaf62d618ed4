//! When to look for expired leases in a demand store.
//!
//! Any control, demand server or agent may sweep: a sweep only does what is due by the store's
//! clock (DESIGN §3.10), so several sweepers cost work, never correctness. This core decides when
//! one of them sweeps: right when the store said that something may expire, at once again after a
//! full batch, later and later while the store cannot be reached, and never all in step.

use std::time::Duration;

use crate::time::Timestamp;

/// How often to sweep.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest pause between two sweeps that found something or failed.
    pub least: Duration,
    /// Longest pause, whatever the store said.
    pub most: Duration,
    /// Most jobs of one sweep.
    pub batch: u32,
}

impl Default for Pace {
    /// 50 ms, 5 s, 1,000 jobs.
    fn default() -> Self {
        Self {
            least: Duration::from_millis(50),
            most: Duration::from_secs(5),
            batch: 1_000,
        }
    }
}

/// What happens to a sweeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// A sweep ended well.
    Swept {
        /// Jobs it changed.
        changed: u32,
        /// When something may expire next, as the store said.
        next: Duration,
    },
    /// A sweep failed; the store may be away.
    Failed,
    /// Something was heard that makes a sweep worthwhile now, such as the death of an agent.
    Alarm,
}

/// What a sweeper wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sweep at most this many jobs; answer with [`Event::Swept`] or [`Event::Failed`].
    Sweep {
        /// Most jobs.
        limit: u32,
    },
}

/// The core.
#[derive(Debug)]
pub struct Sweeper {
    pace: Pace,
    due: Timestamp,
    sweeping: bool,
    alarmed: bool,
    failures: u32,
    /// State of a SplitMix64 generator (Steele, Lea and Flood, 2014), for jitter only.
    dice: u64,
}

impl Sweeper {
    /// A sweeper that begins at once. `seed` sets it apart from others.
    pub const fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            due: Timestamp::ZERO,
            sweeping: false,
            alarmed: false,
            failures: 0,
            dice: seed,
        }
    }

    /// Takes in what happened; returns what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Swept { changed, next } => self.plan(now, self.pause_after(changed, next)),
            Event::Failed => self.back_off(now),
            Event::Alarm => self.alarmed = true,
        }
        let due = self.alarmed || self.due <= now;
        if self.sweeping || !due {
            return Vec::new();
        }
        self.sweeping = true;
        self.alarmed = false;
        let limit = self.pace.batch;
        vec![Action::Sweep { limit }]
    }

    /// The latest moment for the next [`Event::Tick`]; `None` while a sweep is under way.
    pub fn next_wake(&self) -> Option<Timestamp> {
        (!self.sweeping).then_some(self.due)
    }

    fn pause_after(&self, changed: u32, next: Duration) -> Duration {
        match changed >= self.pace.batch {
            true => Duration::ZERO,
            false => next.clamp(self.pace.least, self.pace.most),
        }
    }

    fn plan(&mut self, now: Timestamp, pause: Duration) {
        self.sweeping = false;
        self.failures = 0;
        // Later by up to an eighth, never earlier: before its time nothing is due.
        self.due = now.after(pause + self.share_of(pause / 8));
    }

    fn back_off(&mut self, now: Timestamp) {
        self.sweeping = false;
        let pause = self.pace.least * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let pause = pause.min(self.pace.most);
        self.due = now.after(pause + self.share_of(pause / 4));
    }

    fn share_of(&mut self, span: Duration) -> Duration {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = u32::try_from(mixed >> 48).unwrap_or(0);
        span * part / 65_536
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEEP: &[Action] = &[Action::Sweep { limit: 1_000 }];

    fn ms(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    fn swept(changed: u32, next_ms: u64) -> Event {
        Event::Swept {
            changed,
            next: Duration::from_millis(next_ms),
        }
    }

    /// Sends events at millisecond times and compares everything that comes out.
    #[track_caller]
    fn check(steps: &[(u64, Event, &[Action])]) -> Sweeper {
        let mut sweeper = Sweeper::new(Pace::default(), 7);
        for (at, event, expected) in steps {
            let found = sweeper.handle(ms(*at), *event);
            assert_eq!(found, *expected, "{event:?} at {at} ms");
        }
        sweeper
    }

    #[test]
    fn it_sweeps_when_something_may_expire_and_not_before() {
        check(&[
            (0, Event::Tick, SWEEP),
            (1, Event::Tick, &[]),
            (10, swept(0, 1_000), &[]),
            (1_009, Event::Tick, &[]),
            (1_136, Event::Tick, SWEEP),
        ]);
    }

    #[test]
    fn it_looks_at_least_every_so_often_and_at_most_so_often() {
        let sweeper = check(&[(0, Event::Tick, SWEEP), (0, swept(3, 3_600_000), &[])]);
        assert!(sweeper.next_wake() <= Some(ms(5_625)));
        let sweeper = check(&[(0, Event::Tick, SWEEP), (0, swept(3, 0), &[])]);
        assert!(sweeper.next_wake() >= Some(ms(50)));
    }

    #[test]
    fn a_full_batch_is_followed_by_another_at_once() {
        check(&[(0, Event::Tick, SWEEP), (5, swept(1_000, 60_000), SWEEP)]);
    }

    #[test]
    fn an_alarm_is_heeded_even_while_a_sweep_is_under_way() {
        check(&[
            (0, Event::Tick, SWEEP),
            (1, Event::Alarm, &[]),
            (2, swept(0, 60_000), SWEEP),
            (3, swept(0, 60_000), &[]),
            (4, Event::Alarm, SWEEP),
        ]);
    }

    #[test]
    fn it_tries_a_failed_store_more_and_more_rarely_and_recovers() {
        let mut sweeper = Sweeper::new(Pace::default(), 1);
        let mut now = Timestamp::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(sweeper.handle(now, Event::Tick), SWEEP);
            assert_eq!(sweeper.handle(now, Event::Failed), []);
            let wake = sweeper.next_wake().unwrap();
            pauses.push(wake.since(now));
            now = wake;
        }
        assert!(pauses[0] < Duration::from_millis(63));
        assert!(pauses.windows(2).take(6).all(|pair| pair[0] < pair[1]));
        assert!(
            pauses
                .iter()
                .all(|pause| *pause <= Duration::from_millis(6_250))
        );
        assert_eq!(sweeper.handle(now, Event::Tick), SWEEP);
        assert_eq!(sweeper.handle(now, swept(0, 100)), []);
        assert!(sweeper.next_wake().unwrap().since(now) < Duration::from_millis(113));
    }
}
