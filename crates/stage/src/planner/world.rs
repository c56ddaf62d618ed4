//! What the driver reports.

use super::state::Running;
use super::{Broken, Cause, ImageId, Planner, Request, RequestId, Step};
use crate::LIMIT;

impl Planner {
    /// A moment has come. A moment before the last one counts as that one, and one after [`LIMIT`] as that.
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
            self.plan_load(image, None);
        }
        self.step(now, Cause::LoadFailed)
    }

    /// The link brings another number of bytes in a unit of time from now on; 0 while it is down.
    pub fn bandwidth_changed(&mut self, rate: u64, now: u64) -> Step {
        let step = self.until(now, Cause::LoadLate);
        self.change_rate(rate);
        self.go_on(step, Cause::LinkChanged)
    }

    fn step(&mut self, now: u64, cause: Cause) -> Step {
        let step = self.until(now, cause);
        self.go_on(step, cause)
    }

    /// What is over by a moment.
    fn until(&mut self, now: u64, cause: Cause) -> Step {
        self.now = self.now.max(now.min(LIMIT));
        let mut step = Step::default();
        self.hand_over(&mut step, cause);
        self.evict(&mut step);
        self.foresee_end();
        step
    }

    /// What follows from now on.
    fn go_on(&mut self, mut step: Step, cause: Cause) -> Step {
        self.give_up(&mut step, cause);
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

    /// Whom neither the load under way nor those ahead can serve any more.
    fn give_up(&mut self, step: &mut Step, cause: Cause) {
        for request in self.too_late_for_running() {
            self.remove(request.id);
            step.broken.push(broken(&request, cause));
        }
        let lost = self.mend();
        // Whoever was given up may have been the last to need an image that is here; it can be loaded again later.
        self.evict(step);
        let lost = self.take_back(lost);
        self.evict(step);
        let lost = lost.iter().map(|request| broken(request, cause));
        step.broken.extend(lost);
    }

    fn too_late_for_running(&self) -> Vec<Request> {
        let Some(running) = self.running else {
            return Vec::new();
        };
        let needed = self.images.get(&running.image).map(|image| &image.needed);
        let late = needed
            .into_iter()
            .flatten()
            .take_while(|(due, _)| *due < running.ends);
        late.filter_map(|(_, id)| self.requests.get(id).copied())
            .collect()
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

    fn start(&mut self, step: &mut Step) {
        let is_due = self
            .ahead
            .first()
            .is_some_and(|first| first.start <= self.now);
        if self.running.is_some() || !is_due {
            return;
        }
        let first = self.ahead.remove(0);
        if let Some(image) = self.images.get_mut(&first.image) {
            image.is_here = true;
        }
        self.running = Some(Running {
            image: first.image,
            start: self.now,
            arrived: 0,
            since: self.now,
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
        let next = [start, due, unloaded, ends].into_iter().flatten().min();
        next.filter(|next| *next <= LIMIT)
    }
}

const fn broken(request: &Request, cause: Cause) -> Broken {
    Broken {
        request: request.id,
        promise: request.promise,
        cause,
    }
}
