//! What the driver reports, and what is given up when the plan no longer holds.

use super::state::{Ahead, Running};
use super::{Broken, Cause, ImageId, Planner, Request, RequestId, Step, loading};
use crate::timeline::Obstacle;

impl Planner {
    /// A moment has come. A moment before the last one counts as that one.
    pub fn advance(&mut self, now: u64) -> Step {
        self.step(now, Cause::LoadLate)
    }

    /// The load of an image has ended; without effect for any other image.
    pub fn loaded(&mut self, image: ImageId, now: u64) -> Step {
        if self.loading() == Some(image) {
            self.running = None;
        }
        self.step(now, Cause::LoadLate)
    }

    /// The load of an image has failed, and what arrived is gone; it is planned again. Without effect for any other image.
    pub fn load_failed(&mut self, image: ImageId, now: u64) -> Step {
        if self.loading() == Some(image) {
            self.running = None;
            if let Some(state) = self.images.get_mut(&image) {
                state.is_here = false;
                state.unloaded = 0;
            }
        }
        self.step(now, Cause::LoadFailed)
    }

    /// The link brings another number of bytes in a unit of time from now on; 0 while it is down.
    pub fn bandwidth_changed(&mut self, rate: u64, now: u64) -> Step {
        let now = now.max(self.now);
        let before = std::mem::replace(&mut self.site.rate, rate);
        if let Some(running) = &mut self.running {
            let left = u128::from(running.ends.saturating_sub(now)) * u128::from(before);
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            running.ends = now
                .saturating_add(loading(left, rate))
                .max(running.start + 1);
        }
        self.step(now, Cause::LinkSlower)
    }

    fn step(&mut self, now: u64, cause: Cause) -> Step {
        self.now = self.now.max(now);
        if let Some(running) = &mut self.running {
            // It should have ended by now: it will at the earliest in a moment.
            running.ends = running.ends.max(self.now + 1);
        }
        let mut step = Step::default();
        self.hand_over(&mut step, cause);
        self.evict(&mut step);
        self.mend(&mut step, cause);
        self.start(&mut step);
        step.next = self.next();
        step
    }

    /// Requests that are due are served if their images are there, and broken otherwise.
    fn hand_over(&mut self, step: &mut Step, cause: Cause) {
        let due = self
            .requests
            .values()
            .filter(|request| request.due <= self.now);
        let due: Vec<RequestId> = due.map(|request| request.id).collect();
        for id in due {
            let Some(request) = self.remove(id) else {
                continue;
            };
            let is_running = self.loading() == Some(request.image);
            match self.images.get_mut(&request.image) {
                Some(image) if image.is_here && !is_running => {
                    image.unloaded = image.unloaded.max(request.due + self.site.unload);
                    step.handed_over.push(id);
                }
                _ => step.broken.push(broken(&request, cause)),
            }
        }
    }

    fn evict(&mut self, step: &mut Step) {
        let running = self.loading();
        let now = self.now;
        self.images.retain(|id, image| {
            let stays = !image.needed.is_empty() || Some(*id) == running || image.unloaded > now;
            if !stays && image.is_here {
                step.evicted.push(*id);
            }
            stays && (image.is_here || !image.needed.is_empty())
        });
    }

    /// Gives up requests until the plan holds again, then takes those back that still fit.
    fn mend(&mut self, step: &mut Step, cause: Cause) {
        let mut given_up: Vec<Request> = Vec::new();
        let (works, starts) = loop {
            let works = self.renewed();
            match self.starts(&self.held(), &works) {
                Ok(starts) => break (works, starts),
                Err(obstacle) => match self.victim(&works, obstacle) {
                    Some(victim) => given_up.extend(self.remove(victim)),
                    None => break (Vec::new(), Vec::new()),
                },
            }
        };
        self.adopt(works, starts);
        given_up.sort_by_key(|request| (!request.promise, std::cmp::Reverse(request.weight)));
        for request in given_up {
            if !self.take_back(request) {
                step.broken.push(broken(&request, cause));
            }
        }
    }

    fn take_back(&mut self, request: Request) -> bool {
        let is_accepted = |admission| matches!(admission, super::Admission::Accepted { .. });
        let before = self.clone();
        // Room is made by nobody else's going, so a request taken back displaces none.
        let alone = Request {
            weight: 0,
            ..request
        };
        let back = self.offer(alone).is_ok_and(is_accepted);
        match back {
            true => self.requests.insert(request.id, request).is_some(),
            false => {
                *self = before;
                false
            }
        }
    }

    /// The request to give up for an obstacle: whoever cannot be served at all; else, of all loads up to there, one without a promise, then the
    /// lightest.
    fn victim(&self, works: &[Ahead], obstacle: Obstacle) -> Option<RequestId> {
        let place = obstacle.place().min(works.len().checked_sub(1)?);
        let at_fault = &works[place];
        let free_from = self.running.map_or(self.now, |running| running.ends);
        let first = |image: ImageId| self.images.get(&image)?.needed.first().map(|(_, id)| *id);
        if free_from.saturating_add(at_fault.work.loading) > at_fault.work.deadline {
            return first(at_fault.image);
        }
        let candidates = works[..=place]
            .iter()
            .filter_map(|ahead| first(ahead.image));
        let requests = candidates.filter_map(|id| self.requests.get(&id));
        let lightest = requests.min_by_key(|request| {
            (
                request.promise,
                request.weight,
                std::cmp::Reverse(request.size),
            )
        });
        lightest.map(|request| request.id)
    }

    fn start(&mut self, step: &mut Step) {
        let is_due = |ahead: &&Ahead| ahead.start <= self.now;
        let Some(first) = self.ahead.first().filter(is_due).copied() else {
            return;
        };
        if self.running.is_some() {
            return;
        }
        self.ahead.remove(0);
        if let Some(image) = self.images.get_mut(&first.image) {
            image.is_here = true;
        }
        self.running = Some(Running {
            image: first.image,
            start: self.now,
            ends: self.now.saturating_add(first.work.loading),
        });
        step.start = Some(first.image);
    }

    /// The next start, due date, departure or end of a load.
    fn next(&self) -> Option<u64> {
        let start = self.ahead.first().map(|ahead| ahead.start);
        let start = start.filter(|_| self.running.is_none());
        let due = self.requests.values().map(|request| request.due).min();
        let unloaded = self.images.values().map(|image| image.unloaded);
        let unloaded = unloaded.filter(|unloaded| *unloaded > self.now).min();
        let ends = self.running.map(|running| running.ends);
        [start, due, unloaded, ends].into_iter().flatten().min()
    }
}

const fn broken(request: &Request, cause: Cause) -> Broken {
    Broken {
        request: request.id,
        promise: request.promise,
        cause,
    }
}
