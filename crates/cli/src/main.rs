//! `mutual`: the one program of Mutual Cloud, for users and for every role of a node.
//!
//! One file per command under `commands`; what they share stands beside: the [`client`] that speaks
//! to the cloud, the user's [`context`], the [`job_draft`] that flags and job files fill, and the
//! [`output`]. The container shim is dispatched before anything else, because it must fork while
//! the process has one thread.

mod args;
mod client;
mod cloud;
mod commands;
mod context;
mod document;
mod failure;
mod job_draft;
mod organisation;
mod output;
mod scratch;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::{Failure, Kind, Outcome};

/// Worker threads of the runtime: enough to keep two cores busy, few enough to stay small.
const WORKERS_MAX: usize = 4;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == "shim") {
        return mutual_node::runtime::shim::main(arguments);
    }
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => usage(&error),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    match error.use_stderr() {
        true => ExitCode::from(Kind::User.exit_code()),
        false => ExitCode::SUCCESS,
    }
}

fn run(cli: Cli) -> ExitCode {
    let session = cli.session();
    start_tracing(session.verbose);
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(cli.run(&session));
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            session.output.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, WORKERS_MAX))
        .enable_all()
        .build()
        .map_err(Failure::internal)
}

/// `RUST_LOG` decides; without it, `-v` and `-vv` do.
fn start_tracing(verbose: u8) {
    let default = match verbose {
        0 => "error",
        1 => "warn,mutual=info,mutual_node=info",
        _ => "info,mutual=debug,mutual_node=debug,mutual_demand=debug,mutual_data=debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A file or a journal wants no colours.
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
