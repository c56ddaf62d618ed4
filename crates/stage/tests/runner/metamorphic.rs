//! What must not change the best schedule's weight, on instances too large to try everything.

use mutual_stage::{Instance, Model, Reservation, integral, solve, validate};
use proptest::prelude::*;

/// Reservations (size, due, weight) on a stage of 60; none is due before a whole stageful can be loaded.
fn rows() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let row = (1u64..=30, 60u64..=500, 1u64..20);
    prop::collection::vec(row, 1..28)
}

const CAPACITY: u64 = 60;

fn instance(capacity: u64, rows: &[(u64, u64, u64)]) -> Instance {
    let reservation =
        |(size, due, weight): &(u64, u64, u64)| Reservation::new(*size, *due, *weight);
    Instance::new(capacity, rows.iter().map(reservation).collect()).unwrap()
}

/// The greatest weight, and that it is proved, and that no bound is below.
#[track_caller]
fn best(instance: &Instance) -> u128 {
    let solution = solve(instance, Model::Integral, &mut || false);
    assert_eq!(
        validate(instance, Model::Integral, &solution.schedule),
        Ok(())
    );
    assert!(solution.is_proved_best());
    let bound = integral::upper_bound(instance, 0, &mut || false).unwrap();
    assert!(bound >= solution.weight, "{bound} < {}", solution.weight);
    solution.weight
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn later_is_as_good(rows in rows(), later in 0u64..10_000) {
        let shifted: Vec<_> = rows.iter().map(|(size, due, weight)| (*size, due + later, *weight)).collect();
        prop_assert_eq!(best(&instance(CAPACITY, &shifted)), best(&instance(CAPACITY, &rows)));
    }

    #[test]
    fn other_units_are_as_good(rows in rows(), unit in 2u64..1 << 40, worth in 2u64..1 << 40) {
        let scaled: Vec<_> = rows.iter().map(|(size, due, weight)| (size * unit, due * unit, weight * worth)).collect();
        let plain = best(&instance(CAPACITY, &rows));
        prop_assert_eq!(best(&instance(CAPACITY * unit, &scaled)), plain * u128::from(worth));
    }

    #[test]
    fn another_order_is_as_good(rows in rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle()))) {
        let (rows, shuffled) = rows;
        prop_assert_eq!(best(&instance(CAPACITY, &shuffled)), best(&instance(CAPACITY, &rows)));
    }

    #[test]
    fn more_room_and_more_to_choose_from_are_no_worse(rows in rows(), room in 0u64..30, left_out in 0usize..28) {
        let plain = best(&instance(CAPACITY, &rows));
        prop_assert!(best(&instance(CAPACITY + room, &rows)) >= plain);
        let mut fewer = rows.clone();
        fewer.remove(left_out % rows.len());
        let less = best(&instance(CAPACITY, &fewer));
        let own = u128::from(rows[left_out % rows.len()].2);
        prop_assert!(less <= plain && plain <= less + own);
    }
}
