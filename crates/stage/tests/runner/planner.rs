//! The planner against a world that keeps time, and against one that does not.

use std::collections::{BTreeMap, BTreeSet};

use mutual_stage::Model;
use mutual_stage::planner::{Admission, Cause, Planner, Reason, Request, RequestError, Site, Step};
use proptest::prelude::*;

/// What happens next in a test.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Offer(Request),
    Cancel(u64),
    Wait(u64),
    Fail,
    Rate(u64),
}

/// A stage and a link that do what the planner says, and hold it to the definition of the problem.
struct World {
    planner: Planner,
    site: Site,
    now: u64,
    /// Images on the stage in whole, with their bytes.
    staged: BTreeMap<u64, u64>,
    /// The load under way: image, bytes, bytes that have arrived.
    under_way: Option<(u64, u64, u64)>,
    sizes: BTreeMap<u64, u64>,
    /// Promised requests in force.
    promised: BTreeMap<u64, Request>,
    handed_over: BTreeSet<u64>,
    broken: Vec<(u64, Cause)>,
    has_changed: bool,
}

impl World {
    fn new(site: Site) -> Self {
        Self {
            planner: Planner::new(site, 0).unwrap(),
            site,
            now: 0,
            staged: BTreeMap::new(),
            under_way: None,
            sizes: BTreeMap::new(),
            promised: BTreeMap::new(),
            handed_over: BTreeSet::new(),
            broken: Vec::new(),
            has_changed: false,
        }
    }

    fn obey(&mut self, step: &Step) {
        for request in &step.handed_over {
            let wanted = self.planner.requests().any(|other| other.id == *request);
            assert!(!wanted, "what is handed over is no longer in force");
            if let Some(request) = self.promised.remove(request) {
                assert!(
                    self.staged.contains_key(&request.image),
                    "{request:?} at {}",
                    self.now
                );
                assert_eq!(request.due, self.now);
            }
            self.handed_over.insert(*request);
        }
        for image in &step.evicted {
            assert!(
                self.staged.remove(image).is_some(),
                "only what is there is deleted"
            );
        }
        for broken in &step.broken {
            assert_eq!(
                self.promised.remove(&broken.request).is_some(),
                broken.promise
            );
            self.broken.push((broken.request, broken.cause));
        }
        if let Some(image) = step.start {
            assert!(self.under_way.is_none(), "one load at a time");
            self.under_way = Some((image, self.sizes[&image], 0));
        }
        self.fits();
    }

    fn fits(&self) {
        let part = self
            .under_way
            .map_or(0, |(_, size, arrived)| match self.site.model {
                Model::Integral => size,
                Model::Continuous => arrived.min(size),
            });
        let whole: u64 = self.staged.values().sum();
        assert!(
            whole + part <= self.site.capacity,
            "the stage holds {whole} and {part}"
        );
    }

    fn tick(&mut self) {
        self.now += 1;
        let room = self.site.capacity - self.staged.values().sum::<u64>();
        if let Some((_, size, arrived)) = &mut self.under_way {
            *arrived += self.site.rate;
            // Once the rate has changed, the link may bring more than was planned: what finds no room waits.
            if self.has_changed {
                *arrived = room.min(*arrived).max(*arrived * u64::from(room >= *size));
            }
        }
        // Just before this moment, what leaves now is still there.
        self.fits();
        let step = match self.under_way {
            Some((image, size, arrived)) if arrived >= size => {
                self.under_way = None;
                self.staged.insert(image, size);
                self.planner.loaded(image, self.now)
            }
            _ => self.planner.advance(self.now),
        };
        self.obey(&step);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Offer(request) => {
                self.offer(request);
                let step = self.planner.advance(self.now);
                self.obey(&step);
            }
            Happening::Cancel(id) => {
                let is_known = self.planner.requests().any(|request| request.id == id);
                assert_eq!(self.planner.cancel(id).is_ok(), is_known);
                self.promised.remove(&id);
                let step = self.planner.advance(self.now);
                self.obey(&step);
            }
            Happening::Wait(ticks) => (0..ticks).for_each(|_| self.tick()),
            Happening::Fail => {
                if let Some((image, ..)) = self.under_way.take() {
                    let step = self.planner.load_failed(image, self.now);
                    self.obey(&step);
                }
            }
            Happening::Rate(rate) => {
                self.has_changed = true;
                self.site.rate = rate;
                let step = self.planner.bandwidth_changed(rate, self.now);
                self.obey(&step);
            }
        }
    }

    fn offer(&mut self, request: Request) {
        let size = *self.sizes.entry(request.image).or_insert(request.size);
        let request = Request {
            size,
            due: request.due + self.now,
            ..request
        };
        let before = self.planner.requests().copied().collect::<Vec<_>>();
        if before.iter().any(|other| other.id == request.id) {
            assert_eq!(
                self.planner.offer(request),
                Err(RequestError::Duplicate(request.id))
            );
            return;
        }
        match self.planner.offer(request).unwrap() {
            Admission::Accepted {
                start,
                ready,
                displaced,
            } => {
                assert!(start <= ready && ready <= request.due);
                let gone = before.iter().filter(|other| displaced.contains(&other.id));
                let gone: Vec<_> = gone.collect();
                assert!(gone.iter().all(|other| !other.promise));
                let lost: u64 = gone.iter().map(|other| other.weight).sum();
                assert!(gone.is_empty() || lost < request.weight);
                if request.promise {
                    self.promised.insert(request.id, request);
                }
            }
            Admission::Rejected {
                works_from, lacks, ..
            } => self.rejected(&request, works_from, lacks),
        }
    }

    /// Both ways out that a rejection names work.
    fn rejected(&self, request: &Request, works_from: Option<u64>, lacks: Option<u128>) {
        let accepts = |request: Request| {
            let admission = self.planner.clone().offer(request);
            matches!(admission, Ok(Admission::Accepted { .. }))
        };
        if let Some(due) = works_from {
            assert!(due > request.due && accepts(Request { due, ..*request }));
        }
        if let Some(lacks) = lacks {
            let weight = request.weight + u64::try_from(lacks).unwrap();
            assert!(accepts(Request { weight, ..*request }));
            assert!(!accepts(Request {
                weight: weight - 1,
                ..*request
            }));
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    (
        0u64..40,
        0u64..8,
        1u64..9,
        1u64..50,
        1u64..6,
        prop::bool::ANY,
    )
        .prop_map(|(id, image, size, due, weight, promise)| Request {
            id,
            image,
            size,
            due,
            weight,
            promise,
        })
}

fn site() -> impl Strategy<Value = Site> {
    let model = prop_oneof![Just(Model::Continuous), Just(Model::Integral)];
    (4u64..14, model, 1u64..4, 0u64..4).prop_map(|(capacity, model, rate, unload)| Site {
        capacity,
        model,
        rate,
        unload,
    })
}

fn kind_world() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        6 => request().prop_map(Happening::Offer),
        1 => (0u64..40).prop_map(Happening::Cancel),
        2 => (1u64..9).prop_map(Happening::Wait),
    ];
    prop::collection::vec(happening, 0..60)
}

fn rough_world() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        6 => request().prop_map(Happening::Offer),
        1 => (0u64..40).prop_map(Happening::Cancel),
        3 => (1u64..9).prop_map(Happening::Wait),
        1 => Just(Happening::Fail),
        1 => (0u64..4).prop_map(Happening::Rate),
    ];
    prop::collection::vec(happening, 0..60)
}

fn moved_by(shift: u64, admission: Admission) -> Admission {
    match admission {
        Admission::Accepted {
            start,
            ready,
            displaced,
        } => Admission::Accepted {
            start: start + shift,
            ready: ready + shift,
            displaced,
        },
        Admission::Rejected {
            reason,
            works_from,
            lacks,
        } => Admission::Rejected {
            reason,
            works_from: works_from.map(|due| due + shift),
            lacks,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn in_a_kind_world_every_promise_is_kept(site in site(), happenings in kind_world()) {
        let mut world = World::new(site);
        happenings.into_iter().for_each(|happening| world.happen(happening));
        world.happen(Happening::Wait(60));
        prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
        prop_assert!(world.promised.is_empty());
    }

    #[test]
    fn the_beginning_and_the_unit_do_not_matter(
        site in site(),
        requests in prop::collection::vec(request(), 0..30),
        shift in 0u64..1_000,
        unit in 1u64..1_000_000,
    ) {
        let other = Site {
            capacity: site.capacity * unit,
            rate: site.rate * unit,
            ..site
        };
        let mut one = Planner::new(site, 0).unwrap();
        let mut later = Planner::new(other, shift).unwrap();
        for request in requests {
            let moved = Request {
                size: request.size * unit,
                due: request.due + shift,
                ..request
            };
            let admission = one.offer(request).map(|admission| moved_by(shift, admission));
            let admission = admission.map_err(|error| match error {
                RequestError::Size { image, known, given } => RequestError::Size {
                    image,
                    known: known * unit,
                    given: given * unit,
                },
                error => error,
            });
            prop_assert_eq!(later.offer(moved), admission);
        }
    }

    #[test]
    fn in_a_rough_world_every_promise_is_kept_or_said_to_be_broken(site in site(), happenings in rough_world()) {
        let mut world = World::new(site);
        happenings.into_iter().for_each(|happening| world.happen(happening));
        world.happen(Happening::Wait(60));
        prop_assert!(world.promised.is_empty(), "{:?}", world.promised);
    }
}

const SITE: Site = Site {
    capacity: 10,
    model: Model::Integral,
    rate: 1,
    unload: 0,
};

fn wanted(id: u64, size: u64, due: u64, weight: u64, promise: bool) -> Request {
    Request {
        id,
        image: id,
        size,
        due,
        weight,
        promise,
    }
}

#[test]
fn a_promise_is_not_displaced_but_the_rest_is() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    planner.offer(wanted(1, 6, 6, 1, false)).unwrap();
    let heavier = planner.offer(wanted(2, 6, 7, 2, true)).unwrap();
    let expected = Admission::Accepted {
        start: 0,
        ready: 6,
        displaced: vec![1],
    };
    assert_eq!(heavier, expected);
    let rejected = planner.offer(wanted(3, 6, 8, 100, true)).unwrap();
    let expected = Admission::Rejected {
        reason: Reason::LinkBusy,
        works_from: Some(13),
        lacks: None,
    };
    assert_eq!(rejected, expected);
}

#[test]
fn a_rejection_says_what_weight_is_lacking() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    planner.offer(wanted(1, 6, 6, 5, false)).unwrap();
    let Admission::Rejected { lacks, .. } = planner.offer(wanted(2, 6, 7, 2, true)).unwrap() else {
        panic!("five is heavier than two");
    };
    assert_eq!(lacks, Some(4));
}

#[test]
fn a_failed_load_breaks_what_cannot_wait_and_says_why() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    planner.offer(wanted(1, 6, 7, 1, true)).unwrap();
    assert_eq!(planner.advance(0).start, Some(1));
    let step = planner.load_failed(1, 3);
    let causes: Vec<_> = step
        .broken
        .iter()
        .map(|broken| (broken.request, broken.cause))
        .collect();
    assert_eq!(causes, [(1, Cause::LoadFailed)]);
}

#[test]
fn sites_out_of_range_are_refused() {
    let refused = |site, now| Planner::new(site, now).unwrap_err().to_string();
    let site = |capacity, unload| Site {
        capacity,
        unload,
        ..SITE
    };
    assert!(refused(site(0, 0), 0).starts_with("capacity is 0"));
    assert!(refused(site(1, u64::MAX), 0).starts_with("unload is"));
    assert!(refused(SITE, u64::MAX).starts_with("now is"));
}

#[test]
fn the_impossible_is_rejected_and_says_why() {
    let mut planner = Planner::new(SITE, 5).unwrap();
    let mut why = |request| match planner.offer(request).unwrap() {
        Admission::Rejected {
            reason,
            works_from,
            lacks,
        } => (reason, works_from, lacks),
        accepted @ Admission::Accepted { .. } => panic!("{accepted:?}"),
    };
    let large = (Reason::LargerThanStage, None, None);
    assert_eq!(why(wanted(1, 11, 90, u64::MAX, true)), large);
    let soon = (Reason::DueTooSoon, Some(11), None);
    assert_eq!(why(wanted(1, 6, 10, u64::MAX, true)), soon);
    planner.bandwidth_changed(0, 5);
    let mut why = |request| planner.offer(request).unwrap();
    let down = Admission::Rejected {
        reason: Reason::DueTooSoon,
        works_from: None,
        lacks: None,
    };
    assert_eq!(why(wanted(1, 1, mutual_stage::LIMIT, 1, false)), down);
}

#[test]
fn requests_out_of_range_are_refused() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    let refused = |request| planner.clone().offer(request).unwrap_err().to_string();
    assert!(refused(wanted(1, 0, 7, 1, true)).starts_with("size is 0"));
    assert!(refused(wanted(1, 1, u64::MAX, 1, true)).starts_with("due is"));
    planner.offer(wanted(1, 6, 7, 1, true)).unwrap();
    let other = Request {
        id: 2,
        size: 5,
        ..wanted(1, 5, 9, 1, true)
    };
    assert_eq!(
        planner.offer(other),
        Err(RequestError::Size {
            image: 1,
            known: 6,
            given: 5
        })
    );
    assert_eq!(planner.cancel(9), Err(RequestError::Unknown(9)));
}

#[test]
fn a_faster_link_breaks_nothing() {
    let site = Site {
        model: Model::Continuous,
        ..SITE
    };
    let mut planner = Planner::new(site, 0).unwrap();
    planner.offer(wanted(1, 6, 10, 1, true)).unwrap();
    planner.advance(0);
    planner.loaded(1, 6);
    planner.offer(wanted(2, 8, 20, 1, true)).unwrap();
    planner.offer(wanted(3, 5, 30, 1, true)).unwrap();
    assert_eq!(planner.advance(6).start, Some(2));
    // Beside the first image there is room for four bytes until 10: from then on, the other four take two.
    let step = planner.bandwidth_changed(2, 7);
    assert_eq!(step.broken, []);
    assert_eq!(planner.load_ends(), Some(12));
}

#[test]
fn a_promise_that_the_load_under_way_cannot_keep_is_broken_at_once() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    planner.offer(wanted(1, 6, 7, 1, true)).unwrap();
    planner.advance(0);
    let step = planner.bandwidth_changed(0, 2);
    let causes: Vec<_> = step
        .broken
        .iter()
        .map(|broken| (broken.request, broken.cause))
        .collect();
    assert_eq!(causes, [(1, Cause::LinkChanged)]);
}

#[test]
fn a_promise_is_kept_before_a_heavier_request_without_one() {
    let mut planner = Planner::new(SITE, 0).unwrap();
    planner.offer(wanted(1, 5, 12, 100, false)).unwrap();
    planner.offer(wanted(2, 5, 12, 1, true)).unwrap();
    assert_eq!(planner.advance(0).start, Some(1));
    let step = planner.load_failed(1, 4);
    let broken: Vec<_> = step.broken.iter().map(|broken| broken.request).collect();
    assert_eq!((broken, step.start), (vec![1], Some(2)));
}
