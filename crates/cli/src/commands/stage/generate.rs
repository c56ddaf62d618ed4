//! `mutual stage gen`: instances by chance, the same for the same seed.

use std::io::Write as _;

use mutual_stage::Staged;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::file::{Draft, Id, Job};
use crate::failure::{Failure, Outcome};

/// Megabytes: the link brings one in a millisecond, so that times are in milliseconds.
pub(super) const GB: u64 = 1_000;
/// Work asked for in a second over work that the link does in a second.
const OFFERED_LOAD: f64 = 1.47;
const PAPER_SIZES: [u64; 3] = [3 * GB, 10 * GB, 30 * GB];
const WEIGHT_MAX: u64 = 100;

/// Make an instance by chance
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What kind of instance
    #[arg(value_enum)]
    kind: Kind,
    /// How many jobs
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    count: u32,
    /// The same seed makes the same instance
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Size of the stage, MB
    #[arg(long, value_name = "MB", default_value_t = 40 * GB, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000_000))]
    capacity: u64,
}

/// Sizes in MB, times in ms, a link of 1 GB/s that is asked for 1.47 times what it can bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Images of 3, 10 or 30 GB, all weights 1: the paper's experiment
    Paper,
    /// The same with weights from 1 to 100
    Weighted,
    /// All sizes up to half the stage, weights from 1 to 100
    General,
    /// All sizes up to half the stage, all weights 1
    Unit,
    /// Images of at most a fourteenth of the stage, weights from 1 to 100
    Small,
    /// Images above half the stage, weights from 1 to 100
    Large,
    /// One image for about four jobs
    Shared,
    /// Jobs with three layers of which two are common
    Layers,
    /// Load times that differ from sizes by up to half
    LoadTimes,
    /// A stage that is half full at the beginning
    Prestaged,
    /// A link whose rate changes
    Bandwidth,
}

impl Kind {
    /// As the command line has it.
    pub(super) fn name(self) -> String {
        use clap::ValueEnum as _;
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let draft = draft(args.kind, args.count as usize, args.capacity, args.seed);
    let mut out = std::io::stdout().lock();
    let text = serde_json::to_string(&draft).map_err(Failure::internal)?;
    match writeln!(out, "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::internal(error))
        }
        _ => Ok(()),
    }
}

/// Due dates of a Poisson process, a mean gap apart.
pub(crate) fn poisson(chance: &mut ChaCha8Rng, count: usize, mean_gap: f64) -> Vec<u64> {
    let mut due = 0.0;
    let next = |_| {
        // Gaps are exponential: minus the logarithm of a uniform number.
        due -= mean_gap * (1.0 - chance.random::<f64>()).ln();
        due as u64
    };
    (0..count).map(next).collect()
}

/// An instance of a kind.
pub(super) fn draft(kind: Kind, count: usize, capacity: u64, seed: u64) -> Draft {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let sizes: Vec<u64> = (0..count)
        .map(|_| size(&mut chance, kind, capacity))
        .collect();
    let mean = sizes.iter().sum::<u64>() as f64 / count.max(1) as f64;
    let dues = poisson(&mut chance, count, mean / OFFERED_LOAD);
    let mut draft = Draft {
        capacity,
        jobs: Vec::with_capacity(count),
        prestaged: Vec::new(),
        unload: None,
        bandwidth: None,
    };
    for (number, (size, due)) in sizes.into_iter().zip(dues).enumerate() {
        draft.jobs.push(Job {
            id: Id::Number(number.into()),
            size,
            due,
            weight: weight(&mut chance, kind),
            load_time: None,
            image: None,
            layers: None,
        });
    }
    finish(&mut draft, &mut chance, kind);
    draft
}

fn size(chance: &mut ChaCha8Rng, kind: Kind, capacity: u64) -> u64 {
    match kind {
        Kind::General | Kind::Unit | Kind::LoadTimes | Kind::Prestaged => {
            chance.random_range(1..=capacity / 2)
        }
        Kind::Small => chance.random_range(1..=capacity / 14),
        Kind::Large => chance.random_range(capacity / 2 + 1..=capacity),
        _ => PAPER_SIZES[chance.random_range(0..PAPER_SIZES.len())],
    }
}

fn weight(chance: &mut ChaCha8Rng, kind: Kind) -> u64 {
    match kind {
        Kind::Paper | Kind::Unit | Kind::Bandwidth => 1,
        _ => chance.random_range(1..=WEIGHT_MAX),
    }
}

fn finish(draft: &mut Draft, chance: &mut ChaCha8Rng, kind: Kind) {
    let capacity = draft.capacity;
    let count = draft.jobs.len();
    match kind {
        Kind::Shared => {
            let images = count.div_ceil(4).max(1);
            let sizes: Vec<_> = (0..images)
                .map(|_| PAPER_SIZES[chance.random_range(0..3)])
                .collect();
            for job in &mut draft.jobs {
                let image = chance.random_range(0..images);
                job.size = sizes[image];
                job.image = Some(Box::new(Id::Text(format!("image-{image}"))));
            }
        }
        Kind::Layers => draft.jobs.iter_mut().for_each(|job| layers(job, chance)),
        Kind::LoadTimes => {
            for job in &mut draft.jobs {
                let least = (job.size / 2).max(1);
                job.load_time = Some(chance.random_range(least..=job.size + least));
            }
        }
        Kind::Prestaged => {
            let due = |chance: &mut ChaCha8Rng| chance.random_range(0..=2 * capacity);
            let size = capacity / 8;
            draft.prestaged = (0..4)
                .map(|_| Staged {
                    size,
                    due: due(chance),
                })
                .collect();
        }
        Kind::Bandwidth => {
            let span = draft.jobs.last().map_or(1, |job| job.due).max(4);
            draft.bandwidth = Some(vec![
                (0, 1),
                (span / 4, 2),
                (span / 2, 0),
                (span / 2 + span / 50 + 1, 1),
            ]);
        }
        _ => {}
    }
}

/// A common base, one of a few frameworks, and what is the job's own.
fn layers(job: &mut Job, chance: &mut ChaCha8Rng) {
    let base = chance.random_range(0..2u64);
    let framework = chance.random_range(0..6u64);
    let own = chance.random_range(1..=GB);
    let layers = vec![
        (Id::Text(format!("base-{base}")), (1 + base) * GB),
        (
            Id::Text(format!("framework-{framework}")),
            (2 + framework) * GB,
        ),
        (Id::Text(format!("own-{}", job.id)), own),
    ];
    job.size = layers.iter().map(|(_, size)| size).sum();
    job.layers = Some(layers);
}
