//! Instance files: JSON as people and other programs write it, and what the planner library makes of it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use mutual_stage::shared::{Image, Shared, Task};
use mutual_stage::{Bandwidth, Instance, InstanceError, Reservation, Staged};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::failure::{Failure, Naming as _, Outcome};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A job's, image's or layer's name as the file has it: a number or a string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Number(serde_json::Number),
    Text(String),
}

impl Id {
    /// Numbers that count up, as most files have them, cannot name anything twice.
    fn is_less_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => one.as_u64() < other.as_u64(),
            _ => false,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Id, E> {
        Ok(Id::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Id, E> {
        Ok(Id::Number(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Id, E> {
        Ok(Id::Text(value.to_owned()))
    }
}

/// A job as written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) id: Id,
    pub(crate) size: u64,
    pub(crate) due: u64,
    pub(crate) weight: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load_time: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Box<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<(Id, u64)>>,
}

/// An instance as written down.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Draft {
    pub(crate) capacity: u64,
    pub(crate) jobs: Vec<Job>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) prestaged: Vec<Staged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unload: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bandwidth: Option<Vec<(u64, u64)>>,
}

impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DraftVisitor)
    }
}

/// Reads an object that is an instance, or holds one under the key `instance` among anything else.
struct DraftVisitor;

impl<'de> Visitor<'de> for DraftVisitor {
    type Value = Draft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `capacity` and `jobs`, or with `instance`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Draft, A::Error> {
        let (mut capacity, mut jobs, mut inner, mut unknown) = (None, None, None, None);
        let (mut prestaged, mut unload, mut bandwidth) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "capacity" => capacity = Some(map.next_value()?),
                "jobs" => jobs = Some(map.next_value()?),
                "prestaged" => prestaged = map.next_value()?,
                "unload" => unload = map.next_value()?,
                "bandwidth" => bandwidth = map.next_value()?,
                "instance" => inner = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    unknown = Some(key);
                }
            }
        }
        if let Some(inner) = inner {
            return Ok(inner);
        }
        if let Some(unknown) = unknown {
            let known = "capacity, jobs, prestaged, unload, bandwidth or instance";
            return Err(A::Error::custom(format!(
                "unknown field `{unknown}`, expected {known}"
            )));
        }
        Ok(Draft {
            capacity: capacity.ok_or_else(|| A::Error::missing_field("capacity"))?,
            jobs: jobs.ok_or_else(|| A::Error::missing_field("jobs"))?,
            prestaged: prestaged.unwrap_or_default(),
            unload,
            bandwidth,
        })
    }
}

/// What is to be solved: with an image for each job, or with images and layers that several share.
#[derive(Debug)]
pub(crate) enum Problem {
    Plain(Instance),
    Shared(Shared),
}

/// An instance with the names that its file gives to jobs and images.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) problem: Problem,
    /// By position of a job.
    pub(crate) jobs: Vec<Id>,
    /// By position of an image, if images are shared: its name, or the job's it belongs to alone.
    pub(crate) images: Vec<Id>,
    /// By position of a job: the names of its layers, if it has some.
    pub(crate) layers: Vec<Option<Vec<Id>>>,
}

impl Named {
    /// Reads a file and checks it.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let about = |failure: Failure| failure.about(path.display());
        let bytes = read(path)?;
        // Looked at once for all strings in it.
        let text = std::str::from_utf8(&bytes).map_err(|error| about(Failure::user(error)))?;
        let draft: Draft =
            serde_json::from_str(text).map_err(|error| about(Failure::user(error)))?;
        Self::new(draft).map_err(about)
    }

    /// Checks an instance as written down.
    pub(crate) fn new(draft: Draft) -> Outcome<Self> {
        no_id_twice(&draft.jobs)?;
        let site = site(&draft)?;
        let is_shared = draft.jobs.iter().any(|job| job.layers.is_some());
        match is_shared || shares_images(&draft.jobs) {
            true => shared(&site, draft.jobs),
            false => plain(draft),
        }
    }

    /// Capacity, staged images and the link.
    pub(crate) fn site(&self) -> &Instance {
        match &self.problem {
            Problem::Plain(instance) => instance,
            Problem::Shared(shared) => shared.site(),
        }
    }
}

/// The bytes of a file of bounded size.
pub(crate) fn read(path: &Path) -> Outcome<Vec<u8>> {
    let size = std::fs::metadata(path).naming(path.display())?.len();
    if size > FILE_BYTES_MAX {
        let text = format!("{}: {size} bytes are too many", path.display());
        return Err(Failure::user(text).hint("at most 1 GiB is read"));
    }
    std::fs::read(path).naming(path.display())
}

fn no_id_twice(jobs: &[Job]) -> Outcome {
    if jobs.is_sorted_by(|one, next| one.id.is_less_than(&next.id)) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(jobs.len());
    match jobs.iter().find(|job| !seen.insert(&job.id)) {
        Some(job) => Err(Failure::user(format!("jobs: id {} is given twice", job.id))
            .hint("give every job an id of its own")),
        None => Ok(()),
    }
}

fn site(draft: &Draft) -> Outcome<Instance> {
    with_site(
        draft,
        Instance::new(draft.capacity, Vec::new()).map_err(Failure::user)?,
    )
}

fn with_site(draft: &Draft, plain: Instance) -> Outcome<Instance> {
    let staged = plain
        .with_staged(draft.prestaged.clone())
        .and_then(|site| site.with_unload(draft.unload.unwrap_or(0)))
        .map_err(Failure::user)?;
    match &draft.bandwidth {
        Some(steps) => Bandwidth::new(steps.clone())
            .map_err(Failure::user)
            .and_then(|bandwidth| staged.with_bandwidth(bandwidth).map_err(Failure::user)),
        None => Ok(staged),
    }
}

fn shares_images(jobs: &[Job]) -> bool {
    let mut seen = HashSet::new();
    let mut images = jobs.iter().filter_map(|job| job.image.as_deref());
    images.any(|image| !seen.insert(image))
}

fn plain(draft: Draft) -> Outcome<Named> {
    let reservation = |job: &Job| Reservation {
        load_time: job.load_time,
        ..Reservation::new(job.size, job.due, job.weight)
    };
    let reservations = draft.jobs.iter().map(reservation).collect();
    let instance = Instance::new(draft.capacity, reservations);
    let instance = instance.map_err(|error| about_job(&draft.jobs, &error))?;
    Ok(Named {
        problem: Problem::Plain(with_site(&draft, instance)?),
        jobs: draft.jobs.into_iter().map(|job| job.id).collect(),
        images: Vec::new(),
        layers: Vec::new(),
    })
}

/// The file knows reservations as jobs with ids.
fn about_job(jobs: &[Job], error: &InstanceError) -> Failure {
    let InstanceError::Field {
        index,
        field,
        value,
        least,
        ..
    } = error
    else {
        return Failure::user(error);
    };
    let id = &jobs[*index].id;
    Failure::user(format!(
        "job {id}: {field} is {value}: it must be from {least} to 2^62"
    ))
}

/// Images and layers by name; each job without either has an image of its own.
#[derive(Default)]
struct Images {
    images: Vec<Image>,
    names: Vec<Id>,
    numbers: HashMap<Id, usize>,
}

impl Images {
    fn own(&mut self, job: &Job) -> usize {
        self.images.push(Image {
            size: job.size,
            load_time: job.load_time,
        });
        self.names.push(job.id.clone());
        self.images.len() - 1
    }

    fn named(&mut self, job: &Id, name: &Id, image: Image) -> Outcome<usize> {
        if let Some(number) = self.numbers.get(name) {
            if self.images[*number] == image {
                return Ok(*number);
            }
            let text = format!("job {job}: {name} has another size or load_time than before");
            return Err(Failure::user(text).hint("one image or layer has one size"));
        }
        self.images.push(image);
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), self.images.len() - 1);
        Ok(self.images.len() - 1)
    }

    fn of(&mut self, job: &Job) -> Outcome<Vec<usize>> {
        let Some(layers) = &job.layers else {
            let Some(name) = &job.image else {
                return Ok(vec![self.own(job)]);
            };
            let image = Image {
                size: job.size,
                load_time: job.load_time,
            };
            return Ok(vec![self.named(&job.id, name, image)?]);
        };
        let total: u128 = layers.iter().map(|(_, size)| u128::from(*size)).sum();
        if total != u128::from(job.size) {
            let text = format!(
                "job {}: its layers have {total} bytes, not its size",
                job.id
            );
            return Err(Failure::user(text).hint("size is the sum of the layers' sizes"));
        }
        let layer = |(name, size): &(Id, u64)| {
            let image = Image {
                size: *size,
                load_time: None,
            };
            self.named(&job.id, name, image)
        };
        layers.iter().map(layer).collect()
    }
}

fn shared(site: &Instance, jobs: Vec<Job>) -> Outcome<Named> {
    let mut images = Images::default();
    let mut tasks = Vec::with_capacity(jobs.len());
    for job in &jobs {
        tasks.push(Task {
            due: job.due,
            weight: job.weight,
            images: images.of(job)?,
        });
    }
    let shared = Shared::new(site, images.images, tasks).map_err(Failure::user)?;
    let names = |job: &Job| {
        let layers = job.layers.as_ref()?;
        Some(layers.iter().map(|(name, _)| name.clone()).collect())
    };
    Ok(Named {
        problem: Problem::Shared(shared),
        layers: jobs.iter().map(names).collect(),
        jobs: jobs.into_iter().map(|job| job.id).collect(),
        images: images.names,
    })
}
