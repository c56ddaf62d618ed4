//! The command line: global options, commands, and how they reach their files.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::client::Places;
use crate::commands::{
    cancel, checkpoint, completions, demo, experiment, explain, get, image, logs, ls, measure,
    node, nodes, org, run, show, stage, store, submit, up,
};
use crate::failure::{EXIT_CODES, Outcome};
use crate::output::Output;

/// Pool the machines you already own: submit a task, some idle machine runs it, the result comes
/// back by its content address, and no machine is in charge.
#[derive(Debug, Parser)]
#[command(name = "mutual", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,

    /// The context file [default: ~/.config/mutual/context.toml, else the one of `mutual up`]
    #[arg(long, global = true, value_name = "FILE", env = "MUTUAL_CONTEXT")]
    context: Option<PathBuf>,

    /// Say on standard error what happens inside; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Up(up::Args),
    Node(node::Args),
    Run(Box<run::Args>),
    Submit(Box<submit::Args>),
    Ls(ls::Args),
    Show(show::Args),
    Logs(logs::Args),
    Get(get::Args),
    Cancel(cancel::Args),
    Checkpoint(checkpoint::Args),
    Nodes(nodes::Args),
    Explain(explain::Args),
    Image(image::Args),
    Org(org::Args),
    Store(store::Args),
    Stage(stage::Args),
    Experiment(experiment::Args),
    Completions(completions::Args),
    Measure(measure::Args),
}

/// What every command gets.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) output: Output,
    pub(crate) context: Option<PathBuf>,
    pub(crate) verbose: u8,
    /// Left when the command is over.
    pub(crate) places: Places,
}

impl Cli {
    /// Global options, for the command and for whoever reports its failure.
    pub(crate) fn session(&self) -> Session {
        Session {
            output: Output::new(self.json),
            context: self.context.clone(),
            verbose: self.verbose,
            places: Places::default(),
        }
    }

    /// Runs the command and takes leave of the network; the number is the process's exit code.
    pub(crate) async fn run(self, session: &Session) -> Outcome<u8> {
        let outcome = self.obey(session).await;
        session.places.leave().await;
        outcome
    }

    async fn obey(self, session: &Session) -> Outcome<u8> {
        let done = |outcome: Outcome| outcome.map(|()| 0);
        match self.command {
            Command::Demo(args) => demo::run(session, args).await,
            Command::Up(args) => done(up::run(session, args).await),
            Command::Node(args) => done(node::run(session, args).await),
            Command::Run(args) => run::run(session, *args).await,
            Command::Submit(args) => done(submit::run(session, *args).await),
            Command::Ls(args) => done(ls::run(session, args).await),
            Command::Show(args) => done(show::run(session, args).await),
            Command::Logs(args) => done(logs::run(session, args).await),
            Command::Get(args) => done(get::run(session, args).await),
            Command::Cancel(args) => done(cancel::run(session, args).await),
            Command::Checkpoint(args) => done(checkpoint::run(session, args).await),
            Command::Nodes(args) => done(nodes::run(session, args).await),
            Command::Explain(args) => done(explain::run(session, args).await),
            Command::Image(args) => done(image::run(session, args).await),
            Command::Org(args) => done(org::run(session, args).await),
            Command::Store(args) => done(store::run(session, args).await),
            Command::Measure(args) => done(measure::run(session, args).await),
            Command::Stage(args) => stage::run(session, args),
            Command::Experiment(args) => experiment::run(session, &args).await,
            Command::Completions(args) => done(completions::run(session, &args)),
        }
    }
}
