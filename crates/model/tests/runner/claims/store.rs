//! The demand store and its standby.

use std::collections::{BTreeMap, BTreeSet};

use mutual_model::job::{JobState, Transition};
use mutual_model::lease::Fence;

use super::{LEASE, Message, Rules, Run, Token};

/// Deaths and failures of holders that a job survives.
const RETRIES: u8 = 1;
/// How far the standby's clock is ahead of the primary's, in ticks.
const AHEAD: u8 = 1;

/// A finish that was accepted: the claim, whether it went well, and whether the job was over then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ended {
    token: Token,
    well: bool,
    ended: bool,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    state: JobState,
    pub(super) fence: Fence,
    holder: Option<Token>,
    counted: u8,
    finishes: Vec<Ended>,
}

/// What one database holds. Times are by its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rows {
    epoch: u64,
    jobs: Vec<Row>,
    leases: BTreeMap<Run, u8>,
    /// Requests for jobs that were granted one.
    granted: BTreeSet<(Run, u8)>,
    revoked: BTreeSet<Run>,
    grace_until: u8,
    ahead: u8,
}

/// The primary, its standby, and answers that wait for the standby.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    primary: Rows,
    standby: Rows,
    waiting: BTreeSet<Message>,
}

impl Row {
    const fn new() -> Self {
        Self {
            state: JobState::Queued,
            fence: Fence {
                epoch: 1,
                sequence: 0,
            },
            holder: None,
            counted: 0,
            finishes: Vec::new(),
        }
    }

    fn go(&mut self, transition: Transition) {
        self.state = self.state.after(transition).unwrap();
    }

    fn lose_holder(&mut self) {
        self.holder = None;
        match self.counted < RETRIES {
            true => self.go(Transition::Requeue),
            false => self.go(Transition::Bury),
        }
        self.counted += 1;
    }

    fn end(&mut self, token: Token, well: bool) -> Ended {
        let retry = !well && self.counted < RETRIES;
        match (well, retry) {
            (true, _) => self.go(Transition::Succeed),
            (false, true) => self.go(Transition::Requeue),
            (false, false) => self.go(Transition::Fail),
        }
        self.counted += u8::from(!well);
        self.holder = None;
        let end = Ended {
            token,
            well,
            ended: !retry,
        };
        self.finishes.push(end);
        end
    }
}

impl Rows {
    const fn time(&self, now: u8) -> u8 {
        now + self.ahead
    }
}

impl Store {
    pub(super) fn new(jobs: u8) -> Self {
        let rows = Rows {
            epoch: 1,
            jobs: (0..jobs).map(|_| Row::new()).collect(),
            leases: BTreeMap::new(),
            granted: BTreeSet::new(),
            revoked: BTreeSet::new(),
            grace_until: 0,
            ahead: 0,
        };
        Self {
            standby: rows.clone(),
            primary: rows,
            waiting: BTreeSet::new(),
        }
    }

    pub(super) fn row(&self, job: u8) -> &Row {
        &self.primary.jobs[usize::from(job)]
    }

    fn row_mut(&mut self, job: u8) -> &mut Row {
        &mut self.primary.jobs[usize::from(job)]
    }

    pub(super) fn is_current(&self, job: u8, token: Token) -> bool {
        self.row(job).holder == Some(token)
    }

    /// Whether the job's end is the one that an answer told of.
    pub(super) fn remembers(&self, job: u8, token: Token, well: bool) -> bool {
        let mut finishes = self.row(job).finishes.iter();
        finishes.any(|end| end.token == token && end.well == well && end.ended)
    }

    /// Whether the standby lacks something.
    pub(super) fn is_ahead(&self) -> bool {
        !self.waiting.is_empty() || self.primary != self.standby
    }

    /// Lets the standby have everything; what waited for that is sent.
    pub(super) fn replicate(&mut self) -> BTreeSet<Message> {
        self.standby = self.primary.clone();
        self.answers()
    }

    pub(super) fn answers(&mut self) -> BTreeSet<Message> {
        std::mem::take(&mut self.waiting)
    }

    /// Goes on from the standby; whoever waited for an answer does not know the outcome.
    pub(super) fn fail_over(&mut self, now: u8, rules: &Rules) {
        self.waiting.clear();
        self.primary = self.standby.clone();
        self.primary.ahead = AHEAD;
        if rules.new_epoch {
            self.primary.epoch += 1;
        }
        if rules.grace {
            self.primary.grace_until = self.primary.time(now) + LEASE;
        }
        self.standby = self.primary.clone();
    }

    /// Claims a job, or gives back what the same request was granted before.
    pub(super) fn claim(&mut self, nonce: (Run, u8), job: u8, sent: u8, now: u8) {
        if self.primary.revoked.contains(&nonce.0) {
            return;
        }
        let epoch = self.primary.epoch;
        let is_new = !self.primary.granted.contains(&nonce);
        let row = self.row_mut(job);
        let token = match row.holder.filter(|token| token.nonce == nonce) {
            Some(token) => token,
            None if is_new && row.state == JobState::Queued => {
                row.fence = row.fence.next(epoch);
                row.go(Transition::Claim);
                let fence = row.fence;
                let token = Token { fence, nonce };
                row.holder = Some(token);
                token
            }
            None => return,
        };
        self.primary.granted.insert(nonce);
        self.extend_lease(nonce.0, now);
        self.waiting.insert(Message::Granted { job, token, sent });
    }

    fn extend_lease(&mut self, run: Run, now: u8) {
        let end = self.primary.time(now) + LEASE;
        self.primary.leases.insert(run, end);
    }

    pub(super) fn renew(
        &mut self,
        run: Run,
        (job, token): (u8, Token),
        sent: u8,
        now: u8,
        rules: &Rules,
    ) {
        let stands = !self.primary.revoked.contains(&run) && self.is_current(job, token);
        if !stands && rules.fenced {
            self.waiting.insert(Message::Lost { job, token });
            return;
        }
        self.extend_lease(run, now);
        let row = self.row_mut(job);
        if let Some(state) = row.state.after(Transition::Start) {
            row.state = state;
        }
        self.waiting.insert(Message::Renewed { job, token, sent });
    }

    pub(super) fn finish(&mut self, job: u8, token: Token, well: bool, rules: &Rules) {
        let row = self.row_mut(job);
        let is_held = row.state.is_held();
        let end = if row.holder == Some(token) || (!rules.fenced && is_held) {
            row.end(token, well)
        } else {
            let known = row.finishes.iter().find(|end| end.token == token);
            match known.copied().filter(|end| end.well == well) {
                Some(known) if rules.idempotent => known,
                // What a store says that judges a repeat by the job's present state.
                Some(known) => Ended {
                    ended: row.state.is_terminal(),
                    ..known
                },
                None => {
                    self.waiting.insert(Message::Lost { job, token });
                    return;
                }
            }
        };
        let Ended { well, ended, .. } = end;
        self.waiting.insert(Message::Finished {
            job,
            token,
            ended,
            well,
        });
    }

    pub(super) fn may_expire(&self, job: u8, now: u8, rules: &Rules) -> bool {
        let Some(token) = self.row(job).holder else {
            return false;
        };
        let time = self.primary.time(now);
        let lease = self.primary.leases.get(&token.nonce.0);
        let is_over = lease.is_none_or(|end| *end <= time);
        time >= self.primary.grace_until && (is_over || !rules.expiry)
    }

    pub(super) fn lose(&mut self, job: u8) {
        self.row_mut(job).lose_holder();
    }

    /// Ends all claims of a run, and the run.
    pub(super) fn revoke(&mut self, run: Run) {
        self.primary.revoked.insert(run);
        for row in &mut self.primary.jobs {
            if row.holder.is_some_and(|token| token.nonce.0 == run) {
                row.lose_holder();
            }
        }
    }
}
