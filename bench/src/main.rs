//! The integral staging problem by our own exact search and as a mixed-integer program through HiGHS, on the same instances in the same run.
//!
//! ```sh
//! cargo xtask bench milp -- [SECONDS] [SEEDS]
//! ```
//!
//! Needs CMake, a C++ compiler and libclang. SECONDS bounds each search (60), SEEDS is the number of instances of each kind (2). Where
//! both prove, they must agree; where one only bounds, the other may not contradict it: the run fails otherwise.

#![expect(clippy::print_stdout, reason = "the table is the answer")]

mod program;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mutual_stage::{Instance, Model, Reservation, continuous, solve, validate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Work asked for in a second over work that the link does in a second, as in `mutual experiment staging`.
const OFFERED_LOAD: f64 = 1.47;
const PAPER_SIZES_GB: [u64; 3] = [3, 10, 30];
const CAPACITY_GB: u64 = 40;
const WEIGHT_MAX: u64 = 100;
const COUNTS: [usize; 3] = [30, 60, 120];
const SECONDS: f64 = 60.0;
const SEEDS: u64 = 2;

/// Whole gigabytes, and a link of 1 GB/s, so that all times are whole seconds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// 3, 10 or 30 GB, all weights 1.
    Paper,
    /// 1 GB to half the stage, weights from 1 to 100.
    General,
}

/// What a solver reached.
struct Reached {
    weight: u128,
    bound: u128,
    ms: f64,
}

impl Reached {
    const fn is_proved(&self) -> bool {
        self.weight == self.bound
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(SECONDS), |text| text.parse());
    let seconds = seconds.context("SECONDS is no number")?;
    let seeds = arguments.next().map_or(Ok(SEEDS), |text| text.parse());
    let seeds = seeds.context("SEEDS is no number")?;
    println!("stage of {CAPACITY_GB} GB, integral model; each search is stopped after {seconds} s");
    println!(
        "kind        n seed  continuous |  ours   bound proved        ms |  MILP   bound proved        ms"
    );
    for kind in [Kind::Paper, Kind::General] {
        for count in COUNTS {
            for seed in 0..seeds {
                let instance = instance(kind, count, seed)?;
                let label = format!("{kind:?}");
                row(
                    &format!("{label:<8} {count:>4} {seed:>4}"),
                    &instance,
                    seconds,
                )?;
            }
        }
    }
    println!("where both prove, they agree");
    Ok(())
}

fn row(label: &str, instance: &Instance, seconds: f64) -> Result<()> {
    let relaxed = continuous::heaviest(instance)?.weight;
    let ours = search(instance, seconds)?;
    print!("{label}  {relaxed:>10} | {}", cells(&ours));
    let milp = program::solve(instance, seconds)?;
    println!(" | {}", cells(&milp));
    ensure!(
        ours.weight <= milp.bound && milp.weight <= ours.bound,
        "one solver's schedule is heavier than the other's bound"
    );
    Ok(())
}

fn cells(reached: &Reached) -> String {
    let Reached { weight, bound, ms } = reached;
    let proved = if reached.is_proved() { "yes" } else { "no" };
    format!("{weight:>5} {bound:>7} {proved:>6} {ms:>9.1}")
}

fn search(instance: &Instance, seconds: f64) -> Result<Reached> {
    let start = Instant::now();
    let solution = solve(instance, Model::Integral, &mut || {
        start.elapsed().as_secs_f64() > seconds
    });
    let ms = millis(start);
    validate(instance, Model::Integral, &solution.schedule)?;
    Ok(Reached {
        weight: solution.weight,
        bound: solution.bound,
        ms,
    })
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn instance(kind: Kind, count: usize, seed: u64) -> Result<Instance> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let sizes: Vec<_> = (0..count).map(|_| size(&mut chance, kind)).collect();
    let mean_gap = sizes.iter().sum::<u64>() as f64 / count as f64 / OFFERED_LOAD;
    let mut due = 0.0;
    let reservations = sizes.into_iter().map(|size| {
        // Gaps of a Poisson process are exponential.
        due -= mean_gap * (1.0 - chance.random::<f64>()).ln();
        let weight = match kind {
            Kind::Paper => 1,
            Kind::General => chance.random_range(1..=WEIGHT_MAX),
        };
        Reservation::new(size, due as u64, weight)
    });
    Ok(Instance::new(CAPACITY_GB, reservations.collect())?)
}

fn size(chance: &mut ChaCha8Rng, kind: Kind) -> u64 {
    match kind {
        Kind::Paper => PAPER_SIZES_GB[chance.random_range(0..PAPER_SIZES_GB.len())],
        Kind::General => chance.random_range(1..=CAPACITY_GB / 2),
    }
}
