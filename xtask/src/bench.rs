//! `cargo xtask bench`: the figures of the README, each measured beside what it is compared with.
//!
//! A bench is an example of the crate whose work it measures, or a measurement of the `mutual` program by itself; all are built for release.
//! `milp` is a package of its own in `bench/`, so that nothing else has to build HiGHS.
//! It prints its own table; this command adds what a reader needs to repeat it: the machine and the command line.

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
    /// From an accepted submission to its assignment and to its first instruction
    Latency,
    /// Memory and processor time of an agent without work
    Idle,
    /// Planning what to stage: times with their growth, memory, proofs and bounds
    Staging,
    /// The exact staging search beside HiGHS, which needs CMake, a C++ compiler and libclang, and minutes to build
    Milp,
    /// All of them but `milp`, one after the other
    All,
}

/// Every bench but `all`, and `milp`, which needs more than cargo and a C compiler.
const EACH: [Bench; 6] = [
    Bench::Claims,
    Bench::Container,
    Bench::Transfer,
    Bench::Latency,
    Bench::Idle,
    Bench::Staging,
];

const MILP_NEEDS: &str = "the first build of HiGHS takes minutes; it needs what `apt install cmake g++ libclang-dev` brings";

impl Bench {
    fn chosen(self) -> Vec<Self> {
        if self == Self::All {
            EACH.to_vec()
        } else {
            vec![self]
        }
    }

    /// What cargo is to run, and with which first arguments.
    fn target(self) -> &'static [&'static str] {
        match self {
            Self::Claims => &["--package", "mutual-demand", "--example", "claims", "--"],
            Self::Container => &["--package", "mutual-node", "--example", "containers", "--"],
            Self::Transfer => &["--package", "mutual-node", "--example", "transfer", "--"],
            Self::Latency => &["--", "measure", "latency"],
            Self::Idle => &["--", "measure", "idle"],
            Self::Staging => &["--", "stage", "bench"],
            Self::Milp => &["--manifest-path", "bench/Cargo.toml", "--"],
            Self::All => &[],
        }
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    println!("on {}", machine::line());
    if args.bench == Bench::Milp {
        println!("{MILP_NEEDS}");
    }
    for bench in args.bench.chosen() {
        let start = Instant::now();
        let command = workspace
            .cargo()
            .args(["run", "--release"])
            .args(bench.target());
        command.args(&args.arguments).run()?;
        println!(
            "took {:.1} s, build included\n",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
