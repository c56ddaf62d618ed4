//! Images above half the stage: no two at a time, so each wants the stage for [due − size, due) and nothing else.

use crate::due_order::Item;

/// Weighted interval scheduling; `items` come by due date.
pub(super) fn by_intervals(items: &[Item]) -> Vec<Item> {
    // best[n]: the greatest weight with the first n items; before[n]: how many are due when item n wants the stage.
    let mut best = vec![0u128];
    let mut before = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let earlier = items[..place].partition_point(|other| other.due <= item.due - item.size);
        let with = best[earlier] + u128::from(item.weight);
        best.push(with.max(best[place]));
        before.push(earlier);
    }
    let mut chosen = Vec::new();
    let mut count = items.len();
    while count > 0 {
        if best[count] == best[count - 1] {
            count -= 1;
        } else {
            chosen.push(items[count - 1]);
            count = before[count - 1];
        }
    }
    chosen.reverse();
    chosen
}

/// A way to have served some of the items seen so far.
#[derive(Debug, Clone)]
struct State {
    weight: u128,
    /// From when the stage is free.
    free_from: i64,
    /// Place of the last item taken in the list of all choices made.
    last: Option<usize>,
}

/// The paper's dynamic program, forward in time; `items` come by due date.
///
/// A new state is free from the item's due date, later than all others are: it stays only if it weighs more than each of them, so
/// fronts grow at their end in both weight and time.
pub(super) fn by_states(items: &[Item]) -> Vec<Item> {
    let mut choices: Vec<(usize, Option<usize>)> = Vec::new();
    let mut front = vec![State {
        weight: 0,
        free_from: 0,
        last: None,
    }];
    for (place, item) in items.iter().enumerate() {
        let able = front.partition_point(|state| state.free_from <= item.due - item.size);
        let Some(from) = able.checked_sub(1).map(|last| &front[last]) else {
            continue;
        };
        let weight = from.weight + u128::from(item.weight);
        if front
            .last()
            .is_some_and(|heaviest| heaviest.weight >= weight)
        {
            continue;
        }
        choices.push((place, from.last));
        front.retain(|state| state.free_from < item.due);
        front.push(State {
            weight,
            free_from: item.due,
            last: Some(choices.len() - 1),
        });
    }
    trace(items, &choices, front.last().and_then(|state| state.last))
}

fn trace(items: &[Item], choices: &[(usize, Option<usize>)], mut last: Option<usize>) -> Vec<Item> {
    let mut chosen = Vec::new();
    while let Some(choice) = last {
        let (place, before) = choices[choice];
        chosen.push(items[place]);
        last = before;
    }
    chosen.reverse();
    chosen
}
