//! The labels of one due date: which of them are needless, and which are the most promising.

use std::cmp::Reverse;

use super::label::Label;
use super::sets::{Outline, Sets};
use crate::trail::Trail;

/// How often it is asked whether to stop.
const LABELS_BETWEEN_STOPS: usize = 64;

/// Drops labels that another one leads at least as far as. What is left when told to stop stays.
pub(super) fn drop_needless(
    layer: &mut Vec<Label>,
    sets: &Sets,
    trail: &mut Trail,
    stop: &mut dyn FnMut() -> bool,
) {
    drop_alike(layer, trail);
    layer.sort_by_cached_key(|label| {
        (
            Reverse(label.weight),
            sets.bytes(label.staged),
            Reverse(label.taken_from),
            label.waits_from,
        )
    });
    // What is compared first, close together in memory.
    let mut outlines = Vec::new();
    let mut kept: Vec<Label> = Vec::new();
    let mut is_stopped = false;
    for (place, label) in layer.drain(..).enumerate() {
        is_stopped |= place % LABELS_BETWEEN_STOPS == 0 && stop();
        let (taken_from, outline) = (label.taken_from, sets.outline(label.waiting));
        let mut heavier = outlines.iter().zip(&kept);
        let covers = |((from, other), heavier): (&(i64, Outline), &Label)| {
            *from >= taken_from && other.fits_into(outline) && heavier.covers(&label, sets)
        };
        if !is_stopped && heavier.any(covers) {
            trail.release(label.path);
        } else {
            outlines.push((taken_from, outline));
            kept.push(label);
        }
    }
    *layer = kept;
}

/// Of labels with the same stage and the same load under way, keeps those that none is better than.
fn drop_alike(layer: &mut Vec<Label>, trail: &mut Trail) {
    let kind = |label: &Label| (label.staged, label.under_way, label.waits_from);
    layer.sort_unstable_by_key(|label| {
        let order = (Reverse(label.taken_from), label.debt, Reverse(label.weight));
        (kind(label), order)
    });
    let mut last: Option<Label> = None;
    layer.retain(|label| {
        let is_worse = last.is_some_and(|last| {
            kind(&last) == kind(label) && last.weight >= label.weight && last.debt <= label.debt
        });
        if is_worse {
            trail.release(label.path);
        } else {
            last = Some(*label);
        }
        !is_worse
    });
}

/// Of a few labels of equal weight, keeps those that no other covers.
pub(super) fn drop_covered(few: &mut Vec<Label>, sets: &Sets, trail: &mut Trail) {
    let mut place = 0;
    while place < few.len() {
        let label = few[place];
        let others = few.iter().enumerate().filter(|(other, _)| *other != place);
        if others
            .map(|(_, other)| other)
            .any(|other| other.covers(&label, sets))
        {
            trail.release(label.path);
            few.swap_remove(place);
        } else {
            place += 1;
        }
    }
}

/// Keeps so many labels, those of the greatest bound, and of equal ones those that leave the link free the longest; hands back the others.
pub(super) fn narrow(
    layer: &mut Vec<Label>,
    width: usize,
    sets: &Sets,
    bound: impl Fn(&Label) -> u128,
) -> Vec<Label> {
    if layer.len() <= width {
        return Vec::new();
    }
    let rank = |label: &Label| (Reverse(bound(label)), Reverse(label.free_until(sets)));
    let mut ranked: Vec<_> = layer.iter().map(|label| (rank(label), *label)).collect();
    ranked.select_nth_unstable_by_key(width, |(rank, _)| *rank);
    let over = ranked.split_off(width);
    *layer = ranked.into_iter().map(|(_, label)| label).collect();
    over.into_iter().map(|(_, label)| label).collect()
}
