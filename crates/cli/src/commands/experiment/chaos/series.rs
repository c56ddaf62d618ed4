//! The repeats of one run.

use super::field;
use super::load::{Load, Options};
use super::report::Row;
use super::run::Strike;
use crate::args::Session;
use crate::failure::Outcome;

/// What is repeated.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    pub(crate) agents: usize,
    pub(crate) tasks: usize,
    pub(crate) load: Load,
    pub(crate) strike: Strike<'a>,
    /// What p95 shall not exceed, if there is a goal.
    pub(crate) bar_s: Option<f64>,
}

impl Series<'_> {
    pub(crate) async fn run(self, session: &Session, options: &Options) -> Outcome<Row> {
        let Self {
            agents,
            load,
            strike,
            ..
        } = self;
        let mut setting = load.setting(agents, self.tasks, options);
        setting.link = strike.link.map(|link| link.beyond(strike.agents));
        let mut runs = Vec::new();
        for repeat in 1..=options.repeat {
            let run =
                field::on(session, &setting, async |field| strike.perform(field).await).await?;
            session.output.note(format!(
                "{} of {agents} agents {}, {}, {repeat} of {}: {}",
                strike.agents,
                strike.how.name(),
                load.name(),
                options.repeat,
                run.line()
            ));
            runs.push(run);
        }
        Ok(Row {
            agents,
            how: strike.how,
            lost_agents: strike.agents,
            setting: load,
            bar_s: self.bar_s,
            runs,
        })
    }
}
