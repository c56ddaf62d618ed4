//! Small instances, by chance and by hand.

use mutual_stage::{Bandwidth, Instance, Reservation, Staged};
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

/// Images on the stage from the beginning, and up to five reservations.
pub(crate) fn beside_staged(weight_max: u64) -> impl Strategy<Value = Instance> {
    (4u64..12).prop_flat_map(move |capacity| {
        let row = (1..=capacity, 0..=3 * capacity, 0..=weight_max);
        let staged = prop::collection::vec((1..=capacity / 2, 0..=2 * capacity), 0..=2);
        let rows = prop::collection::vec(row, 0..=5);
        (rows, staged).prop_map(move |(rows, staged)| {
            let staged = staged.into_iter().map(|(size, due)| Staged { size, due });
            instance(capacity, &rows)
                .with_staged(staged.collect())
                .expect("halves fit twice")
        })
    })
}

/// A link of changing rate, with pauses.
pub(crate) fn changing_rate(weight_max: u64) -> impl Strategy<Value = Instance> {
    let steps = prop::collection::vec((1u64..5, 0u64..4), 1..4);
    (any(weight_max), steps).prop_map(|(given, steps)| {
        let mut from = 0;
        let steps = steps.into_iter().map(|(length, rate)| {
            let step = (from, rate);
            from += length;
            step
        });
        let bandwidth = Bandwidth::new(steps.collect()).expect("steps ascend");
        given.with_bandwidth(bandwidth).expect("numbers are small")
    })
}

/// Two sizes for all, so that images are interchangeable.
pub(crate) fn few_sizes(weight_max: u64) -> impl Strategy<Value = Instance> {
    (4u64..14, 1u64..4, 2u64..7).prop_flat_map(move |(capacity, small, large)| {
        let size = prop_oneof![Just(small), Just(large.min(capacity))];
        let row = (size, 0..=2 * capacity, 0..=weight_max);
        prop::collection::vec(row, 0..=7).prop_map(move |rows| instance(capacity, &rows))
    })
}
