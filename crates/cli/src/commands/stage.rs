//! `mutual stage`: plan, check, make and measure staging instances in files, without a cloud.

use clap::Subcommand;

use crate::args::Session;
use crate::failure::Outcome;

mod algorithm;
mod answer;
mod bench;
mod check;
mod file;
mod generate;
pub(super) mod picture;
mod plot;
mod solve;

pub(super) use generate::poisson;

/// Plan which images are loaded onto a site's stage, and when
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Solve(solve::Args),
    Check(check::Args),
    Gen(generate::Args),
    Bench(bench::Args),
}

/// The number is the process's exit code.
pub(crate) fn run(session: &Session, args: Args) -> Outcome<u8> {
    match args.command {
        Command::Solve(args) => solve::run(session, &args).map(|()| 0),
        Command::Check(args) => check::run(session, &args),
        Command::Gen(args) => generate::run(&args).map(|()| 0),
        Command::Bench(args) => bench::run(session, &args).map(|()| 0),
    }
}
