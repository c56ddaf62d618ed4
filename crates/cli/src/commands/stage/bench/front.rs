//! How many states Algorithm 1 keeps: the measure of how hard a weighted continuous instance is.

use mutual_stage::Instance;

/// States kept on average, and the greatest weight: the recurrence of [`mutual_stage::continuous::heaviest`] in its plainest form, without paths, so
/// that its weight also checks the library's.
pub(super) fn mean(instance: &Instance) -> (f64, u128) {
    let mut jobs: Vec<_> = instance.reservations().iter().zip(0..).collect();
    jobs.retain(|(_, index)| instance.exclusion(*index).is_none());
    jobs.sort_by_key(|(job, _)| std::cmp::Reverse(job.due));
    let mut front = vec![(0u128, u64::MAX)];
    let mut states = 0;
    for (job, _) in &jobs {
        let clamped = front
            .iter()
            .map(|(weight, free)| (*weight, (*free).min(job.due)));
        let mut next: Vec<_> = clamped.collect();
        let floor = job.due.saturating_sub(instance.capacity()) + job.size;
        let able: Vec<_> = next.iter().filter(|state| state.1 >= floor).collect();
        let taken = able
            .into_iter()
            .map(|(weight, free)| (weight + u128::from(job.weight), free - job.size));
        let taken: Vec<_> = taken.collect();
        next.extend(taken);
        front = undominated(next);
        states += front.len();
    }
    let best = front.iter().map(|state| state.0).max();
    (states as f64 / jobs.len().max(1) as f64, best.unwrap_or(0))
}

/// Those states than which no other has at least as much weight and as much free time.
fn undominated(mut states: Vec<(u128, u64)>) -> Vec<(u128, u64)> {
    states.sort_by(|one, other| other.cmp(one));
    let mut most_free = None;
    states.retain(|(_, free)| {
        let is_freer = most_free.is_none_or(|most| *free > most);
        if is_freer {
            most_free = Some(*free);
        }
        is_freer
    });
    states
}

#[cfg(test)]
mod tests {
    use mutual_stage::{Reservation, continuous};

    use super::*;

    #[test]
    fn the_plain_recurrence_reaches_the_same_weight() {
        let job = |j: u64| Reservation::new(1 + j * 7 % 13, 3 * j, 1 + j * 31 % 97);
        let instance = Instance::new(40, (1..400).map(job).collect()).unwrap();
        let (states, weight) = mean(&instance);
        assert_eq!(weight, continuous::heaviest(&instance).unwrap().weight);
        assert!(states > 2.0);
        assert_eq!(
            undominated(vec![(1, 5), (2, 5), (2, 4), (3, 1)]),
            [(3, 1), (2, 5)]
        );
    }
}
