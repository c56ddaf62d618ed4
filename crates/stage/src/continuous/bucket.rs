//! The token bucket: time fills it, due dates empty it, and when it runs dry one reservation is given up.

use super::floors::Occupied;
use super::gains::Gains;
use crate::due_order::Item;

/// The largest feasible set of items, by due date; `items` come by due date.
pub(super) fn most(occupied: &Occupied, items: &[Item]) -> Vec<Item> {
    let stops = stops(occupied, items);
    let mut kept = vec![true; stops.len()];
    let mut gains = Gains::new(stops.len());
    let (mut tokens, mut now) = (0, 0);
    for (place, stop) in stops.iter().enumerate() {
        // Both summands are at most 2^62, so the sum fits.
        let room = occupied.room_before(stop.due);
        let before = room.min(tokens + (stop.due - now));
        now = stop.due;
        gains.keep(place, stop.size, room - before);
        tokens = before - stop.size;
        if tokens < 0 {
            let gain = gains.best();
            gains.give_up(gain);
            kept[gain.place] = false;
            tokens += gain.tokens;
        }
    }
    let kept = stops
        .iter()
        .zip(kept)
        .filter(|(stop, kept)| *kept && stop.size > 0);
    kept.map(|(stop, _)| *stop).collect()
}

/// The items, and a stop that takes nothing where a staged image leaves: until then tokens beyond the room run over.
fn stops(occupied: &Occupied, items: &[Item]) -> Vec<Item> {
    let nothing = |due| Item {
        index: usize::MAX,
        size: 0,
        due,
        weight: 0,
    };
    let mut stops: Vec<_> = occupied.moments().map(nothing).collect();
    stops.extend(items);
    stops.sort_by_key(|stop| stop.due);
    stops
}
