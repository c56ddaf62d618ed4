//! The validator, by hand-made cases and against the plainest form of the definition.

use mutual_stage::{Instance, Load, Model, Reservation, Schedule, Violation, validate};
use proptest::prelude::*;

use crate::{brute, small};

fn schedule(loads: &[(usize, u64)]) -> Schedule {
    let load = |(reservation, start): &(usize, u64)| Load {
        reservation: *reservation,
        start: *start,
    };
    loads.iter().map(load).collect()
}

#[track_caller]
fn check(instance: &Instance, loads: &[(usize, u64)], expected: [Result<(), Violation>; 2]) {
    let schedule = schedule(loads);
    let found =
        [Model::Continuous, Model::Integral].map(|model| validate(instance, model, &schedule));
    assert_eq!(found, expected);
}

#[test]
fn each_rule_is_named_when_it_is_broken() {
    let given = small::instance(10, &[(4, 10, 1), (4, 12, 1), (6, 18, 1)]);
    let both = |violation| [Err(violation), Err(violation)];
    check(&given, &[(0, 0), (1, 4)], [Ok(()), Ok(())]);
    let unknown = Violation::Unknown {
        load: 1,
        reservation: 7,
    };
    check(&given, &[(0, 0), (7, 4)], both(unknown));
    check(
        &given,
        &[(0, 0), (0, 5)],
        both(Violation::Repeated { reservation: 0 }),
    );
    check(
        &given,
        &[(0, 7)],
        both(Violation::Late {
            reservation: 0,
            end: 11,
        }),
    );
    let overlap = Violation::Overlap {
        reservation: 1,
        start: 3,
    };
    check(&given, &[(0, 0), (1, 3)], both(overlap));
}

#[test]
fn room_freed_at_a_moment_is_free_at_that_moment() {
    let given = small::instance(10, &[(6, 8, 1), (6, 20, 1)]);
    check(&given, &[(0, 2), (1, 8)], [Ok(()), Ok(())]);
    let overflow = Err(Violation::Overflow { at: 8 });
    let early = Err(Violation::Overflow { at: 7 });
    check(&given, &[(0, 0), (1, 7)], [Ok(()), early]);
    let given = small::instance(6, &[(6, 8, 1), (6, 20, 1)]);
    check(&given, &[(0, 0), (1, 7)], [overflow, early]);
}

#[test]
fn greatest_numbers_do_not_overflow() {
    let limit = mutual_stage::LIMIT;
    let rows = vec![
        Reservation::new(limit, limit, u64::MAX),
        Reservation::new(1, limit, u64::MAX),
    ];
    let given = Instance::new(limit, rows).unwrap();
    check(&given, &[(0, 0)], [Ok(()), Ok(())]);
    let late = Violation::Late {
        reservation: 1,
        end: u128::from(u64::MAX) + 1,
    };
    check(&given, &[(1, u64::MAX)], [Err(late), Err(late)]);
    assert_eq!(
        schedule(&[(0, 0), (1, 0)]).weight(&given),
        2 * u128::from(u64::MAX)
    );
}

fn instance_and_schedule() -> impl Strategy<Value = (Instance, Schedule)> {
    let given = prop_oneof![small::any(3), small::any_load_times()];
    given.prop_flat_map(|given| {
        let count = given.reservations().len();
        let starts = prop::collection::vec(0u64..25, count);
        let kept = prop::collection::vec(prop::bool::ANY, count);
        (Just(given), starts, kept).prop_map(|(given, starts, kept)| {
            let loads = starts.iter().enumerate().filter(|(index, _)| kept[*index]);
            let loads: Vec<_> = loads.map(|(index, start)| (index, *start)).collect();
            (given, schedule(&loads))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_sweep_agrees_with_the_plain_definition((given, schedule) in instance_and_schedule()) {
        for model in [Model::Continuous, Model::Integral] {
            let swept = validate(&given, model, &schedule).is_ok();
            prop_assert_eq!(swept, brute::is_feasible(&given, model, &schedule), "{:?}", model);
        }
    }
}
