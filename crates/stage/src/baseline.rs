//! Earliest-due-date rules to compare with: simple, fast, and defined to the letter.
//!
//! "EDD" alone means nothing: depending on whether it runs backward or forward in time and on what it does when a load does
//! not fit, it serves very different numbers of reservations. Reservations with equal due dates go in their own order everywhere.

mod backward;
mod forward;
mod room;

use crate::due_order;
use crate::{Instance, Model, Schedule, Unsupported};

/// Backward EDD: from the latest due date to the earliest, each load as late as it can be, left out if it does not fit.
///
/// The load ends at its due date or at the start of the load planned before, whichever is earlier. It is left out if it would start
/// before time 0, or overflow the stage together with the loads planned so far. O(n log n).
///
/// ```
/// use mutual_stage::{Instance, Model, Reservation, baseline};
///
/// // The second is due last and loaded last, as late as it can be; the first comes before it.
/// let reservations = vec![Reservation::new(4, 9, 1), Reservation::new(4, 12, 1)];
/// let schedule = baseline::backward_edd(&Instance::new(10, reservations)?, Model::Integral)?;
/// let starts: Vec<_> = schedule.loads().iter().map(|load| load.start).collect();
/// assert_eq!(starts, [4, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn backward_edd(instance: &Instance, model: Model) -> Result<Schedule, Unsupported> {
    let items = due_order::items(instance)?;
    Ok(backward::plan(due_order::capacity(instance), model, &items))
}

/// Forward EDD: from the earliest due date to the latest, each load as early as it can be, left out if it would be late.
///
/// The load starts at the first moment at which the link is free and the image finds room until it is handed over, given what is
/// staged by then. It is left out, and neither link nor stage is used, if it would end after its due date.
/// O(n · k) for k images on the stage at a time.
///
/// ```
/// use mutual_stage::{Instance, Model, Reservation, baseline};
///
/// // The second waits until the first has left at 9.
/// let reservations = vec![Reservation::new(4, 9, 1), Reservation::new(7, 16, 1)];
/// let schedule = baseline::forward_edd(&Instance::new(10, reservations)?, Model::Integral)?;
/// let starts: Vec<_> = schedule.loads().iter().map(|load| load.start).collect();
/// assert_eq!(starts, [0, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn forward_edd(instance: &Instance, model: Model) -> Result<Schedule, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    Ok(forward::plan(
        capacity,
        model,
        &items,
        forward::Late::LeaveOut,
    ))
}

/// [`forward_edd`] in the integral model, for items by due date.
pub(crate) fn forward_items(capacity: i64, items: &[due_order::Item]) -> Schedule {
    forward::plan(capacity, Model::Integral, items, forward::Late::LeaveOut)
}

/// Blind EDD: like [`forward_edd`], but nobody looks whether a load will be late.
///
/// A late image is loaded all the same, in vain: it takes the link, and the stage until its load has ended, and is not part of
/// the schedule that comes out. O(n · k) for k images on the stage at a time.
///
/// ```
/// use mutual_stage::{Instance, Model, Reservation, baseline};
///
/// // The second is late once the first is loaded; loaded in vain, it makes the third late, too.
/// let reservations = [6, 7, 12].map(|due| Reservation::new(5, due, 1));
/// let instance = Instance::new(10, reservations.into())?;
/// let blind = baseline::blind_edd(&instance, Model::Continuous)?;
/// let forward = baseline::forward_edd(&instance, Model::Continuous)?;
/// assert_eq!((blind.loads().len(), forward.loads().len()), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn blind_edd(instance: &Instance, model: Model) -> Result<Schedule, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    Ok(forward::plan(
        capacity,
        model,
        &items,
        forward::Late::LoadInVain,
    ))
}
