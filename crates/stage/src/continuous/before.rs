//! The greatest weight of what is due first, by how much of the link's time it must leave: the mirror image of
//! [`Rest`](super::pareto::Rest).

use crate::due_order::Item;

/// What the first items can weigh: an upper bound for every schedule that serves only items before some place in due-date order.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// The last due date among them.
    now: i64,
    /// (weight, tokens left then), ascending in weight and descending in tokens.
    front: Vec<(u128, i64)>,
}

impl Before {
    /// The greatest weight if the link works for them until `until` at most.
    pub(crate) fn weight(&self, until: i64) -> u128 {
        self.weight_leaving((self.now - until).max(0))
    }

    /// The greatest weight if so many tokens must be left at the last due date.
    pub(crate) fn weight_leaving(&self, tokens: i64) -> u128 {
        let able = self.front.partition_point(|(_, left)| *left >= tokens);
        able.checked_sub(1).map_or(0, |last| self.front[last].0)
    }

    /// The same one item later; `item` is due no earlier than all before.
    fn then(&self, capacity: i64, item: &Item) -> Self {
        let waited = item.due - self.now;
        let left = |(weight, tokens): &(u128, i64)| (*weight, capacity.min(tokens + waited));
        let skipped: Vec<_> = self.front.iter().map(left).collect();
        let able = skipped.iter().filter(|(_, tokens)| *tokens >= item.size);
        let paid =
            able.map(|(weight, tokens)| (weight + u128::from(item.weight), tokens - item.size));
        let mut all: Vec<_> = skipped.iter().copied().chain(paid).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let mut most = i64::MIN;
        all.retain(|(_, tokens)| {
            let is_kept = *tokens > most;
            most = most.max(*tokens);
            is_kept
        });
        all.reverse();
        Self {
            now: item.due,
            front: all,
        }
    }
}

/// For each number of items from none to all, what the first so many can weigh. `None` if that takes more than `most` states.
pub(super) fn befores(capacity: i64, items: &[Item], most: usize) -> Option<Vec<Before>> {
    let nothing = Before {
        now: 0,
        front: vec![(0, 0)],
    };
    let mut befores = vec![nothing];
    let mut states = 1;
    for (place, item) in items.iter().enumerate() {
        let next = befores[place].then(capacity, item);
        states += next.front.len();
        if states > most {
            return None;
        }
        befores.push(next);
    }
    Some(befores)
}
