//! Images much smaller than the stage: hardly anything is lost by never letting a load find the stage full.

use super::weight;
use crate::due_order::Item;

/// Cuts a continuous optimum, in the order of its loads, into groups of at least the largest size each, and leaves out every q-th group:
/// those of the least weight. In every stageful a whole group is then missing, which makes room for the load under way.
pub(super) fn without_every(q: usize, size_max: i64, optimum: &[Item]) -> Vec<Item> {
    let groups = groups(size_max, optimum);
    let residue = |item: usize| groups[item] % q;
    let mut weights = vec![0u128; q];
    for (place, item) in optimum.iter().enumerate() {
        weights[residue(place)] += u128::from(item.weight);
    }
    let lightest = (0..q).min_by_key(|residue| weights[*residue]).unwrap_or(0);
    let kept = optimum
        .iter()
        .enumerate()
        .filter(|(place, _)| residue(*place) != lightest);
    kept.map(|(_, item)| *item).collect()
}

/// The number of each item's group.
fn groups(size_max: i64, optimum: &[Item]) -> Vec<usize> {
    let (mut group, mut bytes) = (0, 0);
    optimum
        .iter()
        .map(|item| {
            let own = group;
            bytes += item.size;
            if bytes >= size_max {
                group += 1;
                bytes = 0;
            }
            own
        })
        .collect()
}

/// The heavier of two.
pub(super) fn heavier(one: Vec<Item>, other: Vec<Item>) -> Vec<Item> {
    match weight(&other) > weight(&one) {
        true => other,
        false => one,
    }
}
