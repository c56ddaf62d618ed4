//! What is given up when the plan no longer holds, and what is taken back.
//!
//! The order is timed up to the first load that cannot be placed. Somebody has to go whose going helps there: one of the loads that follow each
//! other without a pause up to it, or, where the first of these waits for room, one of the images on the stage by then. Requests without a promise
//! go first, then the lightest; and it goes on from the load that is gone. In the end everything that still fits is taken back, promises first.

use std::cmp::Reverse;

use super::rivals::Rivals;
use super::{ImageId, Planner, Request, RequestId};
use crate::timeline::{Obstacle, Pass};

/// Who is given up before others: the least. All requests for an image together.
type Value = (bool, u128, Reverse<u64>);

/// Somebody who can be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// A request; the image is still loaded for others.
    First(usize),
    /// All requests for the load at a place.
    Ahead(usize),
    /// All requests for an image that is here.
    Here(ImageId),
}

impl Planner {
    /// Gives up requests until the plan holds again, takes those back that still fit, and tells the others.
    pub(super) fn mend(&mut self) -> Vec<Request> {
        if self.retime().is_ok() {
            return Vec::new();
        }
        let given_up = Mending::of(self).until_it_holds();
        let timed = self.retime();
        debug_assert!(timed.is_ok(), "enough has been given up");
        self.take_back(given_up)
    }

    /// Those that do not fit. One with a promise may displace others without.
    pub(super) fn take_back(&mut self, mut given_up: Vec<Request>) -> Vec<Request> {
        if given_up.is_empty() {
            return given_up;
        }
        given_up.sort_by_key(|request| (!request.promise, Reverse(request.weight), request.id));
        let with_promise = given_up.partition_point(|request| request.promise);
        let mut without = given_up.split_off(with_promise);
        let promised = self.take_back_beside_all(&given_up);
        let (mut gone, displaced) = self.take_back_in_place_of_others(&promised);
        without.extend(displaced);
        without.sort_by_key(|request| (Reverse(request.weight), request.id));
        gone.extend(self.take_back_beside_all(&without));
        gone
    }

    /// Takes back in turn what fits beside all in force, and tells what does not.
    fn take_back_beside_all(&mut self, given_up: &[Request]) -> Vec<Request> {
        let (mut gone, mut rest) = (Vec::new(), given_up);
        while let Some((place, way)) = self.first_way(rest) {
            gone.extend(&rest[..place]);
            self.accept(rest[place], &way, Vec::new());
            rest = &rest[place + 1..];
        }
        gone.extend(rest);
        gone
    }

    /// Takes back in turn what fits if others without a promise go, and tells what does not, and the others.
    fn take_back_in_place_of_others(
        &mut self,
        given_up: &[Request],
    ) -> (Vec<Request>, Vec<Request>) {
        let (mut gone, mut displaced, mut rest) = (Vec::new(), Vec::new(), given_up);
        while let Some((place, others)) = self.first_in_the_way(rest) {
            gone.extend(&rest[..place]);
            self.make_room(rest[place], &others);
            displaced.extend(others);
            rest = &rest[place + 1..];
        }
        gone.extend(rest);
        (gone, displaced)
    }

    fn first_in_the_way(&self, requests: &[Request]) -> Option<(usize, Vec<Request>)> {
        if requests.is_empty() {
            return None;
        }
        let mut rivals = Rivals::of(self);
        let others = requests.iter().map(|request| rivals.in_the_way(request));
        others
            .enumerate()
            .find_map(|(place, others)| Some((place, others?)))
    }
}

/// The order while requests are given up.
struct Mending<'a> {
    planner: &'a mut Planner,
    pass: Pass,
    /// The image of each load.
    images: Vec<ImageId>,
    /// What all requests for each load are worth, and what the first is.
    values: Vec<Value>,
    firsts: Vec<Value>,
    given_up: Vec<Request>,
}

impl<'a> Mending<'a> {
    fn of(planner: &'a mut Planner) -> Self {
        let images: Vec<_> = planner.ahead.iter().map(|ahead| ahead.image).collect();
        let held = planner.held(None);
        let pass = Pass::new(&planner.timeline(&held), planner.works());
        let values = images.iter().map(|image| value(planner, *image)).collect();
        let firsts = images.iter().map(|image| first_value(planner, *image));
        Self {
            firsts: firsts.collect(),
            values,
            pass,
            images,
            given_up: Vec::new(),
            planner,
        }
    }

    fn until_it_holds(mut self) -> Vec<Request> {
        let mut held = self.planner.held(None);
        loop {
            let timeline = self.planner.timeline(&held);
            let Err(obstacle) = self.pass.run(&timeline) else {
                return self.given_up;
            };
            let victim = self.victim(obstacle);
            self.give_up(victim);
            if let Victim::Here(_) = victim {
                held = self.planner.held(None);
                self.pass.restart(&self.planner.timeline(&held));
            }
        }
    }

    fn give_up(&mut self, victim: Victim) {
        match victim {
            Victim::First(place) => {
                let first = requests(self.planner, self.images[place]).next();
                self.remove(first.into_iter().collect());
                self.renew(place);
            }
            Victim::Ahead(place) => {
                self.remove(requests(self.planner, self.images[place]).collect());
                self.renew(place);
            }
            Victim::Here(image) => self.remove(requests(self.planner, image).collect()),
        }
    }

    fn remove(&mut self, requests: Vec<RequestId>) {
        let removed = requests
            .into_iter()
            .filter_map(|id| self.planner.remove(id));
        self.given_up.extend(removed);
    }

    fn renew(&mut self, place: usize) {
        let image = self.images[place];
        let planned = self.planner.place_of(image);
        let work = planned.map(|planned| self.planner.ahead[planned].work);
        self.pass.change(place, work);
        self.values[place] = value(self.planner, image);
        self.firsts[place] = first_value(self.planner, image);
    }

    /// Whoever cannot be served at all; else the least of those whose going helps.
    fn victim(&self, obstacle: Obstacle) -> Victim {
        let place = obstacle.place();
        let work = &self.pass.works()[place];
        let alone = self.planner.free_from().saturating_add(work.loading);
        if alone > work.deadline || work.size > self.planner.site.capacity {
            return Victim::First(place);
        }
        let first = self.first_in_a_row(obstacle);
        let in_the_row = (first..place).map(|place| (self.values[place], Victim::Ahead(place)));
        let row = in_the_row.filter(|(_, victim)| self.is_planned(*victim));
        let own = (self.firsts[place], Victim::First(place));
        let staged = self.staged(first, obstacle);
        let all = row.chain([own]).chain(staged);
        all.min().map_or(Victim::First(place), |(_, victim)| victim)
    }

    fn is_planned(&self, victim: Victim) -> bool {
        match victim {
            Victim::First(place) | Victim::Ahead(place) => self.pass.works()[place].size > 0,
            Victim::Here(_) => true,
        }
    }

    /// The first of the loads that follow each other without a pause up to the one that cannot be placed.
    fn first_in_a_row(&self, obstacle: Obstacle) -> usize {
        let mut first = obstacle.place();
        let mut waits = matches!(obstacle, Obstacle::Full(_));
        while first > 0 && !waits {
            first -= 1;
            waits = self.waits(first);
        }
        first
    }

    fn waits(&self, place: usize) -> bool {
        let start = self.pass.start(place);
        start.is_some_and(|start| start > self.link_free(place))
    }

    fn link_free(&self, place: usize) -> u64 {
        self.pass.free_from(place, self.planner.free_from())
    }

    /// Images on the stage that a load at a place waits for.
    fn staged(&self, place: usize, obstacle: Obstacle) -> Vec<(Value, Victim)> {
        if place != obstacle.place() && !self.waits(place) {
            return Vec::new();
        }
        let link_free = self.link_free(place);
        let before = (0..place).filter(|before| self.pass.works()[*before].leaves > link_free);
        let before = before.map(|before| (self.values[before], Victim::Ahead(before)));
        let planned = before.filter(|(_, victim)| self.is_planned(*victim));
        let here = self.planner.images.iter().filter(|(_, image)| {
            let stays = image.is_here && self.planner.leaves(image) > link_free;
            stays && !image.needed.is_empty()
        });
        let here = here.map(|(id, _)| (value(self.planner, *id), Victim::Here(*id)));
        planned.chain(here).collect()
    }
}

fn requests(planner: &Planner, image: ImageId) -> impl Iterator<Item = RequestId> {
    let needed = planner.images.get(&image).map(|image| &image.needed);
    needed.into_iter().flatten().map(|(_, id)| *id)
}

/// What all requests for an image are worth.
fn value(planner: &Planner, image: ImageId) -> Value {
    let requests = requests(planner, image).filter_map(|id| planner.requests.get(&id));
    let size = planner.images.get(&image).map_or(0, |image| image.size);
    requests.fold(
        (false, 0, Reverse(size)),
        |(promise, weight, size), request| {
            (
                promise | request.promise,
                weight + u128::from(request.weight),
                size,
            )
        },
    )
}

/// What the first request for an image is worth.
fn first_value(planner: &Planner, image: ImageId) -> Value {
    let first = requests(planner, image).next();
    let first = first.and_then(|id| planner.requests.get(&id));
    first.map_or((false, 0, Reverse(0)), |request| {
        (
            request.promise,
            u128::from(request.weight),
            Reverse(request.size),
        )
    })
}
