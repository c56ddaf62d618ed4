//! `cargo xtask ci`: everything continuous integration runs, step by step, with times and one summary.
//!
//! The order shares builds: clippy leaves checked dependencies behind for the documentation, the tests build the
//! debug profile once; the demo is one of them. A failed step does not hide the next one's verdict.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::tools::{self, Tool};
use crate::workspace::Workspace;
use crate::{machine, test, tidy};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the named steps, in the usual order (repeatable)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

/// How a step that did not fail ended.
enum Verdict {
    Passed,
    /// Passed, but a part of it could not be done here.
    PassedWithout(&'static str),
}

struct Step {
    name: &'static str,
    run: fn(&Workspace) -> Result<Verdict>,
}

const STEPS: [Step; 6] = [
    Step {
        name: "format",
        run: format,
    },
    Step {
        name: "tidy",
        run: tidiness,
    },
    Step {
        name: "deny",
        run: deny,
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "docs",
        run: docs,
    },
    Step {
        name: "tests",
        run: tests,
    },
];

struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<Verdict>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let steps = chosen(&args.only)?;
    println!("on {}", machine::line());
    // Incremental builds only pay when the same crate is built again.
    workspace.shell.set_var("CARGO_INCREMENTAL", "0");
    let outcomes: Vec<_> = steps
        .into_iter()
        .map(|step| perform(workspace, step))
        .collect();
    summarise(&outcomes)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Step>> {
    let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!(
            "no step is called {unknown}: choose from {}",
            names.join(", ")
        );
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn perform(workspace: &Workspace, step: &Step) -> Outcome {
    println!("\n=== {} ===", step.name);
    let start = Instant::now();
    let result = (step.run)(workspace);
    let took = start.elapsed();
    if let Err(error) = &result {
        println!("{} failed: {error:#}", step.name);
    }
    Outcome {
        name: step.name,
        took,
        result,
    }
}

fn summarise(outcomes: &[Outcome]) -> Result<()> {
    println!("\n=== summary ===");
    for outcome in outcomes {
        let verdict = match &outcome.result {
            Ok(Verdict::Passed) => "passed".to_owned(),
            Ok(Verdict::PassedWithout(missing)) => format!("passed, WITHOUT {missing}"),
            Err(_) => "FAILED".to_owned(),
        };
        println!(
            "{:<8} {:>8}  {verdict}",
            outcome.name,
            minutes(outcome.took)
        );
    }
    let total = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("{:<8} {:>8}", "all", minutes(total));
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_err())
        .map(|outcome| outcome.name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "));
}

/// A duration as `minutes:seconds`.
fn minutes(took: Duration) -> String {
    let seconds = took.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn format(workspace: &Workspace) -> Result<Verdict> {
    let check = ["fmt", "--all", "--check"];
    workspace.cargo().args(check).run()?;
    Ok(Verdict::Passed)
}

fn tidiness(workspace: &Workspace) -> Result<Verdict> {
    tidy::run(workspace, &tidy::Args::default())?;
    Ok(Verdict::Passed)
}

/// The advisory database comes from the network; without it the other checks still count, and the summary says so.
fn deny(workspace: &Workspace) -> Result<Verdict> {
    tools::ensure(workspace, Tool::Deny)?;
    // Warnings of duplicate versions fill pages; `cargo deny check bans` shows them to whoever wants to look.
    let quiet = ["deny", "--log-level", "error"];
    let local = ["check", "bans", "licenses", "sources"];
    workspace.cargo().args(quiet).args(local).run()?;
    if workspace
        .cargo()
        .args(["deny", "fetch", "db"])
        .run()
        .is_err()
    {
        return Ok(Verdict::PassedWithout(
            "advisories: their database could not be fetched",
        ));
    }
    let advisories = ["check", "--disable-fetch", "advisories"];
    workspace.cargo().args(quiet).args(advisories).run()?;
    Ok(Verdict::Passed)
}

fn clippy(workspace: &Workspace) -> Result<Verdict> {
    let strict = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    workspace.cargo().args(strict).run()?;
    Ok(Verdict::Passed)
}

fn docs(workspace: &Workspace) -> Result<Verdict> {
    workspace
        .cargo()
        .args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()?;
    Ok(Verdict::Passed)
}

/// The README's own test command, without a second copy of what it does.
fn tests(workspace: &Workspace) -> Result<Verdict> {
    test::run(workspace, &test::Args::default())?;
    Ok(Verdict::Passed)
}

#[cfg(test)]
mod tests_of_selection {
    use super::*;

    #[test]
    fn steps_keep_their_order_and_unknown_names_are_refused() {
        let only = ["docs".to_owned(), "format".to_owned()];
        let steps = chosen(&only).unwrap();
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        assert_eq!(names, ["format", "docs"]);
        assert!(chosen(&["lint".to_owned()]).is_err());
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn times_read_as_minutes_and_seconds() {
        assert_eq!(minutes(Duration::from_millis(61_900)), "1:01");
        assert_eq!(minutes(Duration::from_secs(3600)), "60:00");
    }
}
