//! What the planner promises, whatever happens in whatever order.

use std::collections::BTreeMap;

use mutual_stage::planner::{Admission, Cause, ImageId, Planner, Request, RequestId, Site, Step};
use mutual_stage::{LIMIT, Model};
use proptest::prelude::*;

/// A call of the planner. Moments are told apart from the last one, and may lie before it.
#[derive(Debug, Clone, Copy)]
enum Call {
    Offer(Request),
    Cancel(RequestId),
    Advance(i64),
    /// The load under way has ended, or that of any image.
    Loaded(Option<ImageId>, i64),
    Failed(Option<ImageId>, i64),
    Rate(u64, i64),
}

/// A planner, and what was last heard of it.
struct Watched {
    planner: Planner,
    now: u64,
}

impl Watched {
    fn new(site: Site) -> Self {
        let planner = Planner::new(site, 0).unwrap();
        Self { planner, now: 0 }
    }

    fn in_force(&self) -> BTreeMap<RequestId, Request> {
        let requests = self.planner.requests();
        requests.map(|request| (request.id, *request)).collect()
    }

    fn moment(&self, later: i64) -> u64 {
        self.now.saturating_add_signed(later)
    }

    fn call(&mut self, call: Call) {
        let running = self.planner.loading();
        match call {
            Call::Offer(request) => self.offer(request),
            Call::Cancel(id) => self.cancel(id),
            Call::Advance(later) => {
                let now = self.moment(later);
                self.step(now, &[Cause::LoadLate], |planner, now| planner.advance(now));
            }
            Call::Loaded(image, later) => {
                let (image, now) = (image.or(running).unwrap_or(0), self.moment(later));
                self.step(now, &[Cause::LoadLate], |planner, now| {
                    planner.loaded(image, now)
                });
            }
            Call::Failed(image, later) => {
                let (image, now) = (image.or(running).unwrap_or(0), self.moment(later));
                let causes = [Cause::LoadFailed];
                self.step(now, &causes, |planner, now| planner.load_failed(image, now));
            }
            Call::Rate(rate, later) => {
                let now = self.moment(later);
                let causes = [Cause::LoadLate, Cause::LinkChanged];
                self.step(now, &causes, |planner, now| {
                    planner.bandwidth_changed(rate, now)
                });
            }
        }
    }

    /// Whoever is no longer in force has been displaced, has no promise, and was not as heavy.
    fn offer(&mut self, request: Request) {
        let mut before = self.in_force();
        match self.planner.offer(request) {
            Ok(Admission::Accepted { displaced, .. }) => {
                let gone: Vec<_> = displaced
                    .iter()
                    .map(|id| before.remove(id).unwrap())
                    .collect();
                assert!(gone.iter().all(|gone| !gone.promise));
                let weight: u128 = gone.iter().map(|gone| u128::from(gone.weight)).sum();
                assert!(gone.is_empty() || weight < u128::from(request.weight));
                assert_eq!(before.insert(request.id, request), None);
            }
            Ok(Admission::Rejected {
                works_from, lacks, ..
            }) => {
                self.works(request, works_from, lacks);
            }
            Err(_) => {}
        }
        assert_eq!(self.in_force(), before);
    }

    /// Both ways out that a rejection names work.
    fn works(&self, request: Request, works_from: Option<u64>, lacks: Option<u128>) {
        let displaced = |request: Request| match self.planner.clone().offer(request) {
            Ok(Admission::Accepted { displaced, .. }) => Some(displaced),
            _ => None,
        };
        if let Some(due) = works_from {
            assert!(due > request.due);
            assert_eq!(displaced(Request { due, ..request }), Some(Vec::new()));
        }
        if let Some(lacks) = lacks {
            let weight = u64::try_from(u128::from(request.weight) + lacks).unwrap();
            assert!(displaced(Request { weight, ..request }).is_some());
            let weight = weight - 1;
            assert!(displaced(Request { weight, ..request }).is_none());
        }
    }

    fn cancel(&mut self, id: RequestId) {
        let mut before = self.in_force();
        assert_eq!(
            self.planner.cancel(id).is_ok(),
            before.remove(&id).is_some()
        );
        assert_eq!(self.in_force(), before);
    }

    /// Whoever is no longer in force was handed over when due, or is said to be broken, and why; and all others can still be served.
    fn step(&mut self, now: u64, causes: &[Cause], act: impl Fn(&mut Planner, u64) -> Step) {
        let mut before = self.in_force();
        let step = act(&mut self.planner, now);
        self.now = self.now.max(now.min(LIMIT));
        for id in &step.handed_over {
            assert!(before.remove(id).unwrap().due <= self.now);
        }
        let mut lost = Vec::new();
        for broken in &step.broken {
            let request = before.remove(&broken.request).unwrap();
            assert_eq!(request.promise, broken.promise);
            assert!(causes.contains(&broken.cause), "{broken:?}");
            lost.extend(Some(request).filter(|request| request.promise));
        }
        assert_eq!(self.in_force(), before);
        assert!(
            step.next.is_none_or(|next| next > self.now),
            "{step:?} at {}",
            self.now
        );
        self.others_do_not_explain(&lost);
        self.all_others_are_served();
    }

    /// A promise is not broken for the sake of a request without one.
    fn others_do_not_explain(&self, lost: &[Request]) {
        let mut alone = self.planner.clone();
        let others = self.planner.requests().filter(|request| !request.promise);
        others.for_each(|other| alone.cancel(other.id).unwrap());
        for request in lost {
            let fits = matches!(
                alone.clone().offer(*request),
                Ok(Admission::Accepted { .. })
            );
            assert!(!fits, "{request:?}");
        }
    }

    /// From now on the world does as planned: then everybody is served.
    fn all_others_are_served(&self) {
        let mut planner = self.planner.clone();
        let mut running = planner.loading();
        let mut next = planner.advance(self.now).next;
        let mut rounds = 0;
        while let Some(now) = next {
            rounds += 1;
            assert!(rounds < 1_000, "time goes on");
            let ends = running.filter(|_| planner.load_ends() == Some(now));
            let step = match ends {
                Some(image) => planner.loaded(image, now),
                None => planner.advance(now),
            };
            assert!(step.broken.is_empty(), "{step:?} at {now}");
            running = planner.loading();
            next = step.next;
        }
        assert_eq!(planner.requests().count(), 0);
    }
}

/// Small numbers, so that requests meet each other.
fn small_calls() -> impl Strategy<Value = (Site, Vec<Call>)> {
    let due = 0u64..60;
    let request = (0u64..40, 0u64..12, 1u64..9, due, 0u64..9, prop::bool::ANY);
    let request = request.prop_map(|(id, image, size, due, weight, promise)| Request {
        id,
        image,
        size,
        due,
        weight,
        promise,
    });
    let call = prop_oneof![
        10 => request.prop_map(Call::Offer),
        1 => (0u64..40).prop_map(Call::Cancel),
        2 => (-2i64..6).prop_map(Call::Advance),
        2 => (prop::option::weighted(0.1, 0u64..12), -2i64..6).prop_map(|(image, later)| Call::Loaded(image, later)),
        1 => (prop::option::weighted(0.1, 0u64..12), -2i64..6).prop_map(|(image, later)| Call::Failed(image, later)),
        1 => (0u64..4, -2i64..6).prop_map(|(rate, later)| Call::Rate(rate, later)),
    ];
    (site(4u64..16, 0u64..4), prop::collection::vec(call, 0..50))
}

fn site(
    capacity: impl Strategy<Value = u64>,
    unload: impl Strategy<Value = u64>,
) -> impl Strategy<Value = Site> {
    let model = prop_oneof![Just(Model::Continuous), Just(Model::Integral)];
    (capacity, model, 0u64..4, unload).prop_map(|(capacity, model, rate, unload)| Site {
        capacity,
        model,
        rate,
        unload,
    })
}

/// Numbers at and beyond their limits, and some in between.
fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..3,
        LIMIT - 2..=LIMIT,
        LIMIT / 2 - 1..LIMIT / 2 + 2,
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn hostile_calls() -> impl Strategy<Value = (Site, Vec<Call>)> {
    let number = any_number;
    let request = (
        0u64..6,
        0u64..4,
        number(),
        number(),
        number(),
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
    let later =
        prop_oneof![4 => -3i64..5, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let later = later.boxed();
    let image = prop::option::of(0u64..4);
    let call = prop_oneof![
        8 => request.prop_map(Call::Offer),
        1 => (0u64..6).prop_map(Call::Cancel),
        1 => later.clone().prop_map(Call::Advance),
        1 => (image.clone(), later.clone()).prop_map(|(image, later)| Call::Loaded(image, later)),
        1 => (image, later.clone()).prop_map(|(image, later)| Call::Failed(image, later)),
        1 => (number(), later).prop_map(|(rate, later)| Call::Rate(rate, later)),
    ];
    let capacity = any_number().prop_map(|capacity| capacity.clamp(1, LIMIT));
    let unload = any_number().prop_map(|unload| unload.min(LIMIT));
    (site(capacity, unload), prop::collection::vec(call, 0..40))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn promises_hold_in_any_order_of_calls((site, calls) in small_calls()) {
        let mut watched = Watched::new(site);
        calls.into_iter().for_each(|call| watched.call(call));
    }

    #[test]
    fn no_numbers_and_no_order_of_calls_are_too_strange((site, calls) in hostile_calls()) {
        let mut watched = Watched::new(site);
        calls.into_iter().for_each(|call| watched.call(call));
    }
}
