//! For a fixed order, the latest starts are as good as any: the *right-tight* form of a schedule.
//!
//! An image that starts later occupies the stage for a shorter time, and nothing else changes, because it leaves at its due date
//! anyhow. So of all schedules with one order, the one in which every load starts as late as it can is feasible if any is (INFOCOM
//! 2010, for both models and any load times). Every algorithm here works on such schedules.

use crate::{Instance, Load, Schedule};

/// The loads do not fit onto the link in this order: the latest start of one would lie before time 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("in this order the load of reservation {reservation} would have to start before time 0")]
pub struct Infeasible {
    /// Position of the reservation.
    pub reservation: usize,
}

/// The schedule with the latest starts for an order of reservations, on the link's clock, in O(n). The stage's capacity plays no part in it.
///
/// ```
/// use mutual_stage::{Instance, Reservation, right_tight};
///
/// let reservations = vec![Reservation::new(4, 9, 1), Reservation::new(4, 12, 1)];
/// let schedule = right_tight(&Instance::new(10, reservations)?, &[0, 1])?;
/// let starts: Vec<_> = schedule.loads().iter().map(|load| load.start).collect();
/// assert_eq!(starts, [4, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Infeasible`] if even the link is too slow for them.
///
/// # Panics
///
/// If `order` names a reservation that the instance does not have.
pub fn right_tight(instance: &Instance, order: &[usize]) -> Result<Schedule, Infeasible> {
    let mut link_free_until = u64::MAX;
    let mut loads = Vec::with_capacity(order.len());
    for &reservation in order.iter().rev() {
        let wanted = &instance.reservations()[reservation];
        let end = instance.due_on_link(reservation).min(link_free_until);
        let start = end
            .checked_sub(wanted.loading())
            .ok_or(Infeasible { reservation })?;
        loads.push(Load { reservation, start });
        link_free_until = start;
    }
    loads.reverse();
    Ok(loads.into())
}

/// The right-tight form of a schedule: the same order with the latest starts, in O(n). Feasible if the given one is (INFOCOM 2010).
///
/// ```
/// use mutual_stage::{Instance, Model, Reservation, baseline, tighten, validate};
///
/// let reservations = vec![Reservation::new(4, 9, 1), Reservation::new(4, 12, 1)];
/// let instance = Instance::new(10, reservations)?;
/// let early = baseline::forward_edd(&instance, Model::Integral)?;
/// let late = tighten(&instance, &early)?;
/// assert_eq!((early.loads()[0].start, late.loads()[0].start), (0, 4));
/// assert_eq!(validate(&instance, Model::Integral, &late), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Infeasible`] only if the loads of the given schedule overlap, are late, or start before time 0.
///
/// # Panics
///
/// If a load names a reservation that the instance does not have.
pub fn tighten(instance: &Instance, schedule: &Schedule) -> Result<Schedule, Infeasible> {
    let order: Vec<_> = schedule.order().collect();
    right_tight(instance, &order)
}
