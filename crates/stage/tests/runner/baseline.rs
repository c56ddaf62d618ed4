//! The earliest-due-date rules are feasible, and are what their definitions say.

use mutual_stage::baseline::{backward_edd, blind_edd, forward_edd};
use mutual_stage::{Instance, Load, Model, Schedule, right_tight, validate};
use proptest::prelude::*;

use crate::{brute, small};

const MODELS: [Model; 2] = [Model::Continuous, Model::Integral];

fn by_due_date(given: &Instance) -> Vec<usize> {
    let servable =
        (0..given.reservations().len()).filter(|index| given.exclusion(*index).is_none());
    let mut order: Vec<_> = servable.collect();
    order.sort_by_key(|index| (given.reservations()[*index].due, *index));
    order
}

/// Backward EDD by its definition: put each before those kept, ask the validator.
fn plain_backward(given: &Instance, model: Model) -> Schedule {
    let mut kept = Vec::new();
    for index in by_due_date(given).into_iter().rev() {
        kept.insert(0, index);
        let fits =
            right_tight(given, &kept).is_ok_and(|tight| validate(given, model, &tight).is_ok());
        if !fits {
            kept.remove(0);
        }
    }
    right_tight(given, &kept).expect("each step kept it on the link")
}

/// Forward EDD by its definition: try every start from the moment the link is free, ask the validator.
fn plain_forward(given: &Instance, model: Model) -> Schedule {
    let (mut kept, mut link_free) = (Vec::new(), 0);
    for reservation in by_due_date(given) {
        let wanted = &given.reservations()[reservation];
        for start in link_free..=wanted.due - wanted.size {
            kept.push(Load { reservation, start });
            if validate(given, model, &kept.clone().into()).is_ok() {
                link_free = start + wanted.size;
                break;
            }
            kept.pop();
        }
    }
    kept.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn they_follow_their_definitions(given in small::any(3)) {
        for model in MODELS {
            prop_assert_eq!(backward_edd(&given, model).unwrap(), plain_backward(&given, model));
            prop_assert_eq!(forward_edd(&given, model).unwrap(), plain_forward(&given, model));
        }
    }

    #[test]
    fn they_do_not_depend_on_the_unit(given in small::any(3), unit in 1u64..1_000_000_000) {
        let rows = given.reservations().iter().map(|r| (r.size * unit, r.due * unit, r.weight));
        let scaled = small::instance(given.capacity() * unit, &rows.collect::<Vec<_>>());
        for model in MODELS {
            for rule in [backward_edd, forward_edd, blind_edd] {
                let loads = rule(&given, model).unwrap().loads().to_vec();
                let loads = loads.into_iter().map(|load| Load { start: load.start * unit, ..load });
                prop_assert_eq!(rule(&scaled, model).unwrap(), loads.collect());
            }
        }
    }

    #[test]
    fn they_are_feasible_and_never_beat_the_best(given in small::any(5)) {
        for model in MODELS {
            let best = brute::heaviest(&given, model);
            for rule in [backward_edd, forward_edd, blind_edd] {
                let schedule = rule(&given, model).unwrap();
                prop_assert_eq!(validate(&given, model, &schedule), Ok(()));
                prop_assert!(schedule.weight(&given) <= best);
            }
        }
    }
}

#[test]
fn the_blind_rule_wastes_the_link_on_what_is_late() {
    // The second is late once the first is loaded; loading it in vain makes the third late, too.
    let given = small::instance(10, &[(5, 6, 1), (5, 7, 1), (5, 12, 1)]);
    let served = |schedule: Schedule| schedule.order().collect::<Vec<_>>();
    assert_eq!(
        served(forward_edd(&given, Model::Continuous).unwrap()),
        [0, 2]
    );
    assert_eq!(served(blind_edd(&given, Model::Continuous).unwrap()), [0]);
}
