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
/// ```
/// use mutual_stage::{Instance, Load, Model, Reservation, Schedule, Violation, validate};
///
/// let reservations = vec![Reservation::new(6, 8, 1), Reservation::new(6, 20, 1)];
/// let instance = Instance::new(10, reservations)?;
/// let loads = [(0, 0), (1, 7)].map(|(reservation, start)| Load { reservation, start });
/// let schedule: Schedule = loads.into_iter().collect();
/// // At 7 there is room for one byte, not yet for six.
/// assert_eq!(validate(&instance, Model::Continuous, &schedule), Ok(()));
/// let overflow = Violation::Overflow { at: 7 };
/// assert_eq!(validate(&instance, Model::Integral, &schedule), Err(overflow));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first rule broken, as a [`Violation`].
pub fn validate(instance: &Instance, model: Model, schedule: &Schedule) -> Result<(), Violation> {
    known(instance, schedule)?;
    on_the_link(instance, schedule)?;
    let loads = schedule
        .loads()
        .iter()
        .map(|load| Placed::of(instance, *load));
    on_the_stage(instance, model, loads.collect()).map_err(|at| Violation::Overflow { at })
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

/// A load and its image on the stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) size: u64,
    pub(crate) start: u64,
    pub(crate) loading: u64,
    /// Not before the load has ended.
    pub(crate) leaves: u64,
}

impl Placed {
    fn of(instance: &Instance, load: Load) -> Self {
        let reservation = &instance.reservations()[load.reservation];
        Self {
            size: reservation.size,
            start: load.start,
            loading: reservation.loading(),
            leaves: instance.leaves_on_link(reservation.due),
        }
    }
}

/// What happens at a moment; ends come first, then departures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Ends,
    Leaves,
    Starts,
}

/// Whether the stage has room for loads that do not overlap, beside what is staged from the beginning.
///
/// # Errors
///
/// The first moment at which it overflows.
pub(crate) fn on_the_stage(
    instance: &Instance,
    model: Model,
    loads: Vec<Placed>,
) -> Result<(), u64> {
    let before = instance.staged().iter().map(|image| u128::from(image.size));
    let before = before.sum();
    let capacity = u128::from(instance.capacity());
    let gone = before_all(instance);
    let events = events(&loads, &gone);
    match model {
        Model::Continuous => continuous(capacity, before, &events),
        Model::Integral => integral(capacity, before, &events),
    }
}

type Event<'a> = (u64, Moment, &'a Placed);

/// What is staged from the beginning: it only leaves.
fn before_all(instance: &Instance) -> Vec<Placed> {
    let staged = instance.staged().iter().map(|image| Placed {
        size: image.size,
        start: 0,
        loading: 0,
        leaves: instance.leaves_on_link(image.due),
    });
    staged.collect()
}

/// Everything that happens, in order.
fn events<'a>(loads: &'a [Placed], gone: &'a [Placed]) -> Vec<Event<'a>> {
    // Loads come in the order of their starts, so each of these lists is sorted or nearly so, which makes it quick to sort them together.
    let starts = loads.iter().map(|load| (load.start, Moment::Starts, load));
    let ends = loads
        .iter()
        .map(|load| (load.start + load.loading, Moment::Ends, load));
    let leaves = loads
        .iter()
        .chain(gone)
        .map(|load| (load.leaves, Moment::Leaves, load));
    let mut events: Vec<_> = starts.chain(ends).chain(leaves).collect();
    events.sort_by_key(|(at, moment, _)| (*at, *moment));
    events
}

/// The whole image counts from the start of its load; room freed at a moment is free at that moment.
fn integral(capacity: u128, before: u128, events: &[Event<'_>]) -> Result<(), u64> {
    let mut held = before;
    for (at, moment, load) in events {
        match moment {
            Moment::Ends => {}
            Moment::Leaves => held -= u128::from(load.size),
            Moment::Starts => held += u128::from(load.size),
        }
        if held > capacity {
            return Err(*at);
        }
    }
    Ok(())
}

/// What has arrived counts. At most one load is under way at a time, so at most one image is there in part.
fn continuous(capacity: u128, before: u128, events: &[Event<'_>]) -> Result<(), u64> {
    let mut whole = before;
    let mut under_way: Option<&Placed> = None;
    for (at, moment, load) in events {
        let size = u128::from(load.size);
        match moment {
            Moment::Starts => under_way = Some(load),
            Moment::Ends => {
                under_way = None;
                whole += size;
                full(capacity, whole, None, *at)?;
            }
            Moment::Leaves => {
                full(capacity, whole, under_way, *at)?;
                whole -= size;
            }
        }
    }
    Ok(())
}

/// Whether the whole images and the arrived part of another fit just before `at`.
fn full(capacity: u128, whole: u128, part: Option<&Placed>, at: u64) -> Result<(), u64> {
    let room = capacity.checked_sub(whole).ok_or(at)?;
    let Some(load) = part else {
        return Ok(());
    };
    let arriving = u128::from(load.size) * u128::from(at - load.start);
    match arriving > room * u128::from(load.loading) {
        true => Err(at),
        false => Ok(()),
    }
}
