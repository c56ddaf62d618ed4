//! One run: work, a death, and what is dead comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mutual_node::model::job::JobState;
use serde::Serialize;

use super::What;
use crate::cloud::postgres::Pair;
use crate::commands::experiment::chaos::field::Field;
use crate::commands::experiment::chaos::judge::Verdict;
use crate::commands::experiment::chaos::recovery::{Fault, Recovery};
use crate::commands::experiment::chaos::run::{kill, victims};
use crate::failure::{Failure, Outcome};

/// When something is killed, counted from the submission.
const KILL: Duration = Duration::from_secs(75);
/// When it is started again.
const BACK: Duration = Duration::from_secs(105);
/// How often the states are noted.
const SAMPLE: Duration = Duration::from_secs(1);
/// Agents that die along with control.
const AGENTS: usize = 3;

/// The states at a moment.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub(super) at_s: f64,
    /// How many jobs stand where, as the store said last.
    pub(super) states: BTreeMap<JobState, usize>,
    /// Whether the store answered.
    pub(super) answered: bool,
}

impl Sample {
    pub(super) fn count(&self, states: &[JobState]) -> usize {
        states
            .iter()
            .filter_map(|state| self.states.get(state))
            .sum()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub(super) verdict: Verdict,
    pub(super) killed_s: f64,
    /// When it was there again: started and ready, or promoted.
    pub(super) back_s: f64,
    /// When all were over.
    pub(super) over_s: f64,
    /// Tasks that had succeeded when it was killed, and just before it came back.
    pub(super) succeeded: (usize, usize),
    /// From then on until the next one had.
    pub(super) resumed_after_s: Option<f64>,
    /// Of the agents that died, if any did.
    pub(super) recovery: Option<Recovery>,
    pub(super) samples: Vec<Sample>,
}

impl Run {
    pub(super) fn line(&self) -> String {
        let Verdict {
            tasks,
            succeeded,
            violations,
            ..
        } = &self.verdict;
        let words = violations
            .iter()
            .map(|violation| format!("\n  VIOLATION: {violation}"));
        format!(
            "{succeeded} of {tasks} succeeded; {} when it was killed, {} before it came back{}",
            self.succeeded.0,
            self.succeeded.1,
            words.collect::<String>()
        )
    }
}

/// A run under way.
#[derive(Debug)]
pub(super) struct Play<'a> {
    what: What,
    /// What all times are divided by.
    scale: u32,
    pair: Option<&'a mut Pair>,
    since: Instant,
    samples: Vec<Sample>,
    /// Agents that were killed.
    dead: Vec<String>,
    faults: Vec<Fault>,
}

impl<'a> Play<'a> {
    pub(super) fn new(what: What, scale: u32, pair: Option<&'a mut Pair>) -> Self {
        Self {
            what,
            scale,
            pair,
            since: Instant::now(),
            samples: Vec::new(),
            dead: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) async fn perform(mut self, field: &mut Field<'_>) -> Outcome<Run> {
        self.since = Instant::now();
        self.watch(field, Some(KILL / self.scale)).await?;
        let killed = self.since.elapsed();
        self.kill(field).await?;
        let before = succeeded(field);
        self.watch(field, Some(BACK / self.scale)).await?;
        let meanwhile = succeeded(field);
        self.bring_back(field).await?;
        let back = self.since.elapsed();
        self.watch(field, None).await?;
        let account = field.account(std::mem::take(&mut self.faults)).await?;
        let mut verdict = Verdict::of(&account, &field.watch);
        let goes_on = matches!(self.what, What::Control | What::ControlAndAgents);
        verdict.require(!goes_on || meanwhile > before, || {
            format!("no task succeeded while control was dead: {before} before, {meanwhile} after")
        });
        Ok(Run {
            verdict,
            killed_s: killed.as_secs_f64(),
            back_s: back.as_secs_f64(),
            over_s: self.since.elapsed().as_secs_f64(),
            succeeded: (before, meanwhile),
            resumed_after_s: self.resumed_after_s(back.as_secs_f64(), meanwhile),
            recovery: account
                .faults
                .first()
                .map(|fault| Recovery::of(fault, &account)),
            samples: self.samples,
        })
    }

    /// Notes the states until a time, or until all is over.
    async fn watch(&mut self, field: &mut Field<'_>, until: Option<Duration>) -> Outcome {
        let tasks = field.setting.tasks;
        loop {
            let over = field.watch.over() >= tasks;
            if until.map_or(over, |until| self.since.elapsed() >= until) {
                return Ok(());
            }
            let answered = field.step_after(SAMPLE / self.scale).await?;
            self.samples.push(Sample {
                at_s: self.since.elapsed().as_secs_f64(),
                states: field.watch.counts(),
                answered,
            });
        }
    }

    async fn kill(&mut self, field: &mut Field<'_>) -> Outcome {
        match self.what {
            What::Control => field.cloud.process("control")?.kill().map(drop),
            What::Demand => field.cloud.process("demand")?.kill().map(drop),
            What::Postgres => self.pair()?.kill_primary(),
            What::ControlAndAgents => {
                self.dead = victims(field.cloud.agents(), AGENTS)?;
                field.cloud.process("control")?.kill()?;
                self.faults.push(kill(field, &self.dead).await?);
                Ok(())
            }
        }
    }

    async fn bring_back(&mut self, field: &mut Field<'_>) -> Outcome {
        match self.what {
            What::Control => field.cloud.start_again("control").await,
            What::Demand => field.cloud.start_again("demand").await,
            What::Postgres => self.pair()?.promote(),
            What::ControlAndAgents => {
                field.cloud.start_again("control").await?;
                for agent in &self.dead {
                    field.cloud.start_again(agent).await?;
                }
                Ok(())
            }
        }
    }

    fn pair(&mut self) -> Outcome<&mut Pair> {
        let pair = self.pair.as_deref_mut();
        pair.ok_or_else(|| Failure::internal("no PostgreSQL to kill"))
    }

    /// From when it was back until more tasks had succeeded than before.
    fn resumed_after_s(&self, back_s: f64, before: usize) -> Option<f64> {
        let later = self.samples.iter().filter(|sample| sample.at_s >= back_s);
        let mut more = later.filter(|sample| sample.count(&[JobState::Succeeded]) > before);
        more.next().map(|sample| sample.at_s - back_s)
    }
}

fn succeeded(field: &Field<'_>) -> usize {
    let counts = field.watch.counts();
    counts.get(&JobState::Succeeded).copied().unwrap_or(0)
}
