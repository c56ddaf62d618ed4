//! What the planner knows, and the questions it asks of its plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{ImageId, Request, RequestError, RequestId, Site, loading};
use crate::LIMIT;
use crate::timeline::{Held, Obstacle, Timeline, Work};

/// A stage and a link with requests in force. See the [module](super) for the order of calls.
///
/// ```
/// use mutual_stage::Model;
/// use mutual_stage::planner::{Admission, Planner, Request, Site};
///
/// let site = Site { capacity: 10, model: Model::Integral, rate: 2, unload: 0 };
/// let mut planner = Planner::new(site, 0)?;
/// let request = Request { id: 1, image: 7, size: 8, due: 20, weight: 1, promise: true };
/// let Admission::Accepted { start, ready, .. } = planner.offer(request)? else {
///     return Err("the stage is empty".into());
/// };
/// assert_eq!((start, ready), (0, 4));
/// assert_eq!(planner.advance(0).start, Some(7));
/// planner.loaded(7, 4);
/// assert_eq!(planner.advance(20).handed_over, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Planner {
    pub(super) site: Site,
    pub(super) now: u64,
    pub(super) requests: BTreeMap<RequestId, Request>,
    /// Images that requests need, or that are on the stage.
    pub(super) images: BTreeMap<ImageId, ImageState>,
    /// Loads ahead, in order.
    pub(super) ahead: Vec<Ahead>,
    pub(super) running: Option<Running>,
}

/// What is known of an image.
#[derive(Debug, Clone, Default)]
pub(super) struct ImageState {
    pub(super) size: u64,
    /// Requests in force, by due date.
    pub(super) needed: BTreeSet<(u64, RequestId)>,
    /// It is on the stage, or its load is under way.
    pub(super) is_here: bool,
    /// When requests already handed over leave it.
    pub(super) unloaded: u64,
}

/// A load that is planned; its work says what all its requests need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    pub(super) image: ImageId,
    pub(super) work: Work,
    pub(super) start: u64,
}

/// The load under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) image: ImageId,
    pub(super) start: u64,
    /// What had arrived when the link's rate last changed, and when that was.
    pub(super) arrived: u64,
    pub(super) since: u64,
    /// When it ends as far as is known.
    pub(super) ends: u64,
}

impl Planner {
    /// An empty stage at a moment.
    ///
    /// # Errors
    ///
    /// [`RequestError::Field`] if the capacity or the unload time is out of its range.
    pub fn new(site: Site, now: u64) -> Result<Self, RequestError> {
        in_range("capacity", site.capacity, 1)?;
        in_range("unload", site.unload, 0)?;
        in_range("now", now, 0)?;
        Ok(Self {
            site,
            now,
            requests: BTreeMap::new(),
            images: BTreeMap::new(),
            ahead: Vec::new(),
            running: None,
        })
    }

    /// Requests in force.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.values()
    }

    /// Loads ahead: image and planned start, in order.
    pub fn loads_ahead(&self) -> impl Iterator<Item = (ImageId, u64)> {
        self.ahead.iter().map(|ahead| (ahead.image, ahead.start))
    }

    /// The image whose load is under way.
    #[must_use]
    pub fn loading(&self) -> Option<ImageId> {
        self.running.map(|running| running.image)
    }

    /// When the load under way ends as far as is known; beyond [`LIMIT`] while the link is down.
    #[must_use]
    pub fn load_ends(&self) -> Option<u64> {
        self.running.map(|running| running.ends)
    }

    /// When the image leaves, with all requests in force.
    pub(super) fn leaves(&self, image: &ImageState) -> u64 {
        let last = image
            .needed
            .last()
            .map_or(0, |(due, _)| due + self.site.unload);
        image.unloaded.max(last)
    }

    /// The load of an image that is not here, with all its requests.
    fn work(&self, image: &ImageState) -> Option<Work> {
        let (deadline, _) = *image.needed.first()?;
        Some(Work {
            size: image.size,
            loading: loading(image.size, self.site.rate),
            deadline,
            leaves: self.leaves(image),
        })
    }

    /// What is on the stage in whole, by departure, if one more request is in force.
    pub(super) fn in_whole(&self, also: Option<&Request>) -> Vec<Held> {
        let running = self.loading();
        let here = self
            .images
            .iter()
            .filter(|(id, image)| image.is_here && Some(**id) != running);
        let mut held: Vec<_> = here
            .map(|(id, image)| Held {
                leaves: self.leaves_with(*id, image, also),
                size: image.size,
            })
            .collect();
        held.sort_unstable();
        held
    }

    /// What the loads ahead will find on the stage, by departure: also the image whose load is under way.
    pub(super) fn held(&self, also: Option<&Request>) -> Vec<Held> {
        let mut held = self.in_whole(also);
        if let Some(running) = self.running
            && let Some(image) = self.images.get(&running.image)
        {
            let leaves = self.leaves_with(running.image, image, also);
            held.push(Held {
                leaves: leaves.max(running.ends),
                size: image.size,
            });
            held.sort_unstable();
        }
        held
    }

    fn leaves_with(&self, id: ImageId, image: &ImageState, also: Option<&Request>) -> u64 {
        let also = also.filter(|request| request.image == id);
        let also = also.map_or(0, |request| request.due + self.site.unload);
        self.leaves(image).max(also)
    }

    /// From when the link is free for the loads ahead.
    pub(super) fn free_from(&self) -> u64 {
        self.running
            .map_or(self.now, |running| running.ends.max(self.now))
    }

    /// The site as the loads ahead find it.
    pub(super) fn timeline<'a>(&self, held: &'a [Held]) -> Timeline<'a> {
        Timeline {
            model: self.site.model,
            capacity: self.site.capacity,
            free_from: self.free_from(),
            held,
            rate: Some(self.site.rate),
        }
    }

    /// The loads ahead, without images and starts.
    pub(super) fn works(&self) -> Vec<Work> {
        self.ahead.iter().map(|ahead| ahead.work).collect()
    }

    /// Makes each load ahead start as early as the order allows.
    pub(super) fn retime(&mut self) -> Result<(), Obstacle> {
        let starts = self.timeline(&self.held(None)).earliest(&self.works())?;
        for (ahead, start) in self.ahead.iter_mut().zip(starts) {
            ahead.start = start;
        }
        Ok(())
    }

    /// Takes a request out of force; its image is forgotten if it is neither here nor needed. The plan must be timed again.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        let image = self.images.get_mut(&request.image)?;
        image.needed.remove(&(request.due, id));
        if image.needed.is_empty() && !image.is_here {
            self.images.remove(&request.image);
        }
        self.renew(request.image);
        Some(request)
    }

    /// Puts a request in force; the plan must follow.
    pub(super) fn insert(&mut self, request: Request) {
        let image = self.images.entry(request.image).or_default();
        image.size = request.size;
        image.needed.insert((request.due, request.id));
        self.requests.insert(request.id, request);
    }

    /// The load of an image, if it is planned, is for those who need it now.
    fn renew(&mut self, image: ImageId) {
        let Some(place) = self.place_of(image) else {
            return;
        };
        match self.images.get(&image).and_then(|state| self.work(state)) {
            Some(work) => self.ahead[place].work = work,
            None => {
                self.ahead.remove(place);
            }
        }
    }

    /// Where the load of an image is in the plan.
    pub(super) fn place_of(&self, image: ImageId) -> Option<usize> {
        self.ahead.iter().position(|ahead| ahead.image == image)
    }

    /// Puts the load of an image, with all who need it, at a place of the plan or at the one by its deadline; the plan must be timed again.
    pub(super) fn plan_load(&mut self, image: ImageId, place: Option<usize>) {
        let Some(work) = self.images.get(&image).and_then(|state| self.work(state)) else {
            return;
        };
        let is_later = |other: &Ahead| other.work.deadline > work.deadline;
        let home = self.ahead.iter().position(is_later);
        let place = place.or(home).unwrap_or(self.ahead.len());
        let start = self.now;
        self.ahead.insert(place, Ahead { image, work, start });
    }
}

pub(super) fn in_range(field: &'static str, value: u64, least: u64) -> Result<(), RequestError> {
    match (least..=LIMIT).contains(&value) {
        true => Ok(()),
        false => Err(RequestError::Field {
            field,
            value,
            least,
        }),
    }
}
