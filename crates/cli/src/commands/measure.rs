//! `mutual measure`: figures about a small cloud of real processes, for `cargo xtask bench`.
//!
//! The cloud is the demo's: demand, control and three agents on this machine, started in a scratch
//! directory and gone afterwards.

use clap::Subcommand;

use crate::args::Session;
use crate::cloud::Cloud;
use crate::commands::demo;
use crate::commands::node::ended;
use crate::failure::{Failure, Outcome};
use crate::scratch::Scratch;

mod idle;
mod latency;

/// Tasks at once on each agent: more than ever run here.
const SLOTS: u32 = 8;

/// Measure a small cloud on this machine
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Keep the scratch directory, with the processes' logs
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From an accepted submission to its assignment and to its first instruction
    Latency(latency::Args),
    /// Memory and processor time of agents without work
    Idle(idle::Args),
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let scratch = Scratch::new("mutual-measure-")?;
    let mut cloud = demo::cloud(&scratch, SLOTS)?;
    let outcome = tokio::select! {
        outcome = measure(session, &mut cloud, args.what) => outcome,
        _ = ended() => Err(Failure::interrupted("interrupted; everything is cleaned up")),
    };
    let outcome = outcome.map_err(|failure| cloud.explain(failure));
    cloud.stop().await;
    demo::clean_up(session, scratch, args.keep);
    outcome
}

async fn measure(session: &Session, cloud: &mut Cloud, what: What) -> Outcome {
    cloud.start().await?;
    match what {
        What::Latency(args) => latency::run(session, cloud, &args).await,
        What::Idle(args) => idle::run(session, cloud, &args).await,
    }
}
