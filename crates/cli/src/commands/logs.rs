//! `mutual logs JOB`: what a task printed, from its machine while it runs, from the stored log after.

use mutual_node::model::ids::JobId;

use crate::args::Session;
use crate::client::Client;
use crate::client::follow::{Follower, Line};
use crate::commands::run::show_line;
use crate::failure::Outcome;

/// Print what a task wrote to its standard output and standard error
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    job: JobId,
    /// Go on until the task is over
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    let mut follower = Follower::new(&client, args.job);
    let mut show = |line: &Line| show_line(session.output, None, line);
    match args.follow {
        true => follower.run(&mut show).await.map(drop),
        false => follower.print_once(&mut show).await,
    }
}
