//! Plays the virtual cloud of one seed and tells its story, or of many and names those that fail.
//!
//! ```sh
//! cargo run -p mutual-sim --example cloud -- 17         # what happened in seed 17
//! cargo run -p mutual-sim --example cloud -- 0 10000    # which of 10,000 seeds fail
//! ```

#![expect(clippy::print_stdout, reason = "an example speaks")]

use std::time::Instant;

use anyhow::Context as _;
use mutual_sim::cloud;

fn main() -> anyhow::Result<()> {
    let numbers = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>());
    let numbers: Vec<u64> = numbers
        .collect::<Result<_, _>>()
        .context("give SEED or FIRST COUNT")?;
    match numbers[..] {
        [seed] => println!("{}", cloud::report(seed, usize::MAX)?),
        [first, count] => play_many(first, count)?,
        _ => anyhow::bail!("give SEED or FIRST COUNT"),
    }
    Ok(())
}

fn play_many(first: u64, count: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut failed, mut steps) = (0, 0);
    for seed in first..first.saturating_add(count) {
        let outcome = cloud::World::new(seed, None)?.run()?;
        steps += outcome.steps;
        if let Err(violations) = outcome.verdict {
            failed += 1;
            println!("seed {seed}: {}", violations[0]);
        }
    }
    println!(
        "{count} seeds, {steps} steps, {failed} failed, {:?}",
        begun.elapsed()
    );
    Ok(())
}
