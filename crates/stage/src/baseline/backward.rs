//! Backward EDD: the latest due date first, each load as late as it can be.

use super::room;
use crate::due_order::Item;
use crate::{Load, Model, Schedule};

pub(super) fn plan(capacity: i64, model: Model, items: &[Item]) -> Schedule {
    // Starts and ends of the loads kept, the latest first.
    let mut kept: Vec<(i64, i64)> = Vec::new();
    let mut loads: Vec<Load> = Vec::new();
    for item in items.iter().rev() {
        let end = kept
            .last()
            .map_or(item.due, |(start, _)| item.due.min(*start));
        let start = end - item.size;
        let occupied_until = match model {
            Model::Continuous => item.due,
            Model::Integral => room::reserved_until(&kept, item.due),
        };
        if start >= 0 && occupied_until - start <= capacity {
            kept.push((start, end));
            loads.push(item.load(start));
        }
    }
    loads.into()
}
