//! Which requests without a promise must go to make room for another.
//!
//! One that is lighter goes before one that is heavier: the fewest of the lightest that make room are found by halving, and of these all
//! stay after all that need not have gone, the heaviest first. Each question times the whole order without some requests, O(n), and there are O(log n)
//! of them for each request that goes.

use std::collections::HashMap;
use std::ops::Range;

use super::state::ImageState;
use super::{ImageId, Planner, Request, RequestId, loading};
use crate::timeline::{Held, Obstacle, Work};

/// Questions asked to keep requests that need not go; most need a dozen.
const QUESTIONS_MAX: usize = 64;

/// The plan, in a form in which requests without a promise can be left out quickly.
pub(super) struct Rivals<'a> {
    planner: &'a Planner,
    /// Requests without a promise, the lightest first.
    weak: Vec<Request>,
    /// Which of them are left out.
    is_gone: Vec<bool>,
    here: Vec<Image>,
    ahead: Vec<Image>,
    users: Vec<User>,
}

struct Image {
    id: ImageId,
    size: u64,
    loading: u64,
    /// Stays until then whoever needs it.
    unloaded: u64,
    users: Range<usize>,
}

/// Who needs an image.
struct User {
    due: u64,
    /// Its place among the requests without a promise.
    weak: Option<usize>,
}

impl<'a> Rivals<'a> {
    pub(super) fn of(planner: &'a Planner) -> Self {
        let requests = planner.requests.values();
        let mut weak: Vec<_> = requests.filter(|one| !one.promise).copied().collect();
        weak.sort_unstable_by_key(|one| (one.weight, one.id));
        let mut rivals = Self {
            planner,
            is_gone: vec![false; weak.len()],
            here: Vec::new(),
            ahead: Vec::with_capacity(planner.ahead.len()),
            users: Vec::with_capacity(planner.requests.len()),
            weak,
        };
        rivals.look_at_images();
        rivals
    }

    fn look_at_images(&mut self) {
        let ranks = self.weak.iter().enumerate();
        let ranks: HashMap<RequestId, usize> = ranks.map(|(rank, one)| (one.id, rank)).collect();
        let images = &self.planner.images;
        for (id, state) in images.iter().filter(|(_, state)| state.is_here) {
            let image = self.image(*id, state, &ranks);
            self.here.push(image);
        }
        for ahead in &self.planner.ahead {
            if let Some(state) = images.get(&ahead.image) {
                let image = self.image(ahead.image, state, &ranks);
                self.ahead.push(image);
            }
        }
    }

    fn image(
        &mut self,
        id: ImageId,
        state: &ImageState,
        ranks: &HashMap<RequestId, usize>,
    ) -> Image {
        let first = self.users.len();
        let users = state.needed.iter().map(|(due, id)| User {
            due: *due,
            weak: ranks.get(id).copied(),
        });
        self.users.extend(users);
        let running = self.planner.running;
        let ends = running.filter(|running| running.image == id);
        Image {
            id,
            size: state.size,
            loading: loading(state.size, self.planner.site.rate),
            unloaded: state.unloaded.max(ends.map_or(0, |running| running.ends)),
            users: first..self.users.len(),
        }
    }

    /// Requests without a promise that make room for another if they go; `None` if not even all of them do.
    ///
    /// Weights play a part in who goes first, but not that of the other.
    pub(super) fn in_the_way(&mut self, request: &Request) -> Option<Vec<Request>> {
        let alone = loading(request.size, self.planner.site.rate);
        let ends = self.planner.free_from().saturating_add(alone);
        let is_too_late = ends > request.due && !self.is_here(request);
        if self.weak.is_empty() || is_too_late || !self.fits_beside_promises(request) {
            return None;
        }
        let enough = self.fewest(request);
        self.leave_out(0..self.weak.len(), false);
        self.leave_out(0..enough, true);
        self.keep_who_need_not_go(request, enough);
        let gone = self.weak.iter().zip(&self.is_gone);
        Some(
            gone.filter(|(_, gone)| **gone)
                .map(|(one, _)| *one)
                .collect(),
        )
    }

    /// Whether a request fits beside all with a promise.
    fn fits_beside_promises(&mut self, request: &Request) -> bool {
        self.leave_out(0..self.weak.len(), true);
        self.obstacle(request).is_none()
    }

    /// How many of the lightest must go.
    fn fewest(&mut self, request: &Request) -> usize {
        let (mut few, mut enough) = (0, self.weak.len());
        while few + 1 < enough {
            let middle = usize::midpoint(few, enough);
            self.leave_out(0..middle, true);
            self.leave_out(middle..self.weak.len(), false);
            match self.obstacle(request) {
                None => enough = middle,
                Some(_) => few = middle,
            }
        }
        enough
    }

    /// The heaviest that is gone must go: without the lighter ones it is not enough. The next ones stay, as many as can, then one must go, and so on.
    fn keep_who_need_not_go(&mut self, request: &Request, gone: usize) {
        let mut questions = QUESTIONS_MAX;
        let mut undecided = gone - 1;
        while undecided > 0 && questions > 0 {
            let from = self.stays_from(request, undecided, &mut questions);
            self.leave_out(0..from, true);
            self.leave_out(from..undecided, false);
            undecided = from.saturating_sub(1);
        }
    }

    /// From which one on all up to `undecided` can stay: from the lightest if possible, else found by halving.
    fn stays_from(&mut self, request: &Request, undecided: usize, questions: &mut usize) -> usize {
        let (mut least, mut from, mut tried) = (0, undecided, 0);
        while least < from && *questions > 0 {
            *questions -= 1;
            self.leave_out(0..tried, true);
            self.leave_out(tried..undecided, false);
            match self.obstacle(request) {
                None => from = tried,
                Some(_) => least = tried + 1,
            }
            tried = usize::midpoint(least, from);
        }
        from
    }

    fn leave_out(&mut self, ranks: Range<usize>, is_gone: bool) {
        self.is_gone[ranks].fill(is_gone);
    }

    /// Why a request does not fit, with its load at the place by its deadline, beside all that are not left out.
    pub(super) fn obstacle(&self, request: &Request) -> Option<Obstacle> {
        if self.is_here(request) {
            return self.obstacle_to_stay(request);
        }
        let works = self.works(request);
        let held = self.held(None);
        self.planner.timeline(&held).earliest(&works).err()
    }

    fn is_here(&self, request: &Request) -> bool {
        self.here.iter().any(|image| image.id == request.image)
    }

    fn obstacle_to_stay(&self, request: &Request) -> Option<Obstacle> {
        let ends = |also| self.planner.running_ends(&self.in_whole(also));
        if request.due < self.planner.ready(request) || ends(Some(request)) > ends(None) {
            return Some(Obstacle::Full(0));
        }
        let works = self.ahead.iter().filter_map(|image| self.work(image, None));
        let works: Vec<_> = works.collect();
        let held = self.held(Some(request));
        self.planner.timeline(&held).earliest(&works).err()
    }

    fn works(&self, request: &Request) -> Vec<Work> {
        let mut works = Vec::with_capacity(self.ahead.len() + 1);
        let mut own = None;
        for image in &self.ahead {
            match image.id == request.image {
                true => own = self.work(image, Some(request)),
                false => works.extend(self.work(image, None)),
            }
        }
        let own = own.unwrap_or_else(|| self.new_work(request));
        let later = works.iter().position(|other| other.deadline > own.deadline);
        works.insert(later.unwrap_or(works.len()), own);
        works
    }

    fn new_work(&self, request: &Request) -> Work {
        Work {
            size: request.size,
            loading: loading(request.size, self.planner.site.rate),
            deadline: request.due,
            leaves: request.due + self.planner.site.unload,
        }
    }

    /// The load of an image for those who still need it, and perhaps one more.
    fn work(&self, image: &Image, also: Option<&Request>) -> Option<Work> {
        let dues = self.dues(image).chain(also.map(|request| request.due));
        let (first, last) = dues.fold((u64::MAX, None), |(first, last), due| {
            (first.min(due), last.max(Some(due)))
        });
        Some(Work {
            size: image.size,
            loading: image.loading,
            deadline: first,
            leaves: last? + self.planner.site.unload,
        })
    }

    fn held(&self, also: Option<&Request>) -> Vec<Held> {
        self.leaving(self.here.iter(), also)
    }

    fn in_whole(&self, also: Option<&Request>) -> Vec<Held> {
        let running = self.planner.loading();
        let here = self.here.iter().filter(|image| Some(image.id) != running);
        self.leaving(here, also)
    }

    /// Images by departure.
    fn leaving<'b>(
        &self,
        images: impl Iterator<Item = &'b Image>,
        also: Option<&Request>,
    ) -> Vec<Held> {
        let leaves = |image: &Image| {
            let also = also.filter(|request| request.image == image.id);
            let dues = self.dues(image).chain(also.map(|request| request.due));
            let last = dues.max().map_or(0, |due| due + self.planner.site.unload);
            image.unloaded.max(last)
        };
        let held = images.map(|image| Held {
            leaves: leaves(image),
            size: image.size,
        });
        let mut held: Vec<_> = held.collect();
        held.sort_unstable();
        held
    }

    fn dues(&self, image: &Image) -> impl Iterator<Item = u64> {
        let users = self.users[image.users.clone()].iter();
        let stays = |user: &&User| user.weak.is_none_or(|rank| !self.is_gone[rank]);
        users.filter(stays).map(|user| user.due)
    }
}
