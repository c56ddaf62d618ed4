//! The continuous algorithms are exact.

use mutual_stage::continuous::{self, Epsilon};
use mutual_stage::{Bandwidth, Instance, Model, Solution, Unsupported, validate};
use proptest::prelude::*;

use crate::{brute, small};

#[track_caller]
fn assert_best(given: &Instance, solution: &Solution) {
    assert_eq!(
        validate(given, Model::Continuous, &solution.schedule),
        Ok(())
    );
    assert_eq!(solution.weight, solution.schedule.weight(given));
    assert!(solution.is_proved_best());
    assert_eq!(solution.weight, brute::heaviest(given, Model::Continuous));
}

/// The best of all sets by the definition of fluid loading, in real time: each moment the link brings what its rate says into the room there is.
fn fluid_best(given: &Instance) -> u128 {
    let reservations = given.reservations();
    let horizon = reservations.iter().map(|r| r.due).max().unwrap_or(0);
    let fits = |set: u32| {
        let mut tokens = 0;
        (0..=horizon).all(|now| {
            let due = (0..reservations.len())
                .filter(|j| set & (1 << j) != 0 && reservations[*j].due == now);
            let needed: u64 = due.map(|j| reservations[j].size).sum();
            let enough = needed <= tokens;
            tokens = tokens.saturating_sub(needed) + given.on_link(now + 1) - given.on_link(now);
            tokens = tokens.min(given.capacity());
            enough
        })
    };
    let weight = |set: u32| {
        let taken = (0..reservations.len()).filter(|j| set & (1 << j) != 0);
        taken
            .map(|j| u128::from(reservations[j].weight))
            .sum::<u128>()
    };
    (0..1 << reservations.len())
        .filter(|set| fits(*set))
        .map(weight)
        .max()
        .unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_front_is_exact(given in small::any(5)) {
        assert_best(&given, &continuous::heaviest(&given).unwrap());
    }

    #[test]
    fn the_bucket_is_exact_for_equal_weights(given in small::equal_weights()) {
        assert_best(&given, &continuous::most(&given).unwrap());
    }

    #[test]
    fn both_agree_on_longer_instances(
        capacity in 5u64..60,
        rows in prop::collection::vec((1u64..40, 0u64..900), 0..120),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(size, due)| (size, due, 1)).collect();
        let given = small::instance(capacity, &rows);
        let most = continuous::most(&given).unwrap();
        prop_assert_eq!(validate(&given, Model::Continuous, &most.schedule), Ok(()));
        prop_assert_eq!(most.weight, continuous::heaviest(&given).unwrap().weight);
    }

    #[test]
    fn staged_images_leave_the_front_and_the_table_exact(given in small::beside_staged(5)) {
        assert_best(&given, &continuous::heaviest(&given).unwrap());
        assert_best(&given, &continuous::heaviest_by_table(&given).unwrap());
    }

    #[test]
    fn staged_images_leave_the_bucket_exact(given in small::beside_staged(0)) {
        let rows: Vec<_> = given.reservations().iter().map(|r| (r.size, r.due, 3)).collect();
        let given = small::instance(given.capacity(), &rows).with_staged(given.staged().to_vec()).unwrap();
        assert_best(&given, &continuous::most(&given).unwrap());
    }

    #[test]
    fn a_link_of_changing_rate_is_solved_exactly(given in small::changing_rate(5)) {
        assert_best(&given, &continuous::heaviest(&given).unwrap());
        prop_assert!(fluid_best(&given) == continuous::heaviest(&given).unwrap().weight);
    }

    #[test]
    fn the_scaled_weights_lose_no_more_than_epsilon(
        given in small::any(1_000_000),
        millionths in 1u32..=1_000_000,
    ) {
        let near = continuous::near_heaviest(&given, Epsilon::millionths(millionths).unwrap()).unwrap();
        prop_assert_eq!(validate(&given, Model::Continuous, &near.schedule), Ok(()));
        let best = continuous::heaviest(&given).unwrap().weight;
        prop_assert!(near.weight * 1_000_000 >= best * u128::from(1_000_000 - millionths));
        prop_assert!(near.bound >= best);
    }

    #[test]
    fn equal_rates_are_another_unit_of_size(given in small::any(4), rate in 1u64..5) {
        let rows: Vec<_> = given.reservations().iter().map(|r| (r.size * rate, r.due, r.weight)).collect();
        let fast = small::instance(given.capacity() * rate, &rows)
            .with_bandwidth(Bandwidth::new(vec![(0, rate)]).unwrap())
            .unwrap();
        let weight = |given: &Instance| continuous::heaviest(given).unwrap().weight;
        prop_assert_eq!(weight(&fast), weight(&given));
    }

    #[test]
    fn order_unit_and_beginning_do_not_matter(given in small::any(4), unit in 1u64..6, shift in 0u64..30) {
        let weight = |given: &Instance| continuous::heaviest(given).unwrap().weight;
        let rows = |change: &dyn Fn(u64, u64) -> (u64, u64)| -> Vec<_> {
            let rows = given.reservations().iter().rev();
            rows.map(|r| { let (size, due) = change(r.size, r.due); (size, due, r.weight) }).collect()
        };
        let scaled = small::instance(given.capacity() * unit, &rows(&|size, due| (size * unit, due * unit)));
        prop_assert_eq!(weight(&scaled), weight(&given));
        let later = small::instance(given.capacity(), &rows(&|size, due| (size, due + shift)));
        prop_assert!(weight(&later) >= weight(&given));
    }

    #[test]
    fn what_cannot_be_served_is_not(given in small::any(2)) {
        let solution = continuous::heaviest(&given).unwrap();
        prop_assert!(solution.schedule.order().all(|index| given.exclusion(index).is_none()));
    }
}

#[test]
fn weights_beyond_64_bits_are_added_up() {
    let rows: Vec<_> = (1..=4).map(|due| (1, due, u64::MAX)).collect();
    let given = small::instance(2, &rows);
    let solution = continuous::heaviest(&given).unwrap();
    assert_eq!(solution.weight, 4 * u128::from(u64::MAX));
    assert_eq!(continuous::most(&given).unwrap().weight, solution.weight);
}

#[test]
fn the_greatest_numbers_do_not_overflow() {
    let limit = mutual_stage::LIMIT;
    let given = small::instance(
        limit,
        &[
            (limit, limit, 1),
            (limit, limit, 1),
            (1, limit, 1),
            (1, limit, 1),
        ],
    );
    assert_eq!(continuous::heaviest(&given).unwrap().weight, 2);
    assert_eq!(continuous::most(&given).unwrap().weight, 2);
}

#[test]
fn what_is_not_supported_is_named() {
    let slow = small::with_load_times(7, &[(3, 9, 1, 3), (3, 12, 1, 2)]);
    assert_eq!(
        continuous::heaviest(&slow),
        Err(Unsupported::LoadTime { index: 1 })
    );
    let unequal = small::instance(7, &[(3, 9, 1), (3, 12, 2)]);
    assert_eq!(
        continuous::most(&unequal),
        Err(Unsupported::Weight { index: 1 })
    );
}

#[test]
fn nothing_to_do_is_done() {
    let given = small::instance(7, &[]);
    assert_eq!(continuous::heaviest(&given).unwrap().weight, 0);
    assert_eq!(continuous::most(&given).unwrap().weight, 0);
}
