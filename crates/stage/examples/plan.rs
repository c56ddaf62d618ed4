//! How many reservations a stage serves, by algorithm and by size of the stage.
//!
//! The experiment of INFOCOM 2010: 369 reservations with due dates from a Poisson process, images of 3, 10 or 30 GB with equal chance, a link of 1 GB/s, all weights
//! equal. The paper does not give the rate; here the link is asked for 1.47 times what it can bring.
//!
//! ```sh
//! cargo run --release --package mutual-stage --example plan
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use mutual_stage::baseline::{backward_edd, forward_edd};
use mutual_stage::integral::{self, Half};
use mutual_stage::{Instance, Model, Reservation, continuous, validate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const RESERVATIONS: usize = 369;
const SIZES_GB: [u64; 3] = [3, 10, 30];
/// Work asked for in a second over work the link does in a second.
const OFFERED_LOAD: f64 = 1.47;
const SEEDS: u64 = 12;
/// Sizes are in megabytes and the link brings one in a millisecond, so that times are in milliseconds.
const MB_PER_GB: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "reservations served, in % of {RESERVATIONS}, mean of {SEEDS} seeds; integral model but for the last column"
    );
    println!("stage GB  backward EDD  forward EDD  half  approximate  continuous optimum");
    for capacity_gb in [40, 70, 100] {
        let mut sums = [0.0; 5];
        for seed in 0..SEEDS {
            let served = served(&instance(seed, capacity_gb)?)?;
            for (sum, count) in sums.iter_mut().zip(served) {
                *sum += 100.0 * count as f64 / (RESERVATIONS as f64 * SEEDS as f64);
            }
        }
        let [backward, forward, half, approximate, optimum] = sums;
        println!(
            "{capacity_gb:>8}  {backward:>12.1}  {forward:>11.1}  {half:>4.1}  {approximate:>11.1}  {optimum:>18.1}"
        );
    }
    Ok(())
}

/// How many each algorithm serves; each schedule is validated before it counts.
fn served(instance: &Instance) -> Result<[u128; 5], Box<dyn Error>> {
    let model = Model::Integral;
    let schedules = [
        backward_edd(instance, model)?,
        forward_edd(instance, model)?,
        integral::half(instance, Half::FromLeft)?.schedule,
        integral::approximate(instance)?.schedule,
    ];
    let mut counts = [0; 5];
    for (count, schedule) in counts.iter_mut().zip(&schedules) {
        validate(instance, model, schedule)?;
        *count = schedule.weight(instance);
    }
    let optimum = continuous::most(instance)?;
    validate(instance, Model::Continuous, &optimum.schedule)?;
    counts[4] = optimum.weight;
    Ok(counts)
}

fn instance(seed: u64, capacity_gb: u64) -> Result<Instance, Box<dyn Error>> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mean_size_gb = SIZES_GB.iter().sum::<u64>() as f64 / SIZES_GB.len() as f64;
    let mean_gap_ms = mean_size_gb * MB_PER_GB as f64 / OFFERED_LOAD;
    let mut due_ms = 0.0;
    let reservations = (0..RESERVATIONS).map(|_| {
        // Gaps of a Poisson process are exponential: minus the logarithm of a uniform number.
        due_ms -= mean_gap_ms * (1.0 - chance.random::<f64>()).ln();
        let size_gb = SIZES_GB[chance.random_range(0..SIZES_GB.len())];
        Reservation::new(size_gb * MB_PER_GB, due_ms as u64, 1)
    });
    Ok(Instance::new(
        capacity_gb * MB_PER_GB,
        reservations.collect(),
    )?)
}
