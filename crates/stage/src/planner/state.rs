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

/// A load that is planned.
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

    /// When the image leaves, with all requests in force.
    fn leaves(&self, image: &ImageState) -> u64 {
        let last = image
            .needed
            .last()
            .map_or(0, |(due, _)| due + self.site.unload);
        image.unloaded.max(last)
    }

    /// The load of an image that is not here, with all its requests.
    pub(super) fn work(&self, image: &ImageState) -> Option<Work> {
        let (deadline, _) = *image.needed.first()?;
        Some(Work {
            size: image.size,
            loading: loading(image.size, self.site.rate),
            deadline,
            leaves: self.leaves(image),
        })
    }

    /// What is on the stage in whole, by departure.
    pub(super) fn held(&self) -> Vec<Held> {
        let running = self.running.map(|running| running.image);
        let here = self
            .images
            .iter()
            .filter(|(id, image)| image.is_here && Some(**id) != running);
        let mut held: Vec<_> = here
            .map(|(_, image)| Held {
                leaves: self.leaves(image),
                size: image.size,
            })
            .collect();
        held.sort_unstable();
        held
    }

    /// The load under way as the first of the plan: its start stands.
    fn under_way(&self) -> Option<Work> {
        let running = self.running?;
        let image = self.images.get(&running.image)?;
        Some(Work {
            size: image.size,
            loading: running.ends - running.start,
            // What it was loaded for may be past; whether it is late is not asked here.
            deadline: u64::MAX,
            leaves: self.leaves(image).max(running.ends),
        })
    }

    /// The starts of loads in an order, beside what is held; the obstacle's place is among `works`.
    pub(super) fn starts(&self, held: &[Held], works: &[Ahead]) -> Result<Vec<u64>, Obstacle> {
        let under_way = self.under_way();
        let mut all: Vec<_> = under_way.into_iter().collect();
        all.extend(works.iter().map(|ahead| ahead.work));
        let before = all.len() - works.len();
        let timeline = Timeline {
            model: self.site.model,
            capacity: self.site.capacity,
            free_from: self.running.map_or(self.now, |running| running.start),
            held,
            rate: Some(self.site.rate),
        };
        let mut starts = timeline.earliest(&all).map_err(|obstacle| match obstacle {
            Obstacle::Late(place) => Obstacle::Late(place.saturating_sub(before)),
            Obstacle::Full(place) => Obstacle::Full(place.saturating_sub(before)),
        })?;
        if self
            .running
            .is_some_and(|running| starts.first() != Some(&running.start))
        {
            return Err(Obstacle::Full(0));
        }
        starts.drain(..before);
        Ok(starts)
    }

    /// Takes a plan with its starts.
    pub(super) fn adopt(&mut self, mut works: Vec<Ahead>, starts: Vec<u64>) {
        for (ahead, start) in works.iter_mut().zip(starts) {
            ahead.start = start;
        }
        self.ahead = works;
    }

    /// Takes a request out of force; its image is forgotten if it is neither here nor needed.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        let image = self.images.get_mut(&request.image)?;
        image.needed.remove(&(request.due, id));
        if image.needed.is_empty() && !image.is_here {
            self.images.remove(&request.image);
        }
        Some(request)
    }

    /// Puts a request in force; the plan must follow.
    pub(super) fn insert(&mut self, request: Request) {
        let image = self.images.entry(request.image).or_default();
        image.size = request.size;
        image.needed.insert((request.due, request.id));
        self.requests.insert(request.id, request);
    }

    /// The loads ahead after requests came or went: the same order, new ones by their deadlines.
    pub(super) fn renewed(&self) -> Vec<Ahead> {
        let is_planned: BTreeSet<_> = self.ahead.iter().map(|ahead| ahead.image).collect();
        let renew = |id: ImageId| {
            let image = self.images.get(&id).filter(|image| !image.is_here)?;
            let work = self.work(image)?;
            Some(Ahead {
                image: id,
                work,
                start: 0,
            })
        };
        let mut works: Vec<_> = self
            .ahead
            .iter()
            .filter_map(|ahead| renew(ahead.image))
            .collect();
        for id in self.images.keys().filter(|id| !is_planned.contains(id)) {
            if let Some(ahead) = renew(*id) {
                let place = works
                    .partition_point(|other: &Ahead| other.work.deadline <= ahead.work.deadline);
                works.insert(place, ahead);
            }
        }
        works
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
