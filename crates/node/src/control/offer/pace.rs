//! How often something may be done on behalf of jobs that wait: steadily, with a few turns saved up.

use std::time::Duration;

use tokio::time::Instant;

/// A steady pace: one turn every `pause`; turns that nobody took are saved up to a bound, so that
/// a burst after a quiet time is served at once.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Duration,
    saved_max: u32,
    next: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(pause: Duration, saved_max: u32) -> Self {
        Self {
            pause,
            saved_max,
            next: None,
        }
    }

    /// Takes the next turn and says how long it is until then; `None`, and no turn, if that were
    /// longer than `patience`.
    pub(super) fn turn(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let turn = self.next_turn(now);
        let wait = turn.saturating_duration_since(now);
        (wait <= patience).then(|| {
            self.next = Some(turn + self.pause);
            wait
        })
    }

    /// Takes turns that need no waiting, at most `wanted`; returns how many.
    pub(super) fn turns(&mut self, now: Instant, wanted: usize) -> usize {
        let is_free = |_: &usize| self.turn(now, Duration::ZERO).is_some();
        (0..wanted).take_while(is_free).count()
    }

    fn next_turn(&self, now: Instant) -> Instant {
        let saved = self.pause * self.saved_max.saturating_sub(1);
        let earliest = now.checked_sub(saved).unwrap_or(now);
        self.next.map_or(earliest, |next| next.max(earliest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    #[test]
    fn saved_turns_are_taken_at_once_and_the_rest_in_step() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace::new(PAUSE, 3);
        assert_eq!(pace.turns(start, 5), 3);
        assert_eq!(pace.turns(start, 5), 0);
        assert_eq!(pace.turns(start + PAUSE * 2, 5), 2);
        assert_eq!(pace.turns(start + PAUSE * 60, 5), 3, "no more are saved");
    }

    #[test]
    fn whoever_waits_gets_a_turn_of_its_own_within_its_patience() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace::new(PAUSE, 1);
        assert_eq!(pace.turn(start, PAUSE * 2), Some(Duration::ZERO));
        assert_eq!(pace.turn(start, PAUSE * 2), Some(PAUSE));
        assert_eq!(pace.turn(start, PAUSE * 2), Some(PAUSE * 2));
        assert_eq!(pace.turn(start, PAUSE * 2), None, "three would be too long");
        assert_eq!(pace.turn(start + PAUSE, PAUSE * 2), Some(PAUSE * 2));
    }
}
