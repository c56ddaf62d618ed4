//! The shim alone, for tests and for embedders whose own binary cannot dispatch to it. `mutual shim` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The first argument is `shim`, as it is for `mutual`.
    mutual_node::runtime::shim::main(std::env::args_os().skip(2))
}
