//! Small instances, by chance and by hand.

use mutual_stage::{Instance, Reservation};
use proptest::prelude::*;

/// An instance written down as (size, due) or more.
pub(crate) fn instance(capacity: u64, rows: &[(u64, u64, u64)]) -> Instance {
    let reservation =
        |(size, due, weight): &(u64, u64, u64)| Reservation::new(*size, *due, *weight);
    Instance::new(capacity, rows.iter().map(reservation).collect()).expect("rows are in range")
}

/// Up to six reservations that meet each other: sizes up to a little more than the stage, due dates within a few stagefuls.
pub(crate) fn any(weight_max: u64) -> impl Strategy<Value = Instance> {
    (2u64..12).prop_flat_map(move |capacity| {
        let row = (1..=capacity + 1, 0..=3 * capacity, 0..=weight_max);
        prop::collection::vec(row, 0..=6).prop_map(move |rows| instance(capacity, &rows))
    })
}

/// The same with equal weights.
pub(crate) fn equal_weights() -> impl Strategy<Value = Instance> {
    any(1).prop_map(|given| {
        let rows: Vec<_> = given
            .reservations()
            .iter()
            .map(|r| (r.size, r.due, 3))
            .collect();
        instance(given.capacity(), &rows)
    })
}

/// Images above half the stage.
pub(crate) fn large(weight_max: u64) -> impl Strategy<Value = Instance> {
    (2u64..12).prop_flat_map(move |capacity| {
        let row = (
            capacity / 2 + 1..=capacity,
            0..=5 * capacity,
            0..=weight_max,
        );
        prop::collection::vec(row, 0..=6).prop_map(move |rows| instance(capacity, &rows))
    })
}

/// Images of one size.
pub(crate) fn one_size(weight_max: u64) -> impl Strategy<Value = Instance> {
    (2u64..12, 1u64..6).prop_flat_map(move |(capacity, size)| {
        let row = (Just(size), 0..=4 * capacity, 0..=weight_max);
        prop::collection::vec(row, 0..=6).prop_map(move |rows| instance(capacity, &rows))
    })
}

/// Load times that differ from sizes.
pub(crate) fn any_load_times() -> impl Strategy<Value = Instance> {
    (2u64..10).prop_flat_map(|capacity| {
        let row = (1..=capacity, 0..=2 * capacity, 1u64..5, 1u64..6);
        prop::collection::vec(row, 0..=4).prop_map(move |rows| with_load_times(capacity, &rows))
    })
}

/// Rows of (size, due, weight, load time).
pub(crate) fn with_load_times(capacity: u64, rows: &[(u64, u64, u64, u64)]) -> Instance {
    let reservation = |(size, due, weight, load_time): &(u64, u64, u64, u64)| Reservation {
        load_time: Some(*load_time),
        ..Reservation::new(*size, *due, *weight)
    };
    Instance::new(capacity, rows.iter().map(reservation).collect()).expect("rows are in range")
}
