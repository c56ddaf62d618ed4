//! What `mutual stage solve` answers, and `mutual stage check` reads again.

use std::fmt;

use mutual_stage::shared::{ImageLoad, Shared, SharedSchedule};
use mutual_stage::{Instance, Load, Model, Schedule};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::file::{Id, Named, Problem};
use crate::failure::{Failure, Outcome};

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) model: Model,
    pub(crate) algorithm: String,
    pub(crate) weight: Weight,
    pub(crate) upper_bound: Weight,
    pub(crate) proved: bool,
    pub(crate) schedule: Vec<Entry>,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) solve_ms: f64,
    pub(crate) elapsed_ms: f64,
}

/// A weight: a number if it fits 64 bits, else a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight(pub(crate) u128);

impl Serialize for Weight {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(weight) => serializer.serialize_u64(weight),
            Err(_) => serializer.collect_str(&self.0),
        }
    }
}

/// A job served, and when its image is loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    /// When its load starts; of several layers, the first. Jobs that share a load have the same.
    pub(crate) start: u64,
    /// The same on the link's clock, where the link's rate changes: bytes that it can have brought before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_bytes: Option<u64>,
    /// When each of its layers is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<(Id, u64)>>,
}

/// A job left out.
#[derive(Debug, Serialize)]
pub(crate) struct Rejected {
    pub(crate) id: Id,
    pub(crate) reason: String,
}

/// What `check` reads: the answer, or its schedule alone.
#[derive(Debug, Deserialize)]
pub(crate) struct Given {
    pub(crate) schedule: Vec<Entry>,
    pub(crate) model: Option<Model>,
}

impl Given {
    pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let given = reader.deserialize_any(GivenVisitor)?;
        reader.end()?;
        Ok(given)
    }
}

/// Tells both forms apart by their first bracket, so that an error within keeps its place.
struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer with `schedule`, or a list of `{\"id\", \"start\"}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Given, A::Error> {
        Given::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Given, A::Error> {
        let schedule = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(Given {
            schedule,
            model: None,
        })
    }
}

/// Either kind of schedule.
#[derive(Debug, Clone)]
pub(crate) enum Planned {
    Plain(Schedule),
    Shared(SharedSchedule),
}

impl Named {
    /// A moment on the link's clock as the file tells it.
    fn entry(&self, job: usize, start: u64) -> Entry {
        let bandwidth = self.site().bandwidth();
        Entry {
            id: self.jobs[job].clone(),
            start: bandwidth.map_or(start, |bandwidth| bandwidth.last_moment(start)),
            start_bytes: bandwidth.map(|_| start),
            layers: None,
        }
    }

    /// The jobs served, by start.
    pub(crate) fn entries(&self, planned: &Planned) -> Vec<Entry> {
        match (planned, &self.problem) {
            (Planned::Shared(schedule), Problem::Shared(shared)) => {
                self.shared_entries(shared, schedule)
            }
            (Planned::Plain(schedule), _) => schedule
                .loads()
                .iter()
                .map(|load| self.entry(load.reservation, load.start))
                .collect(),
            (Planned::Shared(_), Problem::Plain(_)) => Vec::new(),
        }
    }

    fn shared_entries(&self, shared: &Shared, schedule: &SharedSchedule) -> Vec<Entry> {
        let mut starts = vec![0; shared.images().len()];
        for load in &schedule.loads {
            starts[load.image] = load.start;
        }
        let entry = |job: &usize| {
            let images = &shared.tasks()[*job].images;
            let first = images.iter().map(|image| starts[*image]).min();
            let mut entry = self.entry(*job, first.unwrap_or(0));
            let names = self.layers[*job].iter().flatten();
            let layers = names
                .zip(images)
                .map(|(name, image)| (name.clone(), starts[*image]));
            entry.layers = self.layers[*job].is_some().then(|| layers.collect());
            entry
        };
        let mut entries: Vec<_> = schedule.served.iter().map(entry).collect();
        entries.sort_by_key(|entry| (entry.start_bytes, entry.start));
        entries
    }

    /// Why each job that is not served is not.
    pub(crate) fn rejected(&self, planned: &Planned, proved: bool) -> Vec<Rejected> {
        let mut served = vec![false; self.jobs.len()];
        match planned {
            Planned::Plain(schedule) => schedule.order().for_each(|job| served[job] = true),
            Planned::Shared(schedule) => schedule.served.iter().for_each(|job| served[*job] = true),
        }
        let left = (0..self.jobs.len()).filter(|job| !served[*job]);
        let rejected = left.map(|job| Rejected {
            id: self.jobs[job].clone(),
            reason: self.reason(job, proved),
        });
        rejected.collect()
    }

    fn reason(&self, job: usize, proved: bool) -> String {
        let exclusion = match &self.problem {
            Problem::Plain(instance) => instance.exclusion(job).map(|why| why.to_string()),
            Problem::Shared(shared) => impossible(shared, job),
        };
        exclusion.unwrap_or_else(|| match proved {
            true => "no schedule of this weight has room for it".to_owned(),
            false => "no room for it beside what is served was found".to_owned(),
        })
    }

    /// The schedule that entries name.
    pub(crate) fn planned(&self, entries: &[Entry]) -> Outcome<Planned> {
        let numbers: std::collections::HashMap<_, _> = self.jobs.iter().zip(0..).collect();
        let mut jobs = Vec::with_capacity(entries.len());
        for entry in entries {
            let job = numbers.get(&entry.id).copied();
            let unknown = || Failure::user(format!("schedule: there is no job {}", entry.id));
            jobs.push((job.ok_or_else(unknown)?, entry));
        }
        match &self.problem {
            Problem::Plain(instance) => Ok(Planned::Plain(plain(instance, &jobs))),
            Problem::Shared(shared) => self.shared(shared, &jobs).map(Planned::Shared),
        }
    }

    fn shared(&self, shared: &Shared, jobs: &[(usize, &Entry)]) -> Outcome<SharedSchedule> {
        let mut starts = std::collections::BTreeMap::new();
        for (job, entry) in jobs {
            let images = &shared.tasks()[*job].images;
            for (place, image) in images.iter().enumerate() {
                let layers = entry.layers.as_ref();
                let start = layers.and_then(|layers| Some(layers.get(place)?.1));
                let start = start.unwrap_or_else(|| on_link(shared.site(), entry));
                if *starts.entry(*image).or_insert(start) != start {
                    let text = format!(
                        "schedule: job {} loads {} again",
                        entry.id, self.images[*image]
                    );
                    return Err(
                        Failure::user(text).hint("jobs that share an image share its start")
                    );
                }
            }
        }
        let load = |(image, start): (usize, u64)| ImageLoad { image, start };
        let mut loads: Vec<_> = starts.into_iter().map(load).collect();
        loads.sort_by_key(|load| (load.start, load.image));
        let mut served: Vec<_> = jobs.iter().map(|(job, _)| *job).collect();
        served.sort_unstable();
        Ok(SharedSchedule { loads, served })
    }
}

fn plain(instance: &Instance, jobs: &[(usize, &Entry)]) -> Schedule {
    let load = |(job, entry): &(usize, &Entry)| Load {
        reservation: *job,
        start: on_link(instance, entry),
    };
    jobs.iter().map(load).collect()
}

fn on_link(site: &Instance, entry: &Entry) -> u64 {
    entry
        .start_bytes
        .unwrap_or_else(|| site.on_link(entry.start))
}

fn impossible(shared: &Shared, job: usize) -> Option<String> {
    let task = &shared.tasks()[job];
    let images = task.images.iter().map(|image| shared.images()[*image]);
    let bytes: u128 = images.clone().map(|image| u128::from(image.size)).sum();
    let loads = images.map(|image| image.load_time.unwrap_or(image.size));
    let loading: u128 = loads.map(u128::from).sum();
    if bytes > u128::from(shared.site().capacity()) {
        Some(format!("its images of {bytes} are larger than the stage"))
    } else if loading > u128::from(shared.site().on_link(task.due)) && task.images.len() == 1 {
        Some(format!(
            "the load takes {loading}, which ends after the due date {}",
            task.due
        ))
    } else if task.weight == 0 {
        Some("its weight is 0".to_owned())
    } else {
        None
    }
}
