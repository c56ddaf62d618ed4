//! Images and layers that serve several tasks, and everything else that the product needs beyond the plain problem.
//!
//! A task needs a set of images at its due date: one, or the layers of one. An image is loaded once for all tasks served that need it: by the
//! earliest of their due dates, and it stays until the latest. Load times may differ from sizes, images may stay for a while after their due
//! dates, some may lie on the stage from the beginning. No exact algorithm of polynomial time is known for any of this (and due-date order may
//! lose), so [`solve`] is a search that asks the same question again and again: do these loads, in this order, fit? A few tasks are solved exactly.
//!
//! The plain problem is the special case of one image for each task; see [`Shared::plain`].

mod exact;
mod search;

use crate::timeline::Work;
use crate::validate::{Placed, on_the_stage};
use crate::{Instance, InstanceError, LIMIT, Model};

pub use search::solve;

/// An image, or a layer of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Its bytes, 1 to [`LIMIT`].
    pub size: u64,
    /// How long the link takes for it, 1 to [`LIMIT`]; its size if absent.
    pub load_time: Option<u64>,
}

impl Image {
    fn loading(&self) -> u64 {
        self.load_time.unwrap_or(self.size)
    }
}

/// Something that needs images at a due date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// By when all images must be there.
    pub due: u64,
    /// What serving it is worth.
    pub weight: u64,
    /// Positions of its images, at least one, none twice.
    pub images: Vec<usize>,
}

/// Why tasks and images are no problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// A number is out of its range.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A task names no image, an unknown one, or one twice.
    #[error("task {task}: it must name at least one image, none twice, and none beyond the last")]
    Images {
        /// Position of the task, from 0.
        task: usize,
    },
}

/// A site, images, and tasks that need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    site: Instance,
    images: Vec<Image>,
    tasks: Vec<Task>,
}

/// One load of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLoad {
    /// Position of the image.
    pub image: usize,
    /// When its load starts, on the link's clock.
    pub start: u64,
}

/// Loads by start, and the tasks that they serve, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedSchedule {
    /// The loads.
    pub loads: Vec<ImageLoad>,
    /// Positions of the tasks served.
    pub served: Vec<usize>,
}

/// A schedule, and how good it is known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSolution {
    /// The loads and the tasks.
    pub schedule: SharedSchedule,
    /// Total weight of the tasks served.
    pub weight: u128,
    /// No schedule weighs more.
    pub bound: u128,
}

/// The first rule that a schedule breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedViolation {
    /// A load or a task is not there, or named twice, or loads are not in the order of their starts.
    #[error("{what} {number} is unknown, named twice or out of order")]
    Unknown {
        /// `image` or `task`.
        what: &'static str,
        /// What was named.
        number: usize,
    },
    /// An image that a served task needs is not loaded, or not by its due date.
    #[error("image {image} is not there for task {task} at its due date")]
    Missing {
        /// The image.
        image: usize,
        /// The task.
        task: usize,
    },
    /// An image is loaded that no served task needs.
    #[error("image {image} is loaded for nobody")]
    Useless {
        /// The image.
        image: usize,
    },
    /// Two loads use the link at the same time.
    #[error("the load of image {image} starts at {start}, before the one before it has ended")]
    Overlap {
        /// The later one.
        image: usize,
        /// When it starts.
        start: u64,
    },
    /// The stage holds more than its capacity.
    #[error("the stage overflows at {at}")]
    Overflow {
        /// The moment, on the link's clock.
        at: u64,
    },
}

impl Shared {
    /// Tasks and images at a site; the site's own reservations, if any, are left aside.
    ///
    /// # Errors
    ///
    /// [`SharedError`] names what is wrong.
    pub fn new(site: &Instance, images: Vec<Image>, tasks: Vec<Task>) -> Result<Self, SharedError> {
        for (index, image) in images.iter().enumerate() {
            in_range(index, "size", image.size, 1)?;
            in_range(index, "load_time", image.loading(), 1)?;
        }
        for (task, wanted) in tasks.iter().enumerate() {
            in_range(task, "due", wanted.due, 0)?;
            let mut own = wanted.images.clone();
            own.sort_unstable();
            own.dedup();
            let is_known = own.last().is_some_and(|last| *last < images.len());
            if !is_known || own.len() < wanted.images.len() {
                return Err(SharedError::Images { task });
            }
        }
        let site = site.without_reservations();
        Ok(Self {
            site,
            images,
            tasks,
        })
    }

    /// A plain instance: an image for each reservation.
    #[must_use]
    pub fn plain(instance: &Instance) -> Self {
        let reservations = instance.reservations();
        let image = |reservation: &crate::Reservation| Image {
            size: reservation.size,
            load_time: reservation.load_time,
        };
        let task = |(own, reservation): (usize, &crate::Reservation)| Task {
            due: reservation.due,
            weight: reservation.weight,
            images: vec![own],
        };
        Self {
            site: instance.without_reservations(),
            images: reservations.iter().map(image).collect(),
            tasks: reservations.iter().enumerate().map(task).collect(),
        }
    }

    /// Capacity, staged images, unload time and bandwidth.
    #[must_use]
    pub const fn site(&self) -> &Instance {
        &self.site
    }

    /// All images.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// All tasks.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// What must be loaded to serve tasks: positions of images, and their loads. Nobody's images are left out.
    fn works(&self, served: &[usize]) -> Vec<(usize, Work)> {
        let mut works: Vec<Option<Work>> = vec![None; self.images.len()];
        for task in served {
            let task = &self.tasks[*task];
            let deadline = self.site.on_link(task.due);
            let leaves = self.site.leaves_on_link(task.due);
            for image in &task.images {
                let work = works[*image].get_or_insert(Work {
                    size: self.images[*image].size,
                    loading: self.images[*image].loading(),
                    deadline,
                    leaves,
                });
                work.deadline = work.deadline.min(deadline);
                work.leaves = work.leaves.max(leaves);
            }
        }
        let works = works.into_iter().enumerate();
        works
            .filter_map(|(image, work)| Some((image, work?)))
            .collect()
    }

    fn weight(&self, served: &[usize]) -> u128 {
        let weights = served.iter().map(|task| self.tasks[*task].weight);
        weights.map(u128::from).sum()
    }

    /// Whether a schedule is feasible, by the definition alone.
    ///
    /// # Errors
    ///
    /// The first rule broken.
    pub fn validate(&self, model: Model, schedule: &SharedSchedule) -> Result<(), SharedViolation> {
        known("task", &schedule.served, self.tasks.len())?;
        let mut images: Vec<_> = schedule.loads.iter().map(|load| load.image).collect();
        images.sort_unstable();
        known("image", &images, self.images.len())?;
        self.on_the_link(schedule)?;
        let mut loads = Vec::with_capacity(schedule.loads.len());
        for load in &schedule.loads {
            loads.push(self.placed(schedule, *load)?);
        }
        self.all_there(schedule)?;
        on_the_stage(&self.site, model, loads).map_err(|at| SharedViolation::Overflow { at })
    }

    fn on_the_link(&self, schedule: &SharedSchedule) -> Result<(), SharedViolation> {
        let mut free_from = 0;
        for ImageLoad { image, start } in schedule.loads.iter().copied() {
            if u128::from(start) < free_from {
                return Err(SharedViolation::Overlap { image, start });
            }
            free_from = u128::from(start) + u128::from(self.images[image].loading());
        }
        Ok(())
    }

    /// The load with the last departure of the tasks that need it, all of which it must serve in time.
    fn placed(
        &self,
        schedule: &SharedSchedule,
        load: ImageLoad,
    ) -> Result<Placed, SharedViolation> {
        let ImageLoad { image, start } = load;
        let loading = self.images[image].loading();
        let end = u128::from(start) + u128::from(loading);
        let mut leaves = None;
        for task in &schedule.served {
            if !self.tasks[*task].images.contains(&image) {
                continue;
            }
            let due = self.tasks[*task].due;
            if u128::from(self.site.on_link(due)) < end {
                return Err(SharedViolation::Missing { image, task: *task });
            }
            leaves = leaves.max(Some(self.site.leaves_on_link(due)));
        }
        Ok(Placed {
            size: self.images[image].size,
            start,
            loading,
            leaves: leaves.ok_or(SharedViolation::Useless { image })?,
        })
    }

    fn all_there(&self, schedule: &SharedSchedule) -> Result<(), SharedViolation> {
        let mut is_loaded = vec![false; self.images.len()];
        for load in &schedule.loads {
            is_loaded[load.image] = true;
        }
        for task in &schedule.served {
            let mut needed = self.tasks[*task].images.iter();
            if let Some(image) = needed.find(|image| !is_loaded[**image]) {
                let (image, task) = (*image, *task);
                return Err(SharedViolation::Missing { image, task });
            }
        }
        Ok(())
    }
}

/// Whether ascending numbers are all below a count and none comes twice.
fn known(what: &'static str, numbers: &[usize], count: usize) -> Result<(), SharedViolation> {
    let mut least = 0;
    for number in numbers.iter().copied() {
        if number < least || number >= count {
            return Err(SharedViolation::Unknown { what, number });
        }
        least = number + 1;
    }
    Ok(())
}

fn in_range(
    index: usize,
    field: &'static str,
    value: u64,
    least: u64,
) -> Result<(), InstanceError> {
    let what = if field == "due" { "task" } else { "image" };
    match (least..=LIMIT).contains(&value) {
        true => Ok(()),
        false => Err(InstanceError::Field {
            what,
            index,
            field,
            value,
            least,
        }),
    }
}
