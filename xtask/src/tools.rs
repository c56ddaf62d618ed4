//! Cargo subcommands that the checks need, installed when they are missing.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;

/// A cargo subcommand that comes as its own crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tool {
    /// The test runner that gives every test its own process and a time limit.
    Nextest,
    /// Licences, bans, sources and advisories of all dependencies.
    Deny,
}

impl Tool {
    fn subcommand(self) -> &'static str {
        match self {
            Self::Nextest => "nextest",
            Self::Deny => "deny",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Nextest => "cargo-nextest",
            Self::Deny => "cargo-deny",
        }
    }

    /// Leaves out what only matters outside of cargo, which halves the build.
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Nextest => &["--no-default-features", "--features", "default-no-update"],
            Self::Deny => &[],
        }
    }
}

/// Whether cargo already finds the tool.
pub(crate) fn present(workspace: &Workspace, tool: Tool) -> bool {
    workspace
        .cargo()
        .args([tool.subcommand(), "--version"])
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
}

/// Installs the tool with cargo unless it is there.
///
/// Built with little optimisation: such a tool waits for compilers and tests, and a cold machine waits for it.
pub(crate) fn ensure(workspace: &Workspace, tool: Tool) -> Result<()> {
    if present(workspace, tool) {
        return Ok(());
    }
    println!("{} is missing: installing it with cargo", tool.package());
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let (package, features) = (tool.package(), tool.features());
    cmd!(
        workspace.shell,
        "{cargo} install --locked {package} {features...}"
    )
    .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
    .env("CARGO_PROFILE_RELEASE_LTO", "off")
    .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
    .run()
    .with_context(|| format!("cannot install {package}"))
}
