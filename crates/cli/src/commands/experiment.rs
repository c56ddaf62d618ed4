//! `mutual experiment`: the experiments behind what is claimed, to be repeated by anyone.

use clap::Subcommand;

use crate::args::Session;
use crate::failure::Outcome;

mod staging;

/// Repeat an experiment
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Staging(staging::Args),
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    match &args.command {
        Command::Staging(args) => staging::run(session, args),
    }
}
