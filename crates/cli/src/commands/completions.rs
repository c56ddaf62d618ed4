//! `mutual completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::{Cli, Session};
use crate::failure::{Failure, Outcome};

/// Print the completions of a shell
///
/// For bash: mutual completions bash > ~/.local/share/bash-completion/completions/mutual
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mutual", &mut script);
    let script = String::from_utf8(script).map_err(Failure::internal)?;
    let document = serde_json::json!({ "shell": args.shell.to_string(), "script": script });
    session
        .output
        .answer(&document, || script.trim_end().to_owned());
    Ok(())
}
