//! The token bucket: time fills it, due dates empty it, and when it runs dry one reservation is given up.

use super::gains::Gains;
use crate::due_order::Item;

/// The largest feasible set of items, by due date; `items` come by due date.
pub(super) fn most(capacity: i64, items: &[Item]) -> Vec<Item> {
    let mut kept = vec![true; items.len()];
    let mut gains = Gains::new(items.len());
    let (mut tokens, mut now) = (0, 0);
    for (place, item) in items.iter().enumerate() {
        // Both summands are at most 2^62, so the sum fits.
        let before = capacity.min(tokens + (item.due - now));
        now = item.due;
        gains.keep(place, item.size, capacity - before);
        tokens = before - item.size;
        if tokens < 0 {
            let gain = gains.best();
            gains.give_up(gain);
            kept[gain.place] = false;
            tokens += gain.tokens;
        }
    }
    let kept = items.iter().zip(kept).filter(|(_, kept)| *kept);
    kept.map(|(item, _)| *item).collect()
}
