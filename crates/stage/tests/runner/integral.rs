//! The integral algorithms: exact where they say so, at least half elsewhere.

use mutual_stage::integral::{self, Half};
use mutual_stage::{Instance, Model, Solution, Unsupported, validate};
use proptest::prelude::*;

use crate::{brute, small};

#[track_caller]
fn assert_feasible(given: &Instance, solution: &Solution) {
    assert_eq!(validate(given, Model::Integral, &solution.schedule), Ok(()));
    assert_eq!(solution.weight, solution.schedule.weight(given));
    assert!(solution.weight <= solution.bound);
}

#[track_caller]
fn assert_best(given: &Instance, solution: &Solution) {
    assert_feasible(given, solution);
    assert!(solution.is_proved_best());
    assert_eq!(solution.weight, brute::heaviest(given, Model::Integral));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn large_images_are_solved_exactly(given in small::large(5)) {
        assert_best(&given, &integral::large_images(&given).unwrap());
        assert_best(&given, &integral::large_images_forward(&given).unwrap());
    }

    #[test]
    fn both_programs_for_large_images_agree(
        capacity in 2u64..40,
        rows in prop::collection::vec((1u64..21, 0u64..600, 1u64..9), 0..80),
    ) {
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(size, due, weight)| (capacity / 2 + 1 + size % capacity.div_ceil(2), due, weight))
            .collect();
        let given = small::instance(capacity, &rows);
        let intervals = integral::large_images(&given).unwrap();
        assert_feasible(&given, &intervals);
        prop_assert_eq!(intervals.weight, integral::large_images_forward(&given).unwrap().weight);
    }

    #[test]
    fn equal_sizes_are_solved_exactly(given in small::one_size(5)) {
        assert_best(&given, &integral::equal_sizes(&given).unwrap());
    }

    #[test]
    fn every_half_is_feasible_and_at_least_half(given in small::any(5)) {
        let bound = mutual_stage::continuous::heaviest(&given).unwrap().weight;
        for half in [Half::FromRight, Half::Forest] {
            let solution = integral::half(&given, half).unwrap();
            assert_feasible(&given, &solution);
            prop_assert!(2 * solution.weight >= bound, "{:?}", half);
        }
    }

    #[test]
    fn from_the_left_keeps_half_the_number(given in small::equal_weights()) {
        let bound = mutual_stage::continuous::heaviest(&given).unwrap().weight;
        let solution = integral::half(&given, Half::FromLeft).unwrap();
        assert_feasible(&given, &solution);
        prop_assert!(2 * solution.weight >= bound);
    }

    #[test]
    fn the_approximation_is_at_least_every_half(given in small::any(5)) {
        let solution = integral::approximate(&given).unwrap();
        assert_feasible(&given, &solution);
        prop_assert!(solution.weight <= brute::heaviest(&given, Model::Integral));
        prop_assert!(brute::heaviest(&given, Model::Integral) <= solution.bound);
        for half in Half::ALL {
            let plain = integral::half(&given, half).unwrap();
            prop_assert!(solution.weight >= plain.weight, "{:?}", half);
        }
    }

    #[test]
    fn halves_hold_on_longer_instances(
        capacity in 5u64..60,
        rows in prop::collection::vec((1u64..40, 0u64..900, 1u64..20), 0..120),
    ) {
        let given = small::instance(capacity, &rows);
        for half in [Half::FromRight, Half::Forest] {
            let solution = integral::half(&given, half).unwrap();
            assert_feasible(&given, &solution);
            prop_assert!(2 * solution.weight >= solution.bound);
        }
        assert_feasible(&given, &integral::approximate(&given).unwrap());
    }
}

/// From left to right, what is left out may be infeasible: that is why the weighted scan runs the other way.
#[test]
fn the_scan_from_the_right_takes_the_heavier_of_two_feasible_parts() {
    let given = small::instance(9, &[(5, 9, 1), (3, 13, 9), (3, 17, 9), (9, 20, 9)]);
    let solution = integral::half(&given, Half::FromRight).unwrap();
    assert_feasible(&given, &solution);
    assert!(2 * solution.weight >= solution.bound);
}

#[test]
fn what_is_not_supported_is_named() {
    let given = small::instance(8, &[(5, 9, 1), (4, 13, 1)]);
    assert_eq!(
        integral::large_images(&given),
        Err(Unsupported::Small { index: 1 })
    );
    assert_eq!(
        integral::equal_sizes(&given),
        Err(Unsupported::Size { index: 1 })
    );
    let slow = small::with_load_times(7, &[(3, 9, 1, 2)]);
    assert_eq!(
        integral::approximate(&slow),
        Err(Unsupported::LoadTime { index: 0 })
    );
}
