//! The greatest weight of what is due first, by how much of the link's time it must leave: the mirror image of
//! [`heaviest`](super::heaviest).

use super::floors::Occupied;
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

    /// The same where no more than `weight` is possible if at least `tokens` must be left, for each of `caps`, which ascend in tokens.
    pub(crate) fn capped(&self, caps: &[(i64, u128)]) -> Self {
        let mut front = Vec::new();
        for (weight, left) in &self.front {
            let nexts = caps.iter().skip(1).map(|(tokens, _)| tokens - 1);
            let spans = caps.iter().zip(nexts.chain([i64::MAX]));
            let able = spans.take_while(|((tokens, _), _)| tokens <= left);
            front.extend(able.map(|((_, cap), last)| (*cap.min(weight), last.min(*left))));
        }
        Self {
            now: self.now,
            front: undominated(front),
        }
    }

    /// The same one item later; `item` is due no earlier than all before.
    pub(crate) fn then(&self, occupied: &Occupied, item: &Item) -> Self {
        let left = |(weight, tokens): &(u128, i64)| {
            (*weight, filled(occupied, *tokens, self.now, item.due))
        };
        let skipped: Vec<_> = self.front.iter().map(left).collect();
        let able = skipped.iter().filter(|(_, tokens)| *tokens >= item.size);
        let paid =
            able.map(|(weight, tokens)| (weight + u128::from(item.weight), tokens - item.size));
        Self {
            now: item.due,
            front: undominated(skipped.iter().copied().chain(paid).collect()),
        }
    }
}

/// Entries that no other exceeds in both, ascending in weight.
fn undominated(mut all: Vec<(u128, i64)>) -> Vec<(u128, i64)> {
    all.sort_unstable_by(|one, other| other.cmp(one));
    let mut most = i64::MIN;
    all.retain(|(_, tokens)| {
        let is_kept = *tokens > most;
        most = most.max(*tokens);
        is_kept
    });
    all.reverse();
    all
}

/// Tokens just before `until`, if there were so many at `from`: never more than there is room for beside staged images.
fn filled(occupied: &Occupied, tokens: i64, from: i64, until: i64) -> i64 {
    let mut tokens = tokens;
    let mut now = from;
    for moment in occupied.moments_between(from, until).chain([until]) {
        tokens = occupied.room_before(moment).min(tokens + moment - now);
        now = moment;
    }
    tokens
}

/// For each number of items from none to all, what the first so many can weigh. `None` if that takes more than `most` states.
pub(super) fn befores(occupied: &Occupied, items: &[Item], most: usize) -> Option<Vec<Before>> {
    let nothing = Before {
        now: 0,
        front: vec![(0, 0)],
    };
    let mut befores = vec![nothing];
    let mut states = 1;
    for (place, item) in items.iter().enumerate() {
        let next = befores[place].then(occupied, item);
        states += next.front.len();
        if states > most {
            return None;
        }
        befores.push(next);
    }
    Some(befores)
}
