//! What a developer of Mutual Cloud runs: tests, the checks of continuous integration, tidiness and benches.
//!
//! Plain Rust instead of shell scripts, so that the commands work from a fresh clone with only cargo at hand.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool reports on its standard output"
)]

mod bench;
mod ci;
mod machine;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "What a developer of Mutual Cloud runs",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, then run all of them
    Test(test::Args),
    /// Everything continuous integration runs, step by step, with times and one summary
    Ci(ci::Args),
    /// The rules that neither rustc nor clippy knows: crate arrows, sizes, names, reasons
    Tidy(tidy::Args),
    /// Measure, as release builds, with the spread of each figure and the machine it was seen on
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cli = Cli::parse();
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Test(args) => test::run(&workspace, &args),
        Command::Ci(args) => ci::run(&workspace, &args),
        Command::Tidy(args) => tidy::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
    }
}

/// The names of this tool's own commands, so that the README can be held against them.
fn command_names() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect()
}
