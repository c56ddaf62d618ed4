//! `mutual experiment`: the experiments behind what is claimed, to be repeated by anyone.

use clap::Subcommand;

use crate::args::Session;
use crate::failure::Outcome;

mod chaos;
mod faults;
mod scale;
mod spof;
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
    Scale(scale::Args),
    Faults(faults::Args),
    Spof(spof::Args),
    Idle(chaos::baseline::Args),
}

/// The number is the process's exit code.
pub(crate) async fn run(session: &Session, args: &Args) -> Outcome<u8> {
    match &args.command {
        Command::Staging(args) => staging::run(session, args).map(|()| 0),
        Command::Scale(args) => scale::run(session, args).await,
        Command::Faults(args) => faults::run(session, args).await,
        Command::Spof(args) => spof::run(session, args).await,
        Command::Idle(args) => chaos::baseline::idle(args).map(|()| 0),
    }
}
