//! Forward and blind EDD: the earliest due date first, each load as early as it finds room.

use std::collections::VecDeque;

use crate::due_order::Item;
use crate::{Model, Schedule};

/// What becomes of a load that would end after its due date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    LeaveOut,
    LoadInVain,
}

pub(super) fn plan(capacity: i64, model: Model, items: &[Item], late: Late) -> Schedule {
    let mut stage = Stage::new(capacity);
    let mut loads = Vec::new();
    let mut link_free = 0;
    for item in items {
        let start = stage.first_room(model, link_free, item.size);
        // Starts grow by at most one size beyond a due date; in vain they may pile up, and then all that follow are late.
        let end = start.saturating_add(item.size);
        let in_time = end <= item.due;
        if in_time {
            loads.push(item.load(start));
        } else if late == Late::LeaveOut {
            continue;
        }
        stage.put(start, item.size, item.due.max(end));
        link_free = end;
    }
    loads.into()
}

/// What is on the stage, in the order in which it leaves.
struct Stage {
    capacity: i64,
    held: i64,
    leaving: VecDeque<(i64, i64)>,
}

impl Stage {
    fn new(capacity: i64) -> Self {
        Self {
            capacity,
            held: 0,
            leaving: VecDeque::new(),
        }
    }

    /// The first moment from `link_free` on at which a load of `size` can start without an overflow before it ends.
    fn first_room(&self, model: Model, link_free: i64, size: i64) -> i64 {
        let (mut start, mut held) = (link_free, self.held);
        for (leaves, staged) in &self.leaving {
            let room = self.capacity - held;
            if size <= room {
                break;
            }
            // While this image is there, only `room` of the new one may be: it must not begin sooner than that before the other leaves.
            let sooner = match model {
                Model::Continuous => room,
                Model::Integral => 0,
            };
            start = start.max(leaves - sooner);
            held -= staged;
        }
        start
    }

    /// Due dates do not fall from one call to the next, so what comes last leaves last.
    fn put(&mut self, start: i64, size: i64, leaves: i64) {
        while let Some((gone, staged)) = self.leaving.front().copied() {
            if gone > start {
                break;
            }
            self.held -= staged;
            self.leaving.pop_front();
        }
        self.held += size;
        self.leaving.push_back((leaves, size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_starts_as_early_as_what_is_staged_allows() {
        let mut stage = Stage::new(10);
        stage.put(0, 6, 20);
        stage.put(6, 2, 30);
        assert_eq!(stage.first_room(Model::Integral, 8, 2), 8);
        assert_eq!(stage.first_room(Model::Integral, 8, 3), 20);
        assert_eq!(stage.first_room(Model::Integral, 8, 9), 30);
        assert_eq!(stage.first_room(Model::Continuous, 8, 3), 18);
        assert_eq!(stage.first_room(Model::Continuous, 8, 9), 22);
        assert_eq!(stage.first_room(Model::Continuous, 25, 3), 25);
    }
}
