//! Offers and cancellations.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Ahead, in_range};
use super::{Admission, Planner, Reason, Request, RequestError, RequestId, loading};
use crate::LIMIT;
use crate::timeline::{Held, Obstacle, Work};

/// Places beside the one by deadline that a new load is tried at, on either side.
const OTHER_PLACES: usize = 3;

/// Later due dates that are tried when one does not work.
const LATER_DATES: usize = 12;

/// A plan that fits.
struct Plan {
    works: Vec<Ahead>,
    starts: Vec<u64>,
}

impl Planner {
    /// Accepts a request if it fits beside all promises, and beside all else that is not lighter.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if it is no request, or its name is in force.
    pub fn offer(&mut self, request: Request) -> Result<Admission, RequestError> {
        self.check(&request)?;
        match self.plan(&request, OTHER_PLACES) {
            Ok(plan) => Ok(self.accept(request, plan, Vec::new())),
            Err(reason) => Ok(self.displace(request, reason)),
        }
    }

    /// Takes a request out of force; what is planned after may start sooner.
    ///
    /// # Errors
    ///
    /// [`RequestError::Unknown`] if it is not in force.
    pub fn cancel(&mut self, id: RequestId) -> Result<(), RequestError> {
        self.remove(id).ok_or(RequestError::Unknown(id))?;
        let works = self.renewed();
        if let Ok(starts) = self.starts(&self.held(), &works) {
            self.adopt(works, starts);
        }
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), RequestError> {
        in_range("size", request.size, 1)?;
        in_range("due", request.due, 0)?;
        if self.requests.contains_key(&request.id) {
            return Err(RequestError::Duplicate(request.id));
        }
        match self.images.get(&request.image) {
            Some(image) if image.size != request.size => Err(RequestError::Size {
                image: request.image,
                known: image.size,
                given: request.size,
            }),
            _ => Ok(()),
        }
    }

    fn accept(&mut self, request: Request, plan: Plan, displaced: Vec<RequestId>) -> Admission {
        self.insert(request);
        self.adopt(plan.works, plan.starts);
        let ahead = self.ahead.iter().find(|ahead| ahead.image == request.image);
        let running = self
            .running
            .filter(|running| running.image == request.image);
        let (start, ready) = match (ahead, running) {
            (Some(ahead), _) => (ahead.start, ahead.start + ahead.work.loading),
            (None, Some(running)) => (running.start, running.ends),
            (None, None) => (self.now, self.now),
        };
        Admission::Accepted {
            start,
            ready,
            displaced,
        }
    }

    /// The plan with one more request, tried at so many other places on either side, or why there is none.
    fn plan(&self, request: &Request, others: usize) -> Result<Plan, Reason> {
        if request.size > self.site.capacity {
            return Err(Reason::LargerThanStage);
        }
        match self.images.get(&request.image) {
            Some(image) if image.is_here => self.plan_to_stay(request),
            Some(_) => self.plan_to_share(request, others),
            None => self.plan_to_load(request, others),
        }
    }

    /// The image is here, or will be once the load under way has ended: it stays longer.
    fn plan_to_stay(&self, request: &Request) -> Result<Plan, Reason> {
        let ready = self
            .running
            .filter(|running| running.image == request.image);
        if request.due < ready.map_or(self.now, |running| running.ends) {
            return Err(Reason::DueTooSoon);
        }
        let mut longer = Self {
            requests: BTreeMap::new(),
            ahead: Vec::new(),
            images: self.images.clone(),
            ..*self
        };
        longer.insert(*request);
        let works = self.ahead.clone();
        let starts = longer.starts(&longer.held(), &works)?;
        Ok(Plan { works, starts })
    }

    /// The image is planned: one load for one more due date.
    fn plan_to_share(&self, request: &Request, others: usize) -> Result<Plan, Reason> {
        let mut works = self.ahead.clone();
        let Some(place) = works.iter().position(|ahead| ahead.image == request.image) else {
            return self.plan_to_load(request, others);
        };
        let mut shared = works.remove(place);
        shared.work.deadline = shared.work.deadline.min(request.due);
        shared.work.leaves = shared.work.leaves.max(request.due + self.site.unload);
        self.insert_and_try(&works, shared, others)
    }

    fn plan_to_load(&self, request: &Request, others: usize) -> Result<Plan, Reason> {
        let loading = loading(request.size, self.site.rate);
        let free_from = self
            .running
            .map_or(self.now, |running| running.ends.max(self.now));
        if free_from.saturating_add(loading) > request.due {
            return Err(Reason::DueTooSoon);
        }
        let work = Work {
            size: request.size,
            loading,
            deadline: request.due,
            leaves: request.due + self.site.unload,
        };
        let image = request.image;
        let ahead = Ahead {
            image,
            work,
            start: 0,
        };
        self.insert_and_try(&self.ahead, ahead, others)
    }

    /// By deadline first, then a few places to either side; the first obstacle is the reason.
    fn insert_and_try(&self, works: &[Ahead], ahead: Ahead, others: usize) -> Result<Plan, Reason> {
        let held = self.held();
        let home = works.partition_point(|other| other.work.deadline <= ahead.work.deadline);
        let first = self.try_at(&held, works, ahead, home);
        let Err(obstacle) = first else {
            return first.map_err(Reason::from);
        };
        for distance in 1..=others {
            let places = [home.checked_sub(distance), Some(home + distance)];
            for place in places
                .into_iter()
                .flatten()
                .filter(|place| *place <= works.len())
            {
                if let Ok(plan) = self.try_at(&held, works, ahead, place) {
                    return Ok(plan);
                }
            }
        }
        Err(obstacle.into())
    }

    fn try_at(
        &self,
        held: &[Held],
        works: &[Ahead],
        ahead: Ahead,
        place: usize,
    ) -> Result<Plan, Obstacle> {
        let mut works = works.to_vec();
        works.insert(place, ahead);
        let starts = self.starts(held, &works)?;
        Ok(Plan { works, starts })
    }

    /// Displaces requests without a promise that weigh less together, or rejects.
    fn displace(&mut self, request: Request, reason: Reason) -> Admission {
        let mut weak: Vec<_> = self
            .requests
            .values()
            .filter(|other| !other.promise)
            .copied()
            .collect();
        weak.sort_by_key(|other| (other.weight, other.id));
        let Some((mut without, gone)) = self.least_to_displace(&request, &weak) else {
            return self.reject(&request, reason, None);
        };
        let gone = without.spare(gone, &request);
        let weight: u128 = gone.iter().map(|other| u128::from(other.weight)).sum();
        if weight >= u128::from(request.weight) {
            let lacks = weight + 1 - u128::from(request.weight);
            return self.reject(&request, reason, Some(lacks));
        }
        match without.plan(&request, 0) {
            Ok(plan) => {
                *self = without;
                let displaced = gone.iter().map(|other| other.id).collect();
                self.accept(request, plan, displaced)
            }
            Err(_) => self.reject(&request, reason, None),
        }
    }

    /// Without the fewest of the lightest requests that make room.
    fn least_to_displace(
        &self,
        request: &Request,
        weak: &[Request],
    ) -> Option<(Self, Vec<Request>)> {
        let fits = |count: usize| self.without(&weak[..count]).plan(request, 0).is_ok();
        if weak.is_empty() || !fits(weak.len()) {
            return None;
        }
        let (mut few, mut enough) = (0, weak.len());
        while few + 1 < enough {
            let middle = usize::midpoint(few, enough);
            match fits(middle) {
                true => enough = middle,
                false => few = middle,
            }
        }
        Some((self.without(&weak[..enough]), weak[..enough].to_vec()))
    }

    /// The same with some requests gone. Its order still fits; starts are left as they were until a plan is adopted.
    fn without(&self, gone: &[Request]) -> Self {
        let mut planner = self.clone();
        for request in gone {
            planner.remove(request.id);
        }
        let mut works = std::mem::take(&mut planner.ahead);
        works.retain_mut(|ahead| {
            let image = planner.images.get(&ahead.image);
            let work = image.and_then(|image| planner.work(image));
            ahead.work = work.unwrap_or(ahead.work);
            work.is_some()
        });
        planner.ahead = works;
        planner
    }

    /// Takes those back, the heaviest first, that need not have gone; a few tries are enough for most.
    fn spare(&mut self, gone: Vec<Request>, request: &Request) -> Vec<Request> {
        let mut displaced = Vec::new();
        for (tried, other) in gone.into_iter().rev().enumerate() {
            let plan = (tried < SPARED_MAX)
                .then(|| self.plan(&other, 0).ok())
                .flatten();
            let back = plan.map(|plan| {
                let mut with = self.clone();
                with.accept(other, plan, Vec::new());
                with
            });
            match back.filter(|with| with.plan(request, 0).is_ok()) {
                Some(with) => *self = with,
                None => displaced.push(other),
            }
        }
        displaced
    }

    fn reject(&self, request: &Request, reason: Reason, lacks: Option<u128>) -> Admission {
        let works_from = match reason {
            Reason::LargerThanStage => None,
            _ => self.works_from(request),
        };
        Admission::Rejected {
            reason,
            works_from,
            lacks,
        }
    }

    /// A later date that works among those at which room or time comes free, then halving what lies before it: a few dozen questions.
    fn works_from(&self, request: &Request) -> Option<u64> {
        let works_at = |due: u64| {
            let later = Request { due, ..*request };
            due <= LIMIT && self.plan(&later, 0).is_ok()
        };
        let dates = self.later_dates(request);
        let step = dates.len().div_ceil(LATER_DATES).max(1);
        let place = (0..dates.len())
            .step_by(step)
            .find(|place| works_at(dates[*place]))?;
        let (mut before, mut works) = (place.saturating_sub(step), place);
        while before + 1 < works {
            let middle = usize::midpoint(before, works);
            match works_at(dates[middle]) {
                true => works = middle,
                false => before = middle,
            }
        }
        let (mut fails, mut works) = match works.checked_sub(1) {
            Some(before) => (dates[before], dates[works]),
            None => (request.due, dates[works]),
        };
        while fails + 1 < works {
            let middle = u64::midpoint(fails, works);
            match works_at(middle) {
                true => works = middle,
                false => fails = middle,
            }
        }
        Some(works)
    }

    /// Dates after a request's own: ends of loads with and without its own, departures, and after everything.
    fn later_dates(&self, request: &Request) -> Vec<u64> {
        let own = loading(request.size, self.site.rate);
        let ends = self
            .ahead
            .iter()
            .map(|ahead| ahead.start + ahead.work.loading);
        let leaves = self.ahead.iter().map(|ahead| ahead.work.leaves);
        let held = self.held().into_iter().map(|held| held.leaves);
        let running = self.running.iter().map(|running| running.ends);
        let moments: BTreeSet<u64> = ends
            .chain(leaves)
            .chain(held)
            .chain(running)
            .chain([self.now])
            .collect();
        let dates: BTreeSet<u64> = moments
            .iter()
            .flat_map(|moment| [*moment, moment.saturating_add(own)])
            .collect();
        dates
            .into_iter()
            .filter(|date| *date > request.due)
            .collect()
    }
}

/// Displaced requests that are tried to be kept after all.
const SPARED_MAX: usize = 2;
