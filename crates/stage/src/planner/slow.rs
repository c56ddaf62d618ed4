//! The planner's answers, the slow way: each question times the whole order again. What is answered quickly must be the same, or better.

use proptest::prelude::*;

use super::admit::OTHER_PLACES;
use super::{Admission, Planner, Reason, Request, RequestId, Site, loading};
use crate::timeline::{Obstacle, Work};
use crate::{LIMIT, Model};

/// What the first of two taken back may find: so many were tried once.
const SPARED: usize = 2;

/// Why a request does not fit beside all in force, if it does not; tried at so many other places on either side.
fn obstacle(planner: &Planner, request: &Request, others: usize) -> Option<Reason> {
    if request.size > planner.site.capacity {
        return Some(Reason::LargerThanStage);
    }
    if planner
        .images
        .get(&request.image)
        .is_some_and(|image| image.is_here)
    {
        return obstacle_to_stay(planner, request);
    }
    let loading = loading(request.size, planner.site.rate);
    if planner.free_from().saturating_add(loading) > request.due {
        return Some(Reason::DueTooSoon);
    }
    let (works, own) = order(planner, request, loading);
    let home = works.iter().position(|other| other.deadline > own.deadline);
    let home = home.unwrap_or(works.len());
    let first = try_at(planner, &works, own, home).err()?;
    let beside = (1..=others).flat_map(|far| [home.checked_sub(far), Some(home + far)]);
    let mut beside = beside.flatten().filter(|place| *place <= works.len());
    let fits = beside.any(|place| try_at(planner, &works, own, place).is_ok());
    (!fits).then_some(first.into())
}

fn obstacle_to_stay(planner: &Planner, request: &Request) -> Option<Reason> {
    let running = planner
        .running
        .filter(|running| running.image == request.image);
    if request.due < running.map_or(planner.now, |running| running.ends) {
        return Some(Reason::DueTooSoon);
    }
    let mut longer = planner.clone();
    longer.insert(*request);
    longer.foresee_end();
    let ends = |planner: &Planner| planner.running.map(|running| running.ends);
    if ends(&longer) > ends(planner) {
        return Some(Reason::StageFull);
    }
    let timed = longer
        .timeline(&longer.held(None))
        .earliest(&longer.works());
    timed.err().map(Reason::from)
}

/// The loads of all other images, and the request's own, perhaps for others too.
fn order(planner: &Planner, request: &Request, loading: u64) -> (Vec<Work>, Work) {
    let others = planner
        .ahead
        .iter()
        .filter(|ahead| ahead.image != request.image);
    let works = others.map(|ahead| ahead.work).collect();
    let shared = planner
        .ahead
        .iter()
        .find(|ahead| ahead.image == request.image);
    let leaves = request.due + planner.site.unload;
    let own = Work {
        size: request.size,
        loading,
        deadline: shared.map_or(request.due, |shared| shared.work.deadline.min(request.due)),
        leaves: shared.map_or(leaves, |shared| shared.work.leaves.max(leaves)),
    };
    (works, own)
}

fn try_at(planner: &Planner, works: &[Work], own: Work, place: usize) -> Result<(), Obstacle> {
    let mut works = works.to_vec();
    works.insert(place, own);
    planner
        .timeline(&planner.held(None))
        .earliest(&works)
        .map(|_| ())
}

/// Those who go: the fewest of the lightest, but for those of the heaviest two that need not.
fn displaced(planner: &Planner, request: &Request) -> Option<Vec<Request>> {
    let mut weak: Vec<_> = planner
        .requests
        .values()
        .filter(|other| !other.promise)
        .copied()
        .collect();
    weak.sort_by_key(|other| (other.weight, other.id));
    let fits = |gone: &[Request]| obstacle(&without(planner, gone), request, 0).is_none();
    if weak.is_empty() || !fits(&weak) {
        return None;
    }
    let (mut few, mut enough) = (0, weak.len());
    while few + 1 < enough {
        let middle = usize::midpoint(few, enough);
        match fits(&weak[..middle]) {
            true => enough = middle,
            false => few = middle,
        }
    }
    let mut gone = weak[..enough].to_vec();
    for place in (enough.saturating_sub(SPARED)..enough).rev() {
        let mut fewer = gone.clone();
        fewer.remove(place);
        if fits(&fewer) {
            gone = fewer;
        }
    }
    Some(gone)
}

fn without(planner: &Planner, gone: &[Request]) -> Planner {
    let mut planner = planner.clone();
    for request in gone {
        planner.remove(request.id);
    }
    planner
}

fn weight(planner: &Planner, ids: &[RequestId]) -> u128 {
    let requests = ids.iter().map(|id| u128::from(planner.requests[id].weight));
    requests.sum()
}

/// The first later due date up to a last one with which a request fits beside all in force.
fn works_from(planner: &Planner, request: &Request, last: u64) -> Option<u64> {
    let dates = (request.due + 1)..=last;
    dates.into_iter().find(|due| {
        let later = Request {
            due: *due,
            ..*request
        };
        obstacle(planner, &later, OTHER_PLACES).is_none()
    })
}

/// Dates are looked for up to here: beyond, nothing is planned.
const HORIZON: u64 = 120;

fn assert_as_good(planner: &Planner, request: Request) {
    let slow = obstacle(planner, &request, OTHER_PLACES);
    let mut quick = planner.clone();
    match (slow, quick.offer(request).unwrap()) {
        (None, Admission::Accepted { displaced, .. }) => assert!(displaced.is_empty()),
        (
            Some(_),
            Admission::Accepted {
                displaced: gone, ..
            },
        ) => {
            let slow = displaced(planner, &request).expect("all who went are enough");
            let slow: Vec<_> = slow.iter().map(|one| one.id).collect();
            assert!(
                weight(planner, &gone) <= weight(planner, &slow),
                "{gone:?} {slow:?}"
            );
            assert!(weight(planner, &gone) < u128::from(request.weight));
        }
        (
            Some(why),
            Admission::Rejected {
                reason,
                works_from: date,
                lacks,
            },
        ) => {
            assert_eq!(reason, why);
            assert_eq!(
                date.filter(|date| *date <= HORIZON),
                works_from(planner, &request, HORIZON)
            );
            let slow = displaced(planner, &request).filter(|_| why != Reason::LargerThanStage);
            let slow = slow.map(|gone| gone.iter().map(|one| u128::from(one.weight)).sum::<u128>());
            let quick = lacks.map(|lacks| lacks + u128::from(request.weight) - 1);
            assert_eq!(quick.is_some(), slow.is_some());
            assert!(quick <= slow, "{quick:?} {slow:?}");
        }
        (None, rejected @ Admission::Rejected { .. }) => panic!("{rejected:?}"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Offer(Request),
    Cancel(RequestId),
    Wait(u64),
    Ended,
    Failed,
    Rate(u64),
}

fn happen(planner: &mut Planner, happening: Happening) {
    match happening {
        Happening::Offer(request) => offer(planner, request),
        Happening::Cancel(id) => drop(planner.cancel(id)),
        Happening::Wait(time) => drop(planner.advance(planner.now + time)),
        Happening::Ended => {
            let image = planner.running.map_or(0, |running| running.image);
            let ends = planner.running.map_or(0, |running| running.ends);
            planner.loaded(image, if ends < LIMIT { ends } else { planner.now });
        }
        Happening::Failed => {
            let image = planner.running.map_or(0, |running| running.image);
            planner.load_failed(image, planner.now);
        }
        Happening::Rate(rate) => drop(planner.bandwidth_changed(rate, planner.now)),
    }
}

fn offer(planner: &mut Planner, request: Request) {
    let known = planner.images.get(&request.image).map(|image| image.size);
    let request = Request {
        size: known.unwrap_or(request.size),
        due: request.due + planner.now,
        ..request
    };
    if !planner.requests.contains_key(&request.id) {
        assert_as_good(planner, request);
    }
    let _ = planner.offer(request);
}

fn happening() -> impl Strategy<Value = Happening> {
    let request = (
        0u64..40,
        0u64..12,
        1u64..9,
        1u64..40,
        1u64..9,
        prop::bool::ANY,
    );
    let request = request.prop_map(|(id, image, size, due, weight, promise)| Request {
        id,
        image,
        size,
        due,
        weight,
        promise,
    });
    prop_oneof![
        12 => request.prop_map(Happening::Offer),
        1 => (0u64..40).prop_map(Happening::Cancel),
        2 => (0u64..7).prop_map(Happening::Wait),
        2 => Just(Happening::Ended),
        1 => Just(Happening::Failed),
        1 => (0u64..4).prop_map(Happening::Rate),
    ]
}

fn site() -> impl Strategy<Value = Site> {
    let model = prop_oneof![Just(Model::Continuous), Just(Model::Integral)];
    (4u64..16, model, 1u64..4, 0u64..4).prop_map(|(capacity, model, rate, unload)| Site {
        capacity,
        model,
        rate,
        unload,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn quick_answers_are_as_good_as_slow_ones(
        site in site(),
        happenings in prop::collection::vec(happening(), 0..40),
    ) {
        let mut planner = Planner::new(site, 0).unwrap();
        for happening in happenings {
            happen(&mut planner, happening);
            prop_assert!(planner.retime().is_ok());
        }
    }
}
