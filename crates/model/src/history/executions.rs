//! Executions of programs (DESIGN §3, the paragraph below the list): the seventeenth promise.
//!
//! A program runs only under a claim, never past its holder's lease, never longer than its holder's
//! process, and never beside another of the same job. A task may ask to run on when its holder is
//! cut off, and a verdict of silence lets the next one start while the old one still has its lease.

use std::time::Duration;

use super::deed::{Execution, Ground};
use super::ledger::{Job, Ledger, Place, Run};
use super::{EXECUTIONS, Found, Violation, violation};
use crate::job::OnDisconnect;
use crate::time::Timestamp;

/// How long a machine that wakes up may take to freeze what it woke with: the agent looks at the
/// clock four times in a second, since timers stand still while the machine sleeps.
const WAKE: Duration = Duration::from_millis(300);

/// Whether the task's holder may let it run on without a lease.
fn may_run_on(run: &Execution) -> bool {
    run.on_disconnect == OnDisconnect::Finish && !run.exclusive
}

/// A program runs under a claim that its holder was granted.
pub(super) fn under_a_claim(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in ledger
        .jobs
        .iter()
        .filter(|(_, told)| !told.grants.is_empty())
    {
        for (place, run) in &told.runs {
            let grants = told
                .grants
                .iter()
                .filter(|grant| grant.claim.fence == run.fence);
            let mut grants = grants.filter(|grant| grant.holder == run.holder);
            let in_time = |at| ledger.at(at).called <= ledger.at(*place).called;
            if !grants.any(|grant| in_time(grant.place)) {
                let what = format!("{job} ran under {} without a claim", run.fence);
                found.push(violation(EXECUTIONS, what, &[*place]));
            }
        }
    }
    found
}

/// A program does not outlive its agent's process.
pub(super) fn none_outlives_its_agent(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for (place, run) in &told.runs {
            let died = ledger.run(run.holder).and_then(|holder| holder.died);
            let Some(died) = died else { continue };
            if ledger.at(*place).returned > ledger.at(died).returned {
                let what = format!("{job} ran on under {} without its agent", run.fence);
                found.push(violation(EXECUTIONS, what, &[died, *place]));
            }
        }
    }
    found
}

/// A program stops before its holder's lease ends. Judged where renewals were observed.
pub(super) fn none_outlives_its_lease(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for (place, run) in told.runs.iter().filter(|(_, run)| !may_run_on(run)) {
            let holder = ledger.run(run.holder).filter(|holder| holder.renews);
            let Some(holder) = holder else { continue };
            let end = covered_until(ledger, told, holder, (*place, run));
            if end < ledger.at(*place).returned && !has_just_woken(ledger, *place, run) {
                let over = ledger.at(*place).returned.since(end);
                let what = format!("{job} ran under {} for {over:?} after its lease", run.fence);
                found.push(violation(EXECUTIONS, what, &[*place]));
            }
        }
    }
    found
}

/// Until when a program's lease lasted without a gap, as far as its holder could know.
fn covered_until(
    ledger: &Ledger<'_>,
    told: &Job<'_>,
    holder: &Run<'_>,
    (place, run): (Place, &Execution),
) -> Timestamp {
    let granted = told.grant(run.fence).map(|grant| grant.place);
    let first = granted.map_or(ledger.at(place).called, |grant| ledger.lease_end(grant));
    let mut end = first;
    for extension in &holder.extensions {
        // One that was answered after the lease had ended does not mend the gap.
        if ledger.at(*extension).returned <= end {
            end = end.max(ledger.lease_end(*extension));
        } else if ledger.at(*extension).returned <= ledger.at(place).called {
            // The program was frozen meanwhile.
            end = end.max(ledger.lease_end(*extension));
        }
    }
    end
}

fn has_just_woken(ledger: &Ledger<'_>, place: Place, run: &Execution) -> bool {
    let sleeps = ledger.sleeps.get(&run.holder.agent).into_iter().flatten();
    let stretch = ledger.at(place);
    let mut woken = sleeps.map(|sleep| ledger.at(*sleep).returned);
    woken.any(|woken| woken <= stretch.returned && stretch.returned.since(woken) <= WAKE)
}

/// No two programs of one job run at the same time.
pub(super) fn none_overlap(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for told in ledger.jobs.values() {
        let mut runs = told.runs.clone();
        runs.sort_by_key(|(_, run)| run.fence);
        for (index, older) in runs.iter().enumerate() {
            let newer = runs[index + 1..].iter();
            let newer = newer.filter(|(_, newer)| newer.fence > older.1.fence);
            found.extend(newer.filter_map(|newer| check_pair(ledger, *older, *newer)));
        }
    }
    found
}

fn check_pair(
    ledger: &Ledger<'_>,
    (older_at, older): (Place, &Execution),
    (newer_at, newer): (Place, &Execution),
) -> Option<Violation> {
    let (one, other) = (ledger.at(older_at), ledger.at(newer_at));
    let from = one.called.max(other.called);
    let to = one.returned.min(other.returned);
    if to <= from || is_excused(ledger, (older_at, older), from) {
        return None;
    }
    let what = format!(
        "{} ran under {} and {} at once for {:?}",
        older.job,
        older.fence,
        newer.fence,
        to.since(from)
    );
    Some(violation(EXECUTIONS, what, &[older_at, newer_at]))
}

/// Whether an execution may go on beside its successor from `from` on. How long is bounded by its
/// lease, which is judged apart.
fn is_excused(ledger: &Ledger<'_>, (place, older): (Place, &Execution), from: Timestamp) -> bool {
    if has_just_woken(ledger, place, older) {
        return true;
    }
    if older.exclusive {
        return false;
    }
    let died = ledger.run(older.holder).and_then(|run| run.died);
    let lives = died.is_none_or(|died| ledger.at(died).returned > from);
    let mut verdicts = ledger.verdicts_on(older.holder);
    let silence = |ground| matches!(ground, None | Some(Ground::Silent));
    let condemned =
        verdicts.any(|verdict| silence(verdict.ground) && ledger.at(verdict.place).called < from);
    lives && (may_run_on(older) || condemned)
}
