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
        if link_free > u128::from(instance.due_on_link(reservation)) {
            let end = link_free;
            return Err(Violation::Late { reservation, end });
        }
    }
    Ok(())
}

/// What happens at a moment; ends come first, then departures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Ends,
    Leaves,
    Starts,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    at: u64,
    moment: Moment,
    size: u64,
    /// None for what is staged from the beginning.
    load: Option<Load>,
}

fn staged_bytes(instance: &Instance) -> u128 {
    let sizes = instance.staged().iter().map(|image| image.size);
    sizes.map(u128::from).sum()
}

/// The whole image counts from the start of its load; room freed at a moment is free at that moment.
fn integral(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let mut held = staged_bytes(instance);
    for event in events(instance, schedule) {
        match event.moment {
            Moment::Ends => {}
            Moment::Leaves => held -= u128::from(event.size),
            Moment::Starts => held += u128::from(event.size),
        }
        if held > u128::from(instance.capacity()) {
            return Err(Violation::Overflow { at: event.at });
        }
    }
    Ok(())
}

/// What has arrived counts. At most one load is under way at a time, so at most one image is there in part.
fn continuous(instance: &Instance, schedule: &Schedule) -> Result<(), Violation> {
    let mut whole = staged_bytes(instance);
    let mut under_way: Option<Load> = None;
    for event in events(instance, schedule) {
        let size = u128::from(event.size);
        match event.moment {
            Moment::Starts => under_way = event.load,
            Moment::Ends => {
                under_way = None;
                whole += size;
                full(instance, whole, None, event.at)?;
            }
            Moment::Leaves => {
                full(instance, whole, under_way, event.at)?;
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

/// Everything that happens, in order.
fn events(instance: &Instance, schedule: &Schedule) -> Vec<Event> {
    let leaving = instance.staged().iter().map(|image| Event {
        at: instance.leaves_on_link(image.due),
        moment: Moment::Leaves,
        size: image.size,
        load: None,
    });
    let loads = schedule.loads().iter();
    let mut events: Vec<_> = loads
        .flat_map(|load| events_of(instance, *load))
        .chain(leaving)
        .collect();
    events.sort_by_key(|event| (event.at, event.moment));
    events
}

/// Called after the link was checked, so that an end lies before a due date and fits.
fn events_of(instance: &Instance, load: Load) -> [Event; 3] {
    let reservation = &instance.reservations()[load.reservation];
    let event = |at, moment| Event {
        at,
        moment,
        size: reservation.size,
        load: Some(load),
    };
    [
        event(load.start, Moment::Starts),
        event(load.start + reservation.loading(), Moment::Ends),
        event(instance.leaves_on_link(reservation.due), Moment::Leaves),
    ]
}
