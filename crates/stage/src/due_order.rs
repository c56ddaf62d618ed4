//! An instance as the algorithms read it: the reservations that can be served, earliest due date first.

use crate::{Instance, Load, Schedule, Unsupported};

/// A reservation that can be served. All fields are at most [`LIMIT`](crate::LIMIT), so that differences fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// Position in [`Instance::reservations`].
    pub(crate) index: usize,
    pub(crate) size: i64,
    pub(crate) due: i64,
    pub(crate) weight: u64,
}

impl Item {
    /// The load that starts at `start`, which is 0 or later in every schedule that is kept.
    pub(crate) fn load(&self, start: i64) -> Load {
        debug_assert!(start >= 0, "loads start at 0 or later");
        Load {
            reservation: self.index,
            start: start.unsigned_abs(),
        }
    }
}

/// The reservations that can be served, by due date and then by position; dates are on the link's clock.
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if one that can be served is loaded at another rate, [`Unsupported::Unload`] if images stay after their due
/// dates.
pub(crate) fn items_beside_staged(instance: &Instance) -> Result<Vec<Item>, Unsupported> {
    if instance.unload() > 0 {
        return Err(Unsupported::Unload);
    }
    let mut items = Vec::with_capacity(instance.reservations().len());
    for (index, reservation) in instance.reservations().iter().enumerate() {
        if instance.exclusion(index).is_some() {
            continue;
        }
        if reservation.loading() != reservation.size {
            return Err(Unsupported::LoadTime { index });
        }
        items.push(Item {
            index,
            size: signed(reservation.size),
            due: signed(instance.due_on_link(index)),
            weight: reservation.weight,
        });
    }
    items.sort_by_key(|item| (item.due, item.index));
    Ok(items)
}

/// The same for algorithms that know of no staged images.
///
/// # Errors
///
/// Also [`Unsupported::Staged`] if there are any.
pub(crate) fn items(instance: &Instance) -> Result<Vec<Item>, Unsupported> {
    match instance.staged() {
        [] => items_beside_staged(instance),
        _ => Err(Unsupported::Staged),
    }
}

pub(crate) fn capacity(instance: &Instance) -> i64 {
    signed(instance.capacity())
}

/// Lossless: instances keep every value within [`LIMIT`](crate::LIMIT).
fn signed(value: u64) -> i64 {
    debug_assert!(value <= crate::LIMIT, "instances are checked");
    value.cast_signed()
}

/// The right-tight schedule of items in due-date order; the caller knows that it is feasible.
pub(crate) fn right_tight(items: &[Item]) -> Schedule {
    starts(items)
        .into_iter()
        .zip(items)
        .map(|(start, item)| item.load(start))
        .collect()
}

/// The latest starts of items in the order given; below 0 where the link is too slow.
pub(crate) fn starts(items: &[Item]) -> Vec<i64> {
    let mut link_free_until = i64::MAX;
    let mut starts: Vec<_> = items
        .iter()
        .rev()
        .map(|item| {
            link_free_until = item.due.min(link_free_until).saturating_sub(item.size);
            link_free_until
        })
        .collect();
    starts.reverse();
    starts
}
