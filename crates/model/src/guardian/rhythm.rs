//! The gaps between one ward's heartbeats, and how long a gap may be (phi accrual).

use std::collections::VecDeque;
use std::time::Duration;

use super::Silence;
use crate::time::Timestamp;

/// Gaps remembered.
const GAPS_MAX: usize = 64;
/// Gaps before their spread means anything; until then the longest limit holds.
const GAPS_MIN: usize = 8;
/// The spread is taken to be at least this part of the interval: a perfectly regular ward is late
/// one day.
const SPREAD_PART: f64 = 4.0;
/// How often in one silence the guardian may blame itself.
const EXCUSES_MAX: u8 = 3;

/// What is known of one ward's heartbeats.
#[derive(Debug)]
pub(super) struct Rhythm {
    last: Timestamp,
    /// In microseconds.
    gaps: VecDeque<u32>,
    sum: u64,
    squares: u128,
    excuses: u8,
    limit: Duration,
    most: Duration,
}

impl Rhythm {
    pub(super) fn new(now: Timestamp, silence: &Silence) -> Self {
        Self {
            last: now,
            gaps: VecDeque::new(),
            sum: 0,
            squares: 0,
            excuses: 0,
            limit: silence.most,
            most: silence.most,
        }
    }

    /// A heartbeat came.
    pub(super) fn beat(&mut self, now: Timestamp, silence: &Silence, z: f64) {
        let gap = u32::try_from(now.since(self.last).as_micros()).unwrap_or(u32::MAX);
        self.last = now;
        self.excuses = 0;
        self.remember(gap);
        self.limit = self.limit_for(silence, z);
    }

    /// A heartbeat came after a silence that was too long: it says nothing about usual gaps.
    pub(super) fn resume(&mut self, now: Timestamp) {
        self.last = now;
        self.excuses = 0;
    }

    fn remember(&mut self, gap: u32) {
        if self.gaps.len() == GAPS_MAX
            && let Some(oldest) = self.gaps.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.squares -= u128::from(oldest).pow(2);
        }
        self.gaps.push_back(gap);
        self.sum += u64::from(gap);
        self.squares += u128::from(gap).pow(2);
    }

    #[expect(clippy::cast_precision_loss, reason = "a judgement, not an account")]
    fn limit_for(&self, silence: &Silence, z: f64) -> Duration {
        if self.gaps.len() < GAPS_MIN {
            return silence.most;
        }
        let count = self.gaps.len() as f64;
        let mean = self.sum as f64 / count;
        let variance = (self.squares as f64 / count - mean * mean).max(0.0);
        let spread_min = silence.interval.as_micros() as f64 / SPREAD_PART;
        let limit = mean + z * variance.sqrt().max(spread_min);
        let limit = Duration::try_from_secs_f64(limit / 1e6).unwrap_or(silence.most);
        limit.clamp(silence.least, silence.most)
    }

    /// How long a gap may be now.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// When the present gap becomes too long, with `patience` beyond the limit.
    pub(super) fn deadline(&self, patience: Duration) -> Timestamp {
        self.last.after((self.limit + patience).min(self.most))
    }

    /// How long nothing was heard.
    pub(super) fn silent_for(&self, now: Timestamp) -> Duration {
        now.since(self.last)
    }

    /// The guardian was held up: what was sent meanwhile may still lie in its socket. Leaves time
    /// to read it, a few times in one silence, so that a guardian that is always late still judges.
    pub(super) fn excuse(&mut self, now: Timestamp, grace: Duration) {
        let deadline = now.after(grace);
        if self.excuses < EXCUSES_MAX && self.deadline(Duration::ZERO) < deadline {
            self.excuses += 1;
            let limit = u64::try_from(self.limit.as_micros()).unwrap_or(u64::MAX);
            self.last = Timestamp(deadline.0.saturating_sub(limit));
        }
    }
}

/// How many standard deviations above the mean a normally distributed gap lies with probability
/// 10^−phi, by the logistic approximation of the tail, 1 ⁄ (1 + exp(1.5976 y + 0.070566 y³))
/// (Bowling et al., 2009), which grows with y, so that halving intervals finds it. Up to 8 % too small
/// for a phi of 8.
pub(super) fn quantile(phi: f64) -> f64 {
    let wanted = phi.clamp(0.5, 300.0) * std::f64::consts::LN_10;
    let exponent = |y: f64| y * (1.5976 + 0.070_566 * y * y);
    let (mut below, mut above) = (0.0, 64.0);
    for _ in 0..64 {
        let middle = (below + above) / 2.0;
        match exponent(middle) < wanted {
            true => below = middle,
            false => above = middle,
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000)
    }

    /// The limit after gaps of these milliseconds.
    fn limit_after(gaps: &[u64]) -> u128 {
        let (silence, z) = (Silence::FAST, quantile(Silence::FAST.phi));
        let mut rhythm = Rhythm::new(at(0), &silence);
        let mut now = 0;
        for gap in gaps {
            now += gap;
            rhythm.beat(at(now), &silence, z);
        }
        rhythm.limit().as_millis()
    }

    #[test]
    fn the_quantile_is_that_of_the_normal_distribution() {
        // P(Z > 1.2816) = 0.1, P(Z > 3.0902) = 0.001, P(Z > 5.6120) = 1e-8.
        for (phi, expected) in [(1.0, 1.2816), (3.0, 3.0902), (8.0, 5.6120)] {
            let ratio = quantile(phi) / expected;
            assert!((0.92..1.05).contains(&ratio), "{phi}: {ratio}");
        }
    }

    #[test]
    fn regular_wards_are_judged_fast_and_irregular_ones_get_time() {
        assert_eq!(limit_after(&[20; 3]), 1_000, "too few gaps to judge by");
        assert_eq!(limit_after(&[20; 100]), 60);
        let jittery: Vec<u64> = (0..100).map(|n| if n % 2 == 0 { 5 } else { 35 }).collect();
        let limit = limit_after(&jittery);
        assert!((90..130).contains(&limit), "{limit}");
        let wild: Vec<u64> = (0..100)
            .map(|n| if n % 8 == 0 { 900 } else { 10 })
            .collect();
        assert_eq!(
            limit_after(&wild),
            1_000,
            "but never more than the owner said"
        );
        let mut calm_again = wild;
        calm_again.extend([20; 64]);
        assert_eq!(limit_after(&calm_again), 60, "old gaps are forgotten");
    }

    #[test]
    fn a_guardian_that_was_held_up_waits_a_little_but_not_for_ever() {
        let silence = Silence::FAST;
        let mut rhythm = Rhythm::new(at(0), &silence);
        for (now, deadline) in [
            (1_300, 1_340),
            (1_400, 1_440),
            (1_500, 1_540),
            (1_600, 1_540),
        ] {
            rhythm.excuse(at(now), Duration::from_millis(40));
            assert_eq!(rhythm.deadline(Duration::ZERO), at(deadline));
        }
        rhythm.resume(at(1_700));
        rhythm.excuse(at(3_000), Duration::from_millis(40));
        assert_eq!(rhythm.deadline(Duration::ZERO), at(3_040));
    }
}
