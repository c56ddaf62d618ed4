//! How fast the work of lost agents went on elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use mutual_node::demand::{Attempt, JobView};
use mutual_node::model::identity::NodeId;
use serde::Serialize;

use super::evidence::Execution;
use super::judge::Account;
use super::seconds_between;
use super::times::Times;

/// The store dates claims in whole milliseconds and cuts: a claim may be this much later.
const STORE_TICK_US: u64 = 1_000;

/// How agents are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// Their processes are killed, with SIGKILL
    Killed,
    /// Their processes are stopped, with SIGSTOP, and go on later
    Silenced,
    /// The link to their network is cut, and mended later
    Cut,
}

impl How {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Silenced => "silenced",
            Self::Cut => "cut",
        }
    }
}

/// The agents that were lost, and when.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) how: How,
    /// Just before the first of them was hit.
    pub(crate) at_us: u64,
    /// When the kernel had closed the sockets of each, if they were killed.
    pub(crate) agents: BTreeMap<NodeId, Option<u64>>,
}

impl Fault {
    /// Whether the agents may live on unheard.
    pub(crate) fn is_silence(&self) -> bool {
        self.how != How::Killed
    }
}

/// One attempt that was lost with its agent, and what followed.
#[derive(Debug, Clone, PartialEq)]
struct Loss {
    /// When the kernel had closed the agent's sockets.
    eof_us: Option<u64>,
    was_running: bool,
    /// When another agent held the job.
    held_us: Option<u64>,
    /// When another agent ran it.
    runs_us: Option<u64>,
}

/// All of one fault.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    /// Tasks whose holder was lost.
    pub(crate) lost: usize,
    /// Those of them that ran.
    pub(crate) lost_running: usize,
    /// From the fault to the kernel's word on each agent's death.
    pub(crate) eof: Option<Times>,
    /// From the fault until another agent held the task.
    pub(crate) held: Option<Times>,
    /// From the kernel's word until then.
    pub(crate) held_from_eof: Option<Times>,
    /// From the fault until another agent ran the task, if it had run.
    pub(crate) runs: Option<Times>,
    /// From the kernel's word until then.
    pub(crate) runs_from_eof: Option<Times>,
}

impl Recovery {
    pub(crate) fn of(fault: &Fault, account: &Account) -> Self {
        let none = Vec::new();
        let of_job = |job: &JobView| {
            let executions = account.executions.get(&job.id).unwrap_or(&none);
            loss(fault, &job.attempts, executions)
        };
        let losses: Vec<_> = account.jobs.iter().flat_map(of_job).collect();
        let from_fault = |us: u64, _: &Loss| Some(seconds_between(fault.at_us, us));
        let from_eof = |us: u64, loss: &Loss| Some(seconds_between(loss.eof_us?, us));
        let eofs = fault.agents.values().flatten();
        Self {
            lost: losses.len(),
            lost_running: losses.iter().filter(|loss| loss.was_running).count(),
            eof: Times::of(eofs.map(|us| seconds_between(fault.at_us, *us)).collect()),
            held: times(&losses, |loss| loss.held_us, from_fault),
            held_from_eof: times(&losses, |loss| loss.held_us, from_eof),
            runs: times(&losses, |loss| loss.runs_us, from_fault),
            runs_from_eof: times(&losses, |loss| loss.runs_us, from_eof),
        }
    }
}

fn times(
    losses: &[Loss],
    what: impl Fn(&Loss) -> Option<u64>,
    from: impl Fn(u64, &Loss) -> Option<f64>,
) -> Option<Times> {
    let seconds = losses.iter().filter_map(|loss| from(what(loss)?, loss));
    Times::of(seconds.collect())
}

/// What a job lost by a fault: one attempt or none.
fn loss(fault: &Fault, attempts: &[Attempt], executions: &[Execution]) -> Option<Loss> {
    let at = attempts
        .iter()
        .position(|attempt| is_lost(fault, attempt))?;
    let (lost, later) = (&attempts[at], &attempts[at + 1..]);
    let ran = executions.iter().find(|run| run.fence == lost.fence);
    // One that was only silenced may come to its end, in vain.
    let lived = |run: &Execution| run.ended_us.is_none_or(|end_us| end_us > fault.at_us);
    let was_running = ran.is_some_and(|run| run.began_us <= fault.at_us && lived(run));
    let held = later.first();
    let fences: BTreeSet<_> = later.iter().map(|attempt| attempt.fence).collect();
    let again = executions.iter().find(|run| fences.contains(&run.fence));
    Some(Loss {
        eof_us: fault.agents.get(&lost.holder.agent).copied().flatten(),
        was_running,
        held_us: held.map(|attempt| attempt.claimed_at.0 * 1_000 + STORE_TICK_US),
        runs_us: again.filter(|_| was_running).map(|run| run.began_us),
    })
}

/// Whether an agent held it when the agent was lost, and did not end it.
fn is_lost(fault: &Fault, attempt: &Attempt) -> bool {
    use mutual_node::demand::AttemptEnd::{LeaseExpired, Revoked};
    let was_held = attempt.claimed_at.0 * 1_000 <= fault.at_us;
    let ended_later = attempt
        .ended_at
        .is_none_or(|at| at.0 * 1_000 + STORE_TICK_US >= fault.at_us);
    let is_taken = matches!(attempt.end, Some(LeaseExpired | Revoked));
    fault.agents.contains_key(&attempt.holder.agent) && was_held && ended_later && is_taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_node::demand::AttemptEnd;
    use mutual_node::model::ids::Incarnation;
    use mutual_node::model::lease::{Fence, Holder};
    use mutual_node::model::time::UnixMillis;

    const AT_US: u64 = 10_000_000;
    const DEAD: NodeId = NodeId([1; 32]);
    const ALIVE: NodeId = NodeId([2; 32]);

    fn attempt(
        sequence: u64,
        agent: NodeId,
        claimed_ms: u64,
        end: Option<(AttemptEnd, u64)>,
    ) -> Attempt {
        let incarnation = Incarnation::new(UnixMillis(1), [0; 10]);
        Attempt {
            fence: Fence { epoch: 1, sequence },
            holder: Holder { agent, incarnation },
            agent_url: String::new(),
            claimed_at: UnixMillis(claimed_ms),
            started_at: None,
            ended_at: end.map(|(_, at)| UnixMillis(at)),
            end: end.map(|(end, _)| end),
            log: None,
        }
    }

    fn ran(sequence: u64, began_us: u64, ended_us: Option<u64>) -> Execution {
        Execution {
            fence: Fence { epoch: 1, sequence },
            began_us,
            stretches: vec![(began_us, began_us)],
            ended_us,
            overlap_us: None,
        }
    }

    #[track_caller]
    fn check(attempts: &[Attempt], runs: &[Execution], expected: Option<Loss>) {
        let agents = BTreeMap::from([(DEAD, Some(AT_US + 7_000))]);
        let how = How::Killed;
        let at_us = AT_US;
        assert_eq!(
            loss(&Fault { how, at_us, agents }, attempts, runs),
            expected
        );
    }

    #[test]
    fn what_a_dead_agent_held_is_lost_until_another_holds_and_runs_it() {
        let revoked = Some((AttemptEnd::Revoked, 10_009));
        let lost = attempt(1, DEAD, 9_000, revoked);
        let next = attempt(2, ALIVE, 10_020, None);
        let found = Loss {
            eof_us: Some(AT_US + 7_000),
            was_running: true,
            held_us: Some(10_021_000),
            runs_us: Some(10_030_000),
        };
        let runs = [ran(1, 9_100_000, None), ran(2, 10_030_000, None)];
        check(&[lost.clone(), next.clone()], &runs, Some(found.clone()));
        let not_yet = Loss {
            was_running: false,
            runs_us: None,
            ..found
        };
        check(&[lost.clone(), next.clone()], &[], Some(not_yet));
        let waiting = Loss {
            eof_us: Some(AT_US + 7_000),
            was_running: false,
            held_us: None,
            runs_us: None,
        };
        check(&[lost], &[], Some(waiting));
    }

    #[test]
    fn what_was_over_or_is_another_s_is_not_lost() {
        let revoked = Some((AttemptEnd::Revoked, 10_009));
        check(&[attempt(1, ALIVE, 9_000, revoked)], &[], None);
        check(
            &[attempt(
                1,
                DEAD,
                9_000,
                Some((AttemptEnd::Succeeded, 9_900)),
            )],
            &[],
            None,
        );
        check(&[attempt(1, DEAD, 10_500, revoked)], &[], None);
        check(
            &[attempt(1, DEAD, 8_000, Some((AttemptEnd::Revoked, 8_500)))],
            &[],
            None,
        );
    }
}
