//! Judges a schedule by the definition of the problem, and by nothing that the algorithms believe.
//!
//! A sweep over the moments at which something starts, ends or leaves. Between them what is staged never falls, so the stage is
//! fullest just before the end of such an interval: at a start (integral), or just before an end or a due date (continuous).

use crate::{Instance, Load, Model, Schedule};

/// The first rule that a schedule breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A load names no reservation of the instance.
    #[error("load {load} names reservation {reservation}, which is not there")]
    Unknown {
        /// Position of the load.
        load: usize,
        /// What it names.
        reservation: usize,
    },
    /// A reservation is loaded twice.
    #[error("reservation {reservation} is loaded more than once")]
    Repeated {
        /// Its position.
        reservation: usize,
    },
    /// A load ends after its due date.
    #[error("the load of reservation {reservation} ends at {end}, after its due date")]
    Late {
        /// Its position.
        reservation: usize,
        /// When the load ends.
        end: u128,
    },
    /// Two loads use the link at the same time.
    #[error(
        "the load of reservation {reservation} starts at {start}, before the one before it has ended"
    )]
    Overlap {
        /// The later one's position.
        reservation: usize,
        /// When it starts.
        start: u64,
    },
    /// The stage holds more than its capacity.
    #[error("the stage overflows at {at}")]
    Overflow {
        /// The moment (for the continuous model: just before it).
        at: u64,
    },
}

/// Whether a schedule is feasible for an instance under a model.
///
/// Takes O(n log n) and knows load times that differ from sizes: under [`Model::Continuous`] such an image arrives at a
/// constant rate.
///
/// # Errors
///
/// The first rule broken, as a [`Violation`].
pub fn validate(instance: &Instance, model: Model, schedule: &Schedule) -> Result<(), Violation> {
    known(instance, schedule)?;
    on_the_link(instance, schedule)?;
    match model {
        Model::Continuous => continuous(instance, schedule),
        Model::Integral => integral(instance, schedule),
    }
}

fn known(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let mut seen = vec![false; instance.reservations().len()];
    for (load, reservation) in schedule.order().enumerate() {
        let Some(seen) = seen.get_mut(reservation) else {
            return Err(Violation::Unknown { load, reservation });
        };
        if std::mem::replace(seen, true) {
            return Err(Violation::Repeated { reservation });
        }
    }
    Ok(())
}

fn end(instance: &Instance, load: &Load) -> u128 {
    let loading = instance.reservations()[load.reservation].loading();
    u128::from(load.start) + u128::from(loading)
}

fn on_the_link(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let mut link_free = 0;
    for load in schedule.loads() {
        let Load { reservation, start } = *load;
        if u128::from(start) < link_free {
            return Err(Violation::Overlap { reservation, start });
        }
        link_free = end(instance, load);
        if link_free > u128::from(instance.reservations()[reservation].due) {
            let end = link_free;
            return Err(Violation::Late { reservation, end });
        }
    }
    Ok(())
}

/// What happens at a moment; departures come first in the integral model, ends first in the continuous one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Ends,
    Leaves,
    Starts,
}

/// The whole image counts from the start of its load; room freed at a moment is free at that moment.
fn integral(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let mut held: u128 = 0;
    for (at, moment, load) in moments(instance, schedule, [Moment::Leaves, Moment::Starts]) {
        let size = u128::from(instance.reservations()[load.reservation].size);
        if moment == Moment::Leaves {
            held -= size;
            continue;
        }
        held += size;
        if held > u128::from(instance.capacity()) {
            return Err(Violation::Overflow { at });
        }
    }
    Ok(())
}

/// What has arrived counts. At most one load is under way at a time, so at most one image is there in part.
fn continuous(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let all = [Moment::Ends, Moment::Leaves, Moment::Starts];
    let mut whole: u128 = 0;
    let mut under_way: Option<Load> = None;
    for (at, moment, load) in moments(instance, schedule, all) {
        let size = u128::from(instance.reservations()[load.reservation].size);
        match moment {
            Moment::Starts => under_way = Some(load),
            Moment::Ends => {
                under_way = None;
                whole += size;
                full(instance, whole, None, at)?;
            }
            Moment::Leaves => {
                full(instance, whole, under_way, at)?;
                whole -= size;
            }
        }
    }
    Ok(())
}

/// Whether the whole images and the arrived part of another fit just before `at`.
fn full(instance: &Instance, whole: u128, part: Option<Load>, at: u64) -> Result<(), Violation> {
    let overflow = Err(Violation::Overflow { at });
    let Some(room) = u128::from(instance.capacity()).checked_sub(whole) else {
        return overflow;
    };
    let Some(load) = part else {
        return Ok(());
    };
    let reservation = instance.reservations()[load.reservation];
    let arriving = u128::from(reservation.size) * u128::from(at - load.start);
    if arriving > room * u128::from(reservation.loading()) {
        return overflow;
    }
    Ok(())
}

fn moments<const N: usize>(
    instance: &Instance,
    schedule: &Schedule,
    kinds: [Moment; N],
) -> Vec<(u64, Moment, Load)> {
    let mut moments: Vec<_> = schedule
        .loads()
        .iter()
        .flat_map(|load| kinds.map(|kind| (when(instance, load, kind), kind, *load)))
        .collect();
    moments.sort_by_key(|(at, kind, _)| (*at, *kind));
    moments
}

/// Called after the link was checked, so that an end lies before a due date and fits.
fn when(instance: &Instance, load: &Load, moment: Moment) -> u64 {
    let reservation = &instance.reservations()[load.reservation];
    match moment {
        Moment::Starts => load.start,
        Moment::Ends => load.start + reservation.loading(),
        Moment::Leaves => reservation.due,
    }
}
