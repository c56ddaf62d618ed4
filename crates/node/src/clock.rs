//! The clock that the cores run by: it goes on while the machine sleeps.

use mutual_model::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Now by CLOCK_BOOTTIME, so that a lease is known to be over when a laptop wakes up.
pub(crate) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec / 1_000).unwrap_or(0);
    Timestamp(seconds * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let readings: Vec<_> = (0..1_000).map(|_| now()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Timestamp::ZERO);
    }
}
