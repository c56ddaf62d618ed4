//! Start to exit of `true`: our container, our process class, `runc run`, and plain fork and exec, in turn.
//!
//! `cargo run --release -p mutual-node --example containers [ROUNDS]`

use std::ffi::OsString;
use std::process::ExitCode;

use mutual_node::runtime::{bench, shim};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == "shim") {
        return shim::main(args.skip(1));
    }
    let rounds = args
        .next()
        .as_ref()
        .and_then(|text: &OsString| text.to_str()?.parse().ok());
    match measure(rounds.unwrap_or(100)) {
        Ok(report) => {
            eprint!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: usize) -> Result<bench::Report, bench::BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bench::containers(rounds))
}
