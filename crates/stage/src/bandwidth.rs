//! A link whose rate changes: piecewise constant, and a clock that hides it.
//!
//! The *link's clock* shows how many bytes the link can have brought. Told by that clock, a link of changing rate is one of
//! constant rate: a load of s bytes takes s, whenever it starts, and what is on the stage at a moment is the same by either clock. So every
//! algorithm here takes a changing rate by reading due dates off the link's clock (beyond the paper), in both models.

use serde::{Deserialize, Serialize};

use crate::LIMIT;

/// What the link brings in a unit of time, from each moment on. Both clocks are read in O(k) for k steps.
///
/// ```
/// use mutual_stage::{Bandwidth, Instance, Reservation, continuous};
///
/// // Two bytes in a unit of time, and a pause from 5 to 8.
/// let bandwidth = Bandwidth::new(vec![(0, 2), (5, 0), (8, 2)])?;
/// assert_eq!((bandwidth.bytes_by(7), bandwidth.bytes_by(9)), (10, 12));
/// assert_eq!(bandwidth.last_moment(10), 8);
/// let reservations = vec![Reservation::new(8, 4, 1), Reservation::new(4, 8, 1)];
/// let instance = Instance::new(12, reservations)?.with_bandwidth(bandwidth)?;
/// assert_eq!(continuous::heaviest(&instance)?.weight, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Bandwidth {
    /// (from, rate): the first from 0, strictly ascending.
    steps: Vec<(u64, u64)>,
}

/// Why steps are no bandwidth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BandwidthError {
    /// The first step does not start at 0.
    #[error("bandwidth must begin with a step from 0")]
    Beginning,
    /// A step does not start after the one before.
    #[error("bandwidth step {step} starts at {from}, which is not after the step before")]
    Order {
        /// Position of the step, from 0.
        step: usize,
        /// When it starts.
        from: u64,
    },
    /// The link would bring more than 2^62 bytes.
    #[error("the link brings {bytes} bytes by the last due date: at most 2^62 can be counted")]
    TooMuch {
        /// What it brings.
        bytes: u128,
    },
}

impl Bandwidth {
    /// A link that brings `rate` bytes in a unit of time from each moment on: pairs of (from, rate). A rate of 0 is a pause.
    ///
    /// # Errors
    ///
    /// [`BandwidthError`] if the steps do not begin at 0 or do not ascend.
    pub fn new(steps: Vec<(u64, u64)>) -> Result<Self, BandwidthError> {
        if steps.first().is_none_or(|(from, _)| *from != 0) {
            return Err(BandwidthError::Beginning);
        }
        let back = steps.windows(2).position(|pair| pair[0].0 >= pair[1].0);
        match back {
            Some(before) => Err(BandwidthError::Order {
                step: before + 1,
                from: steps[before + 1].0,
            }),
            None => Ok(Self { steps }),
        }
    }

    pub(crate) fn check(&self, last: u64) -> Result<(), BandwidthError> {
        let bytes = self.exact_bytes_by(last);
        if bytes > u128::from(LIMIT) {
            return Err(BandwidthError::TooMuch { bytes });
        }
        Ok(())
    }

    /// Bytes that the link can bring by a moment, at most [`LIMIT`].
    #[must_use]
    pub fn bytes_by(&self, time: u64) -> u64 {
        let bytes = self.exact_bytes_by(time).min(u128::from(LIMIT));
        u64::try_from(bytes).unwrap_or(LIMIT)
    }

    fn exact_bytes_by(&self, time: u64) -> u128 {
        let started = self.steps.iter().take_while(|(from, _)| *from < time);
        let ends = self.steps.iter().skip(1).map(|(from, _)| *from);
        started
            .zip(ends.chain([u64::MAX]))
            .map(|((from, rate), until)| u128::from(*rate) * u128::from(until.min(time) - from))
            .fold(0, u128::saturating_add)
    }

    /// The last whole moment by which the link has not brought more than `bytes`: when a load that waits for them to pass starts.
    ///
    /// [`u64::MAX`] if the link never brings more.
    #[must_use]
    pub fn last_moment(&self, bytes: u64) -> u64 {
        let mut brought = 0;
        for (place, (from, rate)) in self.steps.iter().enumerate() {
            let until = self.steps.get(place + 1).map_or(u64::MAX, |next| next.0);
            let room = u128::from(bytes) - brought;
            let whole = u128::from(*rate) * u128::from(until - from);
            if whole > room {
                let after = room / u128::from(*rate);
                return from + u64::try_from(after).unwrap_or(u64::MAX - from);
            }
            brought += whole;
        }
        u64::MAX
    }
}

impl TryFrom<Vec<(u64, u64)>> for Bandwidth {
    type Error = BandwidthError;

    fn try_from(steps: Vec<(u64, u64)>) -> Result<Self, BandwidthError> {
        Self::new(steps)
    }
}

impl From<Bandwidth> for Vec<(u64, u64)> {
    fn from(bandwidth: Bandwidth) -> Self {
        bandwidth.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_clock_runs_with_the_rate() {
        let bandwidth = Bandwidth::new(vec![(0, 2), (5, 0), (8, 3)]).unwrap();
        let shown: Vec<_> = [0, 3, 5, 7, 8, 9, 10]
            .map(|time| bandwidth.bytes_by(time))
            .into();
        assert_eq!(shown, [0, 6, 10, 10, 10, 13, 16]);
        let moments: Vec<_> = [0, 1, 9, 10, 12, 13]
            .map(|bytes| bandwidth.last_moment(bytes))
            .into();
        assert_eq!(moments, [0, 0, 4, 8, 8, 9]);
        let ends = Bandwidth::new(vec![(0, 1), (4, 0)]).unwrap();
        assert_eq!(ends.last_moment(4), u64::MAX);
    }

    #[test]
    fn steps_begin_at_0_and_ascend() {
        assert_eq!(Bandwidth::new(vec![]), Err(BandwidthError::Beginning));
        assert_eq!(Bandwidth::new(vec![(1, 1)]), Err(BandwidthError::Beginning));
        let order = BandwidthError::Order { step: 1, from: 0 };
        assert_eq!(Bandwidth::new(vec![(0, 1), (0, 2)]), Err(order));
        let fast = Bandwidth::new(vec![(0, u64::MAX)]).unwrap();
        assert!(fast.check(5).is_err());
        assert_eq!(fast.bytes_by(u64::MAX), LIMIT);
    }
}
