//! A run with one fault in the middle: so many agents lost at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mutual_node::config::ready::NodeReady;
use mutual_node::model::identity::NodeId;
use mutual_node::model::ids::JobId;
use rustix::process::Signal;
use serde::Serialize;

use super::eof::Eofs;
use super::evidence::Execution;
use super::field::Field;
use super::judge::Verdict;
use super::link::Link;
use super::recovery::{Fault, How, Recovery};
use super::times::Times;
use super::traffic::{Reading, Traffic};
use super::{baseline, unix_us};
use crate::cloud::Process;
use crate::failure::{Failure, Outcome};

/// How long the cloud is left alone to measure what it says without work.
const QUIET: Duration = Duration::from_secs(5);
/// The fault comes when this share of the tasks is over: the first ones began together.
const MOMENT: f64 = 0.25;
/// After the fault the machine is left to the cloud for a while.
const LEFT_ALONE: Duration = Duration::from_secs(2);
/// Between the baseline's deaths and the fault.
const PAUSE: Duration = Duration::from_secs(1);
/// A task that said something within this time lives, as far as can be seen.
const HEARD_US: u64 = 1_000_000;

/// What one run gave.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) verdict: Verdict,
    pub(crate) recovery: Recovery,
    /// Idle processes of an agent's size, killed in the same number shortly before: from the kill
    /// to the end of their connections.
    pub(crate) baseline: Option<Times>,
    pub(crate) agent_mib: u64,
    /// Slots that nobody used when the agents were lost, on those that were not.
    pub(crate) free_slots: usize,
    pub(crate) started_in_s: f64,
    pub(crate) quiet: Traffic,
    pub(crate) at_work: Traffic,
}

impl Run {
    /// For whoever watches.
    pub(crate) fn line(&self) -> String {
        let Verdict {
            tasks,
            succeeded,
            overlaps,
            violations,
            ..
        } = &self.verdict;
        let p95 = |times: &Option<Times>| {
            let ms = times.as_ref().map(|times| times.p95_s * 1e3);
            ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"))
        };
        let Recovery {
            lost,
            held,
            runs,
            eof,
            ..
        } = &self.recovery;
        let words = violations
            .iter()
            .map(|violation| format!("\n  VIOLATION: {violation}"));
        format!(
            "{succeeded} of {tasks} succeeded, {overlaps} overlaps, {lost} lost; \
             p95 ms: held {}, runs {}, kernel {}, baseline {}{}",
            p95(held),
            p95(runs),
            p95(eof),
            p95(&self.baseline),
            words.collect::<String>()
        )
    }
}

/// So many agents lost at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike<'a> {
    pub(crate) how: How,
    pub(crate) agents: usize,
    /// When those that are not dead come back.
    pub(crate) back_after: Duration,
    /// What is cut, if it is a link.
    pub(crate) link: Option<&'a Link>,
}

impl Strike<'_> {
    pub(crate) async fn perform(self, field: &mut Field<'_>) -> Outcome<Run> {
        let nodes = field.cloud.nodes().count();
        let quiet = Reading::now()?;
        tokio::time::sleep(QUIET).await;
        let begun = Reading::now()?;
        let moment = (field.setting.tasks as f64 * MOMENT) as usize;
        field.until(|watch| watch.over() >= moment).await?;
        let at_work = begun.until(Reading::now()?, nodes);
        let agent_mib = agent_mib(field.cloud.agents())?;
        let baseline = self.baseline(agent_mib).await?;
        let fault = self.hit(field).await?;
        tokio::time::sleep(LEFT_ALONE).await;
        self.mend(field, &fault).await?;
        field.finish().await?;
        let at_us = fault.at_us;
        let account = field.account(vec![fault]).await?;
        let recovery = Recovery::of(&account.faults[0], &account);
        let used = running_at(at_us, &account.executions).saturating_sub(recovery.lost_running);
        let slots = (field.setting.agents - self.agents) * field.setting.slots as usize;
        Ok(Run {
            verdict: Verdict::of(&account, &field.watch),
            recovery,
            baseline,
            agent_mib,
            free_slots: slots.saturating_sub(used),
            started_in_s: field.started_in.as_secs_f64(),
            quiet: quiet.until(begun, nodes),
            at_work,
        })
    }

    /// Only deaths have one.
    async fn baseline(self, mib: u64) -> Outcome<Option<Times>> {
        if self.how != How::Killed {
            return Ok(None);
        }
        let times = baseline::measure(self.agents, mib).await?;
        tokio::time::sleep(PAUSE).await;
        Ok(times)
    }

    async fn hit(self, field: &mut Field<'_>) -> Outcome<Fault> {
        let names = match self.how {
            How::Cut => first(field.cloud.agents(), self.agents),
            How::Killed | How::Silenced => victims(field.cloud.agents(), self.agents)?,
        };
        match self.how {
            How::Killed => kill(field, &names).await,
            How::Silenced => stop(field, &names),
            How::Cut => {
                let nodes = nodes(field, &names)?;
                let at_us = unix_us();
                self.link()?.cut()?;
                Ok(unheard(self.how, at_us, nodes))
            }
        }
    }

    fn link(&self) -> Outcome<&Link> {
        self.link.ok_or_else(|| Failure::internal("no link to cut"))
    }

    /// Brings those back that are not dead, in time.
    async fn mend(self, field: &mut Field<'_>, fault: &Fault) -> Outcome {
        if self.how == How::Killed {
            return Ok(());
        }
        let since = Instant::now();
        while since.elapsed() + LEFT_ALONE < self.back_after {
            field.step().await?;
        }
        match self.how {
            How::Cut => self.link()?.mend(),
            _ => go_on(field, fault),
        }
    }
}

/// SIGKILL to all of them at once.
pub(crate) async fn kill(field: &mut Field<'_>, names: &[String]) -> Outcome<Fault> {
    let mut eofs = Eofs::default();
    let nodes = nodes(field, names)?;
    for (number, name) in names.iter().enumerate() {
        let ready = field.cloud.process(name)?.ready();
        let ready = ready.ok_or_else(|| Failure::internal("an agent that is not ready"))?;
        eofs.dial(number, door(ready)?).await?;
    }
    let at_us = unix_us();
    for name in names {
        field.cloud.process(name)?.kill()?;
    }
    let ends = eofs.all().await?;
    let agents = nodes.into_iter().enumerate();
    let agents = agents.map(|(number, node)| (node, ends.get(&number).copied()));
    Ok(Fault {
        how: How::Killed,
        at_us,
        agents: agents.collect(),
    })
}

/// SIGSTOP to the agents alone: their tasks are processes of their own.
fn stop(field: &mut Field<'_>, names: &[String]) -> Outcome<Fault> {
    let nodes = nodes(field, names)?;
    let at_us = unix_us();
    for name in names {
        field.cloud.process(name)?.signal(Signal::STOP)?;
    }
    Ok(unheard(How::Silenced, at_us, nodes))
}

fn go_on(field: &mut Field<'_>, fault: &Fault) -> Outcome {
    let names: Vec<_> = fault
        .agents
        .keys()
        .map(|node| field.cloud.name_of(node))
        .collect();
    for name in names {
        field.cloud.process(&name)?.signal(Signal::CONT)?;
    }
    Ok(())
}

fn unheard(how: How, at_us: u64, nodes: Vec<NodeId>) -> Fault {
    let agents = nodes.into_iter().map(|node| (node, None)).collect();
    Fault { how, at_us, agents }
}

fn nodes(field: &mut Field<'_>, names: &[String]) -> Outcome<Vec<NodeId>> {
    let node = |name: &String| {
        let ready = field.cloud.process(name)?.ready().map(|ready| ready.node);
        ready.ok_or_else(|| Failure::internal(format!("{name} is not ready")))
    };
    names.iter().map(node).collect()
}

/// Executions that were under way at a moment.
fn running_at(at_us: u64, executions: &BTreeMap<JobId, Vec<Execution>>) -> usize {
    let lives = |run: &&Execution| {
        let until = run.ended_us.unwrap_or(run.alive_us() + HEARD_US);
        run.began_us <= at_us && until > at_us
    };
    executions.values().flatten().filter(lives).count()
}

/// Those that live beyond the link.
fn first(agents: &[Process], count: usize) -> Vec<String> {
    let names = agents.iter().map(|agent| agent.name.clone());
    names.take(count).collect()
}

/// Agents that are processes of their own, by chance.
pub(crate) fn victims(agents: &[Process], count: usize) -> Outcome<Vec<String>> {
    let alone: Vec<_> = agents
        .iter()
        .filter(|agent| agent.members.len() == 1)
        .collect();
    if alone.len() < count {
        let have = alone.len();
        let words = format!("{count} agents are to be lost, and {have} are processes of their own");
        return Err(Failure::user(words));
    }
    let chosen = rand::seq::index::sample(&mut rand::rng(), alone.len(), count);
    Ok(chosen
        .into_iter()
        .map(|at| alone[at].name.clone())
        .collect())
}

/// The agent's HTTP address.
fn door(ready: &NodeReady) -> Outcome<SocketAddr> {
    let url = ready.agent_url.as_deref().unwrap_or_default();
    let address = url.strip_prefix("http://").unwrap_or(url).parse();
    address.map_err(|_| Failure::internal(format!("the agent's address {url:?} is no address")))
}

/// What an agent has resident, in the middle of them all.
fn agent_mib(agents: &[Process]) -> Outcome<u64> {
    let alone = agents.iter().filter(|agent| agent.members.len() == 1);
    let sizes = alone.map(|agent| baseline::resident_mib(agent.pid()));
    let mut sizes = sizes.collect::<Outcome<Vec<_>>>()?;
    sizes.sort_unstable();
    Ok(sizes.get(sizes.len() / 2).copied().unwrap_or_default())
}
