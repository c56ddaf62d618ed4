//! The integral algorithms: exact where they say so, at least half elsewhere.

use mutual_stage::integral::{self, Half};
use std::num::NonZeroUsize;

use mutual_stage::continuous::Epsilon;
use mutual_stage::{Instance, Model, Solution, Unsupported, solve, validate};
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
    fn the_search_is_exact(given in small::any(5)) {
        assert_best(&given, &solve(&given, Model::Integral, &mut || false));
    }

    #[test]
    fn the_search_is_exact_beside_staged_images(given in small::beside_staged(5)) {
        assert_best(&given, &solve(&given, Model::Integral, &mut || false));
    }

    #[test]
    fn the_search_is_exact_on_a_link_of_changing_rate(given in small::changing_rate(5)) {
        assert_best(&given, &solve(&given, Model::Integral, &mut || false));
    }

    #[test]
    fn the_search_is_exact_for_few_sizes(given in small::few_sizes(5)) {
        assert_best(&given, &solve(&given, Model::Integral, &mut || false));
    }

    #[test]
    fn a_search_that_is_stopped_answers_all_the_same(given in small::any(5), steps in 0usize..12) {
        let mut left = steps;
        let mut stop = || { left = left.saturating_sub(1); left == 0 };
        let solution = solve(&given, Model::Integral, &mut stop);
        assert_feasible(&given, &solution);
        prop_assert!(brute::heaviest(&given, Model::Integral) <= solution.bound);
    }

    #[test]
    fn an_unlimited_beam_is_the_best_in_due_date_order(given in small::any(5)) {
        let solution = integral::beam(&given, NonZeroUsize::MAX).unwrap();
        assert_feasible(&given, &solution);
        prop_assert_eq!(solution.weight, brute::heaviest_by_due_date(&given, Model::Integral));
        let narrow = integral::beam(&given, NonZeroUsize::MIN).unwrap();
        assert_feasible(&given, &narrow);
        prop_assert!(narrow.weight <= solution.weight);
    }

    #[test]
    fn the_weighted_scan_keeps_half_of_nearly_all(given in small::any(100_000), millionths in 1u32..=1_000_000) {
        let epsilon = Epsilon::millionths(millionths).unwrap();
        let solution = integral::half_of_near_heaviest(&given, epsilon).unwrap();
        assert_feasible(&given, &solution);
        let best = mutual_stage::continuous::heaviest(&given).unwrap().weight;
        prop_assert!(2_000_000 * solution.weight >= u128::from(1_000_000 - millionths) * best);
    }

    #[test]
    fn small_images_lose_one_part_of_q(
        capacity in 14u64..90,
        rows in prop::collection::vec((0u64..100, 0u64..300, 1u64..9), 0..120),
    ) {
        let most = capacity / 7;
        let rows: Vec<_> = rows.into_iter().map(|(size, due, weight)| (1 + size % most, due, weight)).collect();
        let given = small::instance(capacity, &rows);
        let solution = integral::small_images(&given).unwrap();
        assert_feasible(&given, &solution);
        let size_max = given.reservations().iter().filter(|r| r.size <= r.due).map(|r| r.size).max().unwrap_or(1);
        let q = u128::from((capacity - 3 * size_max) / (2 * size_max));
        prop_assert!(q * solution.weight >= (q - 1) * solution.bound);
    }

    #[test]
    fn a_stage_smaller_by_the_largest_image_leaves_room(given in small::any(4)) {
        let sizes = given.reservations().iter().map(|r| r.size);
        let largest = sizes.filter(|size| *size < given.capacity()).max().unwrap_or(1);
        let rows: Vec<_> = given.reservations().iter().filter(|r| r.size <= largest).map(|r| (r.size, r.due, r.weight)).collect();
        let smaller = small::instance(given.capacity() - largest, &rows);
        let schedule = mutual_stage::continuous::heaviest(&smaller).unwrap().schedule;
        let whole = small::instance(given.capacity(), &rows);
        prop_assert_eq!(validate(&whole, Model::Integral, &schedule), Ok(()));
    }

    #[test]
    fn the_bound_holds(given in small::any(5), known in 0u128..4) {
        let best = brute::heaviest(&given, Model::Integral);
        let bound = integral::upper_bound(&given, known, &mut || false).unwrap();
        prop_assert!(bound >= best, "{} < {}", bound, best);
        prop_assert!(bound <= mutual_stage::continuous::heaviest(&given).unwrap().bound.max(known));
        prop_assert!(integral::upper_bound(&given, best, &mut || true).unwrap() >= best);
    }

    #[test]
    fn the_bound_holds_for_few_sizes_and_known_optima(given in small::few_sizes(3)) {
        let best = brute::heaviest(&given, Model::Integral);
        let bound = integral::upper_bound(&given, best, &mut || false).unwrap();
        prop_assert!(bound >= best);
    }

    #[test]
    fn the_bound_holds_beside_staged_images(given in small::beside_staged(4)) {
        let best = brute::heaviest(&given, Model::Integral);
        prop_assert!(integral::upper_bound(&given, 0, &mut || false).unwrap() >= best);
    }

    #[test]
    fn the_bound_holds_on_a_link_of_changing_rate(given in small::changing_rate(4)) {
        let best = brute::heaviest(&given, Model::Integral);
        prop_assert!(integral::upper_bound(&given, 0, &mut || false).unwrap() >= best);
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
