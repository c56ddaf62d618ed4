//! The earliest start of each load in a right-tight schedule in due-date order, and the tokens beside staged images.

use crate::Instance;
use crate::due_order::{self, Item};

/// What staged images take, by the moments at which they leave.
#[derive(Debug, Clone)]
pub(crate) struct Occupied {
    capacity: i64,
    /// (leaves, bytes that leave then or later), by moment.
    steps: Vec<(i64, i64)>,
}

impl Occupied {
    pub(crate) fn of(instance: &Instance) -> Self {
        let leaving = |image: &crate::Staged| {
            let leaves = instance.leaves_on_link(image.due);
            (leaves.cast_signed(), image.size.cast_signed())
        };
        let mut steps: Vec<_> = instance.staged().iter().map(leaving).collect();
        steps.sort_unstable();
        let mut later = 0;
        for (_, bytes) in steps.iter_mut().rev() {
            later += *bytes;
            *bytes = later;
        }
        steps.dedup_by_key(|(leaves, _)| *leaves);
        let capacity = due_order::capacity(instance);
        Self { capacity, steps }
    }

    /// An empty stage.
    pub(crate) const fn nothing(capacity: i64) -> Self {
        Self {
            capacity,
            steps: Vec::new(),
        }
    }

    /// Room just before a moment: what leaves then is still there.
    pub(crate) fn room_before(&self, moment: i64) -> i64 {
        let gone = self.steps.partition_point(|(leaves, _)| *leaves < moment);
        self.capacity - self.steps.get(gone).map_or(0, |(_, bytes)| *bytes)
    }

    /// The moments after `from` and before `until` at which room becomes free.
    pub(crate) fn moments_between(&self, from: i64, until: i64) -> impl Iterator<Item = i64> {
        let first = self.steps.partition_point(|(leaves, _)| *leaves <= from);
        let after = self.moments().skip(first);
        after.take_while(move |moment| *moment < until)
    }

    /// The moments at which room becomes free.
    pub(crate) fn moments(&self) -> impl Iterator<Item = i64> {
        self.steps.iter().map(|(leaves, _)| *leaves)
    }
}

/// For each item, by due date: a load that starts earlier overflows, at its own due date or when a staged image is about to leave.
pub(super) fn floors(occupied: &Occupied, items: &[Item]) -> Vec<i64> {
    let mut moments = occupied.moments().peekable();
    let mut floor = 0;
    let latest = |moment: i64| moment - occupied.room_before(moment);
    items
        .iter()
        .map(|item| {
            while let Some(moment) = moments.next_if(|moment| *moment <= item.due) {
                floor = floor.max(latest(moment));
            }
            floor.max(latest(item.due))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reservation, Staged};

    #[test]
    fn room_comes_back_when_staged_images_leave() {
        let staged = [(2, 5), (3, 9), (1, 5)].map(|(size, due)| Staged { size, due });
        let instance = Instance::new(10, vec![Reservation::new(1, 20, 1)]).unwrap();
        let occupied = Occupied::of(&instance.with_staged(staged.into()).unwrap());
        let room: Vec<_> = [0, 5, 6, 9, 10].map(|at| occupied.room_before(at)).into();
        assert_eq!(room, [4, 4, 7, 7, 10]);
        assert_eq!(occupied.moments().collect::<Vec<_>>(), [5, 9]);
    }
}
