//! Offers and cancellations.

use std::cell::OnceCell;

use super::outlook::{Outlook, Wanted};
use super::rivals::Rivals;
use super::state::in_range;
use super::{Admission, Planner, Reason, Request, RequestError, RequestId, loading};
use crate::LIMIT;

/// Places beside the one by deadline that a new load is tried at, on either side.
pub(super) const OTHER_PLACES: usize = 3;

/// How a request can be served beside all others.
pub(super) enum Way {
    /// Its image is here, and stays long enough.
    Stay,
    /// Its image is loaded at this place of the order, among all other images.
    Load(usize),
}

impl Planner {
    /// Accepts a request if it fits beside all promises, and beside all else that is not lighter.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if it is no request, or its name is in force.
    pub fn offer(&mut self, request: Request) -> Result<Admission, RequestError> {
        self.check(&request)?;
        if request.size > self.site.capacity {
            let reason = Reason::LargerThanStage;
            return Ok(rejected(reason, None, None));
        }
        match self.way(&request) {
            Some(way) => Ok(self.accept(request, &way, Vec::new())),
            None => Ok(self.displace(request)),
        }
    }

    /// Takes a request out of force; what is planned after may start sooner.
    ///
    /// # Errors
    ///
    /// [`RequestError::Unknown`] if it is not in force.
    pub fn cancel(&mut self, id: RequestId) -> Result<(), RequestError> {
        self.remove(id).ok_or(RequestError::Unknown(id))?;
        let timed = self.retime();
        debug_assert!(timed.is_ok(), "what is left still fits");
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

    /// How a request fits beside all in force.
    fn way(&self, request: &Request) -> Option<Way> {
        self.first_way(std::slice::from_ref(request))
            .map(|(_, way)| way)
    }

    /// The first of several requests that fits beside all in force, and how.
    pub(super) fn first_way(&self, requests: &[Request]) -> Option<(usize, Way)> {
        let (held, works) = (self.held(None), self.works());
        let timeline = self.timeline(&held);
        let outlook = OnceCell::new();
        let way = |request: &Request| {
            if self.is_here(request) {
                return self.can_stay(request).then_some(Way::Stay);
            }
            if self.place_of(request.image).is_some() {
                return self
                    .with_outlook(request, |outlook, wanted| place(outlook, wanted, request));
            }
            let outlook = outlook.get_or_init(|| Outlook::of(&timeline, &works).ok());
            place(outlook.as_ref()?, &self.wanted(request), request)
        };
        let mut ways = requests.iter().map(way).enumerate();
        ways.find_map(|(place, way)| Some((place, way?)))
    }

    /// Whether the image is here, or will be once the load under way has ended.
    fn is_here(&self, request: &Request) -> bool {
        let image = self.images.get(&request.image);
        image.is_some_and(|image| image.is_here)
    }

    /// When an image that is here is there in whole.
    pub(super) fn ready(&self, request: &Request) -> u64 {
        let running = self.running;
        let running = running.filter(|running| running.image == request.image);
        running.map_or(self.now, |running| running.ends)
    }

    /// Whether the load under way and those ahead leave room for an image that is here to stay.
    fn can_stay(&self, request: &Request) -> bool {
        if request.due < self.ready(request) {
            return false;
        }
        let held = self.held(Some(request));
        !self.delays_running(request) && self.timeline(&held).earliest(&self.works()).is_ok()
    }

    /// Asks what the loads of all other images leave free; `None` if they do not hold, which the world alone can bring about.
    fn with_outlook<T>(
        &self,
        request: &Request,
        ask: impl FnOnce(&Outlook<'_>, &Wanted) -> Option<T>,
    ) -> Option<T> {
        let others = self
            .ahead
            .iter()
            .filter(|ahead| ahead.image != request.image);
        let works: Vec<_> = others.map(|ahead| ahead.work).collect();
        let held = self.held(None);
        let timeline = self.timeline(&held);
        let outlook = Outlook::of(&timeline, &works).ok()?;
        ask(&outlook, &self.wanted(request))
    }

    /// The load for a request and all who need its image.
    fn wanted(&self, request: &Request) -> Wanted {
        let shared = self.place_of(request.image);
        let shared = shared.map(|place| self.ahead[place].work);
        Wanted {
            size: request.size,
            loading: loading(request.size, self.site.rate),
            deadline: shared.map_or(u64::MAX, |shared| shared.deadline),
            leaves: shared.map_or(0, |shared| shared.leaves),
            unload: self.site.unload,
        }
    }

    pub(super) fn accept(
        &mut self,
        request: Request,
        way: &Way,
        displaced: Vec<RequestId>,
    ) -> Admission {
        self.insert(request);
        if let Way::Load(place) = *way {
            if let Some(before) = self.place_of(request.image) {
                self.ahead.remove(before);
            }
            self.plan_load(request.image, Some(place));
        }
        let timed = self.retime();
        debug_assert!(timed.is_ok(), "only what fits is accepted");
        let (start, ready) = self.times(&request);
        Admission::Accepted {
            start,
            ready,
            displaced,
        }
    }

    fn times(&self, request: &Request) -> (u64, u64) {
        if let Some(place) = self.place_of(request.image) {
            let ahead = &self.ahead[place];
            return (ahead.start, ahead.start + ahead.work.loading);
        }
        match self.running {
            Some(running) if running.image == request.image => (running.start, running.ends),
            _ => (self.now, self.now),
        }
    }

    /// Displaces requests without a promise that weigh less together, or rejects.
    fn displace(&mut self, request: Request) -> Admission {
        let Some(gone) = Rivals::of(self).in_the_way(&request) else {
            return self.reject(&request, None);
        };
        let weight: u128 = gone.iter().map(|other| u128::from(other.weight)).sum();
        if weight >= u128::from(request.weight) {
            let enough = u64::try_from(weight + 1).ok();
            let lacks = enough.map(|enough| u128::from(enough - request.weight));
            return self.reject(&request, lacks);
        }
        self.make_room(request, &gone)
    }

    /// Accepts a request in place of others, which leave it room.
    pub(super) fn make_room(&mut self, request: Request, others: &[Request]) -> Admission {
        for other in others {
            self.remove(other.id);
        }
        let displaced = others.iter().map(|other| other.id).collect();
        let way = match self.is_here(&request) {
            true => Way::Stay,
            false => Way::Load(self.home(&request)),
        };
        self.accept(request, &way, displaced)
    }

    /// The place of a request's load by its deadline, among all other images.
    fn home(&self, request: &Request) -> usize {
        let own = self.place_of(request.image);
        let shared = own.map_or(u64::MAX, |place| self.ahead[place].work.deadline);
        let deadline = shared.min(request.due);
        let mut others = self
            .ahead
            .iter()
            .filter(|ahead| ahead.image != request.image);
        let later = others.position(|other| other.work.deadline > deadline);
        later.unwrap_or(self.ahead.len() - usize::from(own.is_some()))
    }

    fn reject(&self, request: &Request, lacks: Option<u128>) -> Admission {
        rejected(self.reason(request), self.works_from(request), lacks)
    }

    /// Why a request does not fit beside all in force: the first obstacle with its load at the place by its deadline.
    fn reason(&self, request: &Request) -> Reason {
        let is_here = self.is_here(request);
        let earliest = match is_here {
            true => self.ready(request),
            false => self
                .free_from()
                .saturating_add(loading(request.size, self.site.rate)),
        };
        if earliest > request.due {
            return Reason::DueTooSoon;
        }
        let obstacle = Rivals::of(self).obstacle(request);
        obstacle.map_or(Reason::StageFull, Reason::from)
    }

    fn works_from(&self, request: &Request) -> Option<u64> {
        if self.is_here(request) {
            // The later it is due, the longer it stays.
            let due = self.ready(request).max(request.due.saturating_add(1));
            let later = Request { due, ..*request };
            return (due <= LIMIT && self.can_stay(&later)).then_some(due);
        }
        self.with_outlook(request, |outlook, wanted| {
            outlook.works_from(wanted, request.due, LIMIT, OTHER_PLACES)
        })
    }
}

fn place(outlook: &Outlook<'_>, wanted: &Wanted, request: &Request) -> Option<Way> {
    let place = outlook.place(&wanted.by(request.due), OTHER_PLACES);
    place.map(Way::Load)
}

const fn rejected(reason: Reason, works_from: Option<u64>, lacks: Option<u128>) -> Admission {
    Admission::Rejected {
        reason,
        works_from,
        lacks,
    }
}
