//! The facts that the algorithms stand on, each against brute force.

use mutual_stage::{Instance, Model, Schedule, right_tight, tighten, validate};
use proptest::prelude::*;

use crate::{brute, small};

const MODELS: [Model; 2] = [Model::Continuous, Model::Integral];

/// Every right-tight schedule in due-date order whose loads fit onto the link.
fn by_due_date(instance: &Instance) -> impl Iterator<Item = Schedule> {
    let reservations = instance.reservations();
    let mut order: Vec<_> = (0..reservations.len()).collect();
    order.sort_by_key(|index| (reservations[*index].due, *index));
    (0..1u32 << order.len()).filter_map(move |set| {
        let chosen = order
            .iter()
            .enumerate()
            .filter(|(bit, _)| set & (1 << bit) != 0);
        let chosen: Vec<_> = chosen.map(|(_, index)| *index).collect();
        right_tight(instance, &chosen).ok()
    })
}

fn floors_hold(instance: &Instance, schedule: &Schedule) -> bool {
    schedule.loads().iter().all(|load| {
        let due = instance.reservations()[load.reservation].due;
        load.start >= due.saturating_sub(instance.capacity())
    })
}

fn bucket_holds(instance: &Instance, schedule: &Schedule) -> bool {
    let (mut tokens, mut now) = (0, 0);
    schedule.order().all(|index| {
        let reservation = &instance.reservations()[index];
        tokens = instance.capacity().min(tokens + reservation.due - now);
        now = reservation.due;
        let enough = tokens >= reservation.size;
        tokens = tokens.saturating_sub(reservation.size);
        enough
    })
}

/// From each start to the end of the load under way just before the due date, else to the due date, at most a stageful.
fn spans_hold(instance: &Instance, schedule: &Schedule) -> bool {
    schedule.loads().iter().all(|load| {
        let due = instance.reservations()[load.reservation].due;
        let before = schedule.loads().iter().filter(|other| other.start < due);
        let ends =
            before.map(|other| other.start + instance.reservations()[other.reservation].size);
        ends.max().unwrap_or(0).max(due) - load.start <= instance.capacity()
    })
}

/// No load starts before a moment at which a staged image leaves, or its own due date, less the room just before it.
fn floors_beside_staged_hold(instance: &Instance, schedule: &Schedule) -> bool {
    let room_before = |moment: u64| {
        let there = instance.staged().iter().filter(|image| image.due >= moment);
        instance.capacity() - there.map(|image| image.size).sum::<u64>()
    };
    schedule.loads().iter().all(|load| {
        let due = instance.reservations()[load.reservation].due;
        let leaving = instance.staged().iter().map(|image| image.due);
        let mut moments = leaving.filter(|moment| *moment <= due).chain([due]);
        moments.all(|moment| load.start >= moment.saturating_sub(room_before(moment)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn staged_images_only_raise_the_earliest_starts(given in small::beside_staged(1)) {
        for schedule in by_due_date(&given) {
            let fits = validate(&given, Model::Continuous, &schedule).is_ok();
            prop_assert_eq!(fits, floors_beside_staged_hold(&given, &schedule));
        }
    }

    #[test]
    fn latest_starts_are_as_good_as_any(given in small::any_load_times()) {
        for order in brute::orders(given.reservations().len()) {
            for model in MODELS {
                let tight = right_tight(&given, &order);
                let tight_fits = tight.is_ok_and(|tight| validate(&given, model, &tight).is_ok());
                prop_assert_eq!(tight_fits, brute::some_starts_fit(&given, model, &order));
            }
        }
    }

    #[test]
    fn due_date_order_loses_nothing_when_images_arrive_bit_by_bit(given in small::any(5)) {
        let by_due_date = brute::heaviest_by_due_date(&given, Model::Continuous);
        prop_assert_eq!(by_due_date, brute::heaviest(&given, Model::Continuous));
    }

    #[test]
    fn continuous_feasibility_is_local_and_a_token_bucket(given in small::any(1)) {
        let mut order: Vec<_> = (0..given.reservations().len()).collect();
        order.sort_by_key(|index| (given.reservations()[*index].due, *index));
        for set in 0..1u32 << order.len() {
            let chosen: Vec<_> = (0..order.len()).filter(|bit| set & (1 << bit) != 0).map(|bit| order[bit]).collect();
            let tight = right_tight(&given, &chosen).ok();
            let fits = tight.as_ref().is_some_and(|tight| validate(&given, Model::Continuous, tight).is_ok());
            let local = tight.as_ref().is_some_and(|tight| floors_hold(&given, tight));
            prop_assert_eq!(fits, local);
            let unplaced: Schedule = chosen
                .iter()
                .zip(0..)
                .map(|(index, start)| mutual_stage::Load { reservation: *index, start })
                .collect();
            prop_assert_eq!(fits, bucket_holds(&given, &unplaced));
        }
    }

    #[test]
    fn integral_feasibility_is_local(given in small::any(1)) {
        for schedule in by_due_date(&given) {
            let fits = validate(&given, Model::Integral, &schedule).is_ok();
            prop_assert_eq!(fits, spans_hold(&given, &schedule));
        }
    }

    #[test]
    fn tightening_keeps_order_and_feasibility(given in small::any(3)) {
        for model in MODELS {
            let early = mutual_stage::baseline::forward_edd(&given, model).unwrap();
            let tight = tighten(&given, &early).unwrap();
            prop_assert!(tight.order().eq(early.order()));
            prop_assert_eq!(validate(&given, model, &tight), Ok(()));
        }
    }
}

#[track_caller]
fn loses_by_due_date(given: &Instance, model: Model, better: &[usize]) {
    let schedule = right_tight(given, better).expect("the link is fast enough");
    assert_eq!(validate(given, model, &schedule), Ok(()));
    assert_eq!(brute::heaviest(given, model), schedule.weight(given));
    assert!(brute::heaviest_by_due_date(given, model) < schedule.weight(given));
}

#[test]
fn due_date_order_loses_when_room_is_reserved_up_front() {
    let given = small::instance(7, &[(1, 9, 1), (1, 10, 1), (6, 11, 1)]);
    loses_by_due_date(&given, Model::Integral, &[0, 2, 1]);
}

#[test]
fn due_date_order_loses_when_load_times_differ_from_sizes() {
    let rows = [(3, 12, 1, 1), (4, 13, 1, 6), (5, 8, 1, 1)];
    let given = small::with_load_times(7, &rows);
    let by_due_date = brute::heaviest_by_due_date(&given, Model::Continuous);
    assert!(by_due_date < brute::heaviest(&given, Model::Continuous));
}
