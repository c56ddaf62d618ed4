//! The continuous algorithms are exact.

use mutual_stage::{Instance, Model, Solution, Unsupported, continuous, validate};
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

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
