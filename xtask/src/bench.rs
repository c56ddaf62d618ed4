//! `cargo xtask bench`: the figures of the README, each measured beside what it is compared with.
//!
//! A bench is an example of the crate whose work it measures, built for release. It prints its own table; this command
//! adds what a reader needs to repeat it: the machine and the command line.

use std::time::Instant;

use anyhow::Result;

use crate::machine;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    bench: Bench,
    /// Arguments for the bench itself, after `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Bench {
    /// Durable submit, claim and finish per second, beside the raw SQL of the same commits
    Claims,
    /// A container from start to exit, beside runc and plain fork and exec
    Container,
    /// One gibibyte from peer to peer, beside cp and a plain TCP copy
    Transfer,
    /// All of them, one after the other
    All,
}

impl Bench {
    /// The package and example behind each bench.
    fn examples(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Claims => &[("mutual-demand", "claims")],
            Self::Container => &[("mutual-node", "container")],
            Self::Transfer => &[("mutual-node", "transfer")],
            Self::All => &[
                ("mutual-demand", "claims"),
                ("mutual-node", "container"),
                ("mutual-node", "transfer"),
            ],
        }
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    println!("on {}", machine::line());
    for (package, example) in args.bench.examples() {
        let start = Instant::now();
        let command = [
            "run",
            "--release",
            "--package",
            package,
            "--example",
            example,
            "--",
        ];
        workspace
            .cargo()
            .args(command)
            .args(&args.arguments)
            .run()?;
        println!(
            "{example} took {:.1} s, build included\n",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
