//! `cargo xtask test`: install what the tests need, run all of them, end with the runner's own summary.

mod system;

use anyhow::{Result, bail};
use xshell::Cmd;

use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// Part of the name of every test that starts process clusters, containers or PostgreSQL.
const HEAVY_FILTER: &str = "test(/(^|::)heavy(::|_)/)";
/// The same for the plain runner, which knows substrings only.
const HEAVY_WORD: &str = "heavy";

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only the tests that start process clusters, containers or PostgreSQL
    #[arg(long, conflicts_with = "light")]
    heavy_only: bool,
    /// Leave those out: nothing is installed but the test runner
    #[arg(long)]
    light: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Selection {
    All,
    Heavy,
    Light,
}

impl Args {
    fn selection(&self) -> Selection {
        match (self.heavy_only, self.light) {
            (true, _) => Selection::Heavy,
            (_, true) => Selection::Light,
            _ => Selection::All,
        }
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let selection = args.selection();
    let skips = if selection == Selection::Light {
        Vec::new()
    } else {
        system::provide(&workspace.shell)
    };
    for skip in &skips {
        println!(
            "SKIPPED {}: {} ({}=1)",
            skip.what, skip.affects, skip.variable
        );
    }
    let environment: Vec<_> = skips.iter().map(|skip| (skip.variable, "1")).collect();
    if let Err(error) = tools::ensure(workspace, Tool::Nextest) {
        println!("{error:#}; running the tests with plain `cargo test` instead");
        return plain(workspace, selection, &environment);
    }
    nextest(workspace, selection, &environment)
}

/// Documentation tests come first, so that the last line is the summary of all other tests.
fn nextest(
    workspace: &Workspace,
    selection: Selection,
    environment: &[(&str, &str)],
) -> Result<()> {
    let docs = if selection == Selection::Heavy {
        Ok(())
    } else {
        with_environment(workspace.cargo(), environment)
            .args(["test", "--workspace", "--doc", "--no-fail-fast"])
            .run()
    };
    let tests = with_environment(workspace.cargo(), environment)
        .args(["nextest", "run", "--workspace"])
        .args(nextest_filter(selection))
        .run();
    docs?;
    Ok(tests?)
}

fn nextest_filter(selection: Selection) -> Vec<String> {
    match selection {
        Selection::All => Vec::new(),
        Selection::Heavy => vec!["-E".into(), HEAVY_FILTER.into()],
        Selection::Light => vec!["-E".into(), format!("not {HEAVY_FILTER}")],
    }
}

/// The same tests without the better runner: light ones in parallel, heavy ones one by one.
fn plain(workspace: &Workspace, selection: Selection, environment: &[(&str, &str)]) -> Result<()> {
    let heavy = ["--", HEAVY_WORD, "--test-threads=1"];
    let light = ["--", "--skip", HEAVY_WORD];
    let rounds: &[&[&str]] = match selection {
        Selection::All => &[&heavy, &light],
        Selection::Heavy => &[&heavy],
        Selection::Light => &[&light],
    };
    let mut failed = false;
    for round in rounds {
        let result = with_environment(workspace.cargo(), environment)
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(*round)
            .run();
        failed |= result.is_err();
    }
    if failed {
        bail!("some tests failed: see above");
    }
    Ok(())
}

fn with_environment<'a>(command: Cmd<'a>, environment: &[(&str, &str)]) -> Cmd<'a> {
    command.envs(environment.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_heavy_group_is_the_one_selected_here() {
        let config = include_str!("../../.config/nextest.toml");
        assert!(config.contains(&format!("filter = '{HEAVY_FILTER}'")));
    }

    #[test]
    fn light_is_the_complement_of_heavy() {
        assert_eq!(nextest_filter(Selection::Heavy), ["-E", HEAVY_FILTER]);
        assert_eq!(
            nextest_filter(Selection::Light),
            ["-E".to_owned(), format!("not {HEAVY_FILTER}")]
        );
        assert!(nextest_filter(Selection::All).is_empty());
    }
}
