//! Offering queued jobs to idle agents at once, without waiting for them to ask.
//!
//! Whoever knows of a queued job may offer it: the demand server that stored it, a control, or the
//! command line when neither is left. An offer decides nothing; the agent that likes it claims the
//! job from the store, and of two that do one gets it. So an offer lost, repeated or sent to a
//! machine that has become busy costs a datagram, never a job.
//!
//! Agents are chosen from a *roster*: what was heard of idle agents in the last seconds, less what
//! was offered to them since. What was heard may be a second old, and an agent may have become free
//! since: if nobody is known to have room, those large enough are asked all the same, a bounded
//! number of times a second. Only if the roster has nobody at all is the DHT asked while the
//! job waits. Each job goes to the best [`FANOUT`] agents at once; if none takes it, to the next.

mod declines;
mod neighbours;
mod pace;
mod roster;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use mutual_demand::{JobEvent, JobView};
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::matching::Need;
use tokio::sync::watch;
use tokio::time::Instant;

pub use declines::Declined;
pub use neighbours::{Alone, JobNotice, Neighbour, Neighbours};

use super::counts::Counts;
use crate::auth::{JobOffer, JobOfferReply, NodeSigner, UserToken, unix_now};
use declines::Declines;
use pace::Pace;
use roster::{Load, Roster};

/// Agents that get each job at once: the best, and one that steps in if it is busy after all.
pub const FANOUT: usize = 2;
/// Most jobs in one offer.
const BATCH_MAX: usize = 16;
/// Rounds of offers for one call; then ads and polling do the rest.
const ROUNDS_MAX: usize = 3;
/// Agents looked for in the DHT at once.
const LOOKED_FOR_MAX: usize = 32;
/// How long an agent may take to answer an offer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(400);
/// Pause between two look-ups on behalf of waiting jobs.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Look-ups that may follow each other without a pause.
const LOOKS_SAVED_MAX: u32 = 5;
/// Longest wait for a turn to look.
const LOOK_WAIT_MAX: Duration = Duration::from_millis(500);
/// Pause between two jobs offered to agents that are not known to have room.
const BLIND_PAUSE: Duration = Duration::from_millis(5);
/// Such jobs that may follow each other without a pause: what a dying machine may have held.
const BLIND_SAVED_MAX: u32 = 64;
/// Different needs looked for in one turn.
const NEEDS_MAX: usize = 4;
/// How often the roster is refreshed from the DHT.
const REFRESH: Duration = Duration::from_secs(1);

/// In whose name offers are made.
#[derive(Debug, Clone)]
pub enum Voucher {
    /// A node that serves control or demand.
    Node(NodeSigner),
    /// A user, when no server is left.
    User(UserToken),
}

/// A queued job, as far as offering it needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenJob {
    /// The job.
    pub id: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// What it needs.
    pub need: Need,
    /// Whether its last holder died: then agents without room may hold it ahead.
    pub recovered: bool,
}

impl From<&JobView> for OpenJob {
    fn from(view: &JobView) -> Self {
        Self {
            id: view.id,
            namespace: view.namespace.clone(),
            need: Need::from(&view.spec),
            recovered: view.has_lost_holder(),
        }
    }
}

/// Offers jobs and remembers, in memory only, why they were declined.
#[derive(Debug)]
pub struct Offerer {
    voucher: Voucher,
    trusted: Vec<PublicKey>,
    neighbours: Arc<dyn Neighbours>,
    roster: Mutex<Roster>,
    declines: Mutex<Declines>,
    looks: Mutex<Pace>,
    blind: Mutex<Pace>,
    /// Moves with each agent that dies.
    deaths: watch::Sender<u64>,
    http: reqwest::Client,
    counts: Counts,
}

/// Jobs of like need for one agent.
#[derive(Debug)]
struct Batch {
    to: Neighbour,
    jobs: Vec<OpenJob>,
    /// Whether the agent, which is not known to have room, may hold them until it has.
    ahead: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left is at worst an outdated hint.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Offerer {
    /// Offers in the name of `voucher` to agents of the `trusted` organisations.
    pub fn new(
        voucher: Voucher,
        trusted: Vec<PublicKey>,
        neighbours: Arc<dyn Neighbours>,
        counts: Counts,
    ) -> Self {
        Self {
            voucher,
            trusted,
            neighbours,
            roster: Mutex::default(),
            declines: Mutex::default(),
            looks: Mutex::new(Pace::new(LOOK_PAUSE, LOOKS_SAVED_MAX)),
            blind: Mutex::new(Pace::new(BLIND_PAUSE, BLIND_SAVED_MAX)),
            deaths: watch::Sender::default(),
            http: reqwest::Client::new(),
            counts,
        }
    }

    /// The way to agents.
    pub fn neighbours(&self) -> &Arc<dyn Neighbours> {
        &self.neighbours
    }

    /// Offers jobs that can be claimed at `demand_url`. Returns those that an agent said it goes
    /// to claim. Those whose holder died are in a hurry, so none of them waits for another's answer.
    /// Cancel-safe.
    pub async fn offer(&self, demand_url: &str, jobs: &[OpenJob]) -> Vec<JobId> {
        let (urgent, others): (Vec<_>, Vec<_>) =
            jobs.iter().cloned().partition(|job| job.recovered);
        let urgent = urgent.iter().map(std::slice::from_ref);
        let calls = urgent.chain((!others.is_empty()).then_some(&others[..]));
        let offers = calls.map(|jobs| self.offer_together(demand_url, jobs));
        join_all(offers).await.concat()
    }

    async fn offer_together(&self, demand_url: &str, jobs: &[OpenJob]) -> Vec<JobId> {
        let mut open: Vec<OpenJob> = jobs.to_vec();
        let mut asked: BTreeSet<(JobId, NodeId)> = BTreeSet::new();
        let mut taken = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let batches = self.plan(&open, &asked).await;
            if batches.is_empty() {
                break;
            }
            for batch in &batches {
                let agent = batch.to.id();
                asked.extend(batch.jobs.iter().map(|job| (job.id, agent)));
            }
            let asking = batches.iter().map(|batch| self.ask(demand_url, batch));
            let accepted: BTreeSet<JobId> = join_all(asking).await.into_iter().flatten().collect();
            open.retain(|job| !accepted.contains(&job.id));
            taken.extend(accepted);
            if open.is_empty() {
                break;
            }
        }
        taken
    }

    /// Why agents left a job, the latest last.
    pub fn declines(&self, job: &JobId) -> Vec<Declined> {
        locked(&self.declines).of(job)
    }

    /// Takes note of an agent heard of in some other way than the DHT.
    pub fn heard_of(&self, neighbours: Vec<Neighbour>) {
        locked(&self.roster).learn(neighbours, Instant::now());
    }

    /// Takes in what became of a job: who really got it, and that its place is free again.
    pub fn saw(&self, event: &JobEvent) {
        locked(&self.roster).settle(event, Instant::now());
    }

    /// An agent's process is dead: nothing is offered to it, whatever the DHT still says, until it
    /// is back or its last word there has expired.
    pub fn gone(&self, agent: &NodeId) {
        locked(&self.roster).bury(*agent, Instant::now());
        self.deaths.send_modify(|deaths| *deaths += 1);
    }

    /// An agent that was gone is back.
    pub fn returned(&self, agent: &NodeId) {
        locked(&self.roster).revive(agent);
    }

    /// How many more tasks the agents that were heard of would take, 0 if none was heard of.
    pub fn room(&self) -> usize {
        locked(&self.roster).room(Instant::now())
    }

    /// Keeps the roster of these namespaces fresh for ever.
    pub async fn keep_roster(self: Arc<Self>, namespaces: Vec<Namespace>) {
        loop {
            for namespace in &namespaces {
                let found = self.neighbours.all(namespace).await;
                self.heard_of(found);
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Chooses who gets what: agents known to have room, else any that are large enough, else
    /// whomever the DHT knows.
    async fn plan(&self, open: &[OpenJob], asked: &BTreeSet<(JobId, NodeId)>) -> Vec<Batch> {
        let (mut batches, left) = self.choose(open, asked, Load::Known);
        let (blind, left) = self.choose_blindly(&left, asked);
        batches.extend(blind);
        if left.is_empty() || !batches.is_empty() {
            // Those left out have their turn in the next round: offers do not wait for look-ups.
            return batches;
        }
        let turn = locked(&self.looks).turn(Instant::now(), LOOK_WAIT_MAX);
        let Some(pause) = turn else {
            return batches;
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.look(&left).await;
        self.choose(&left, asked, Load::Known).0
    }

    /// Chooses agents whatever they are busy with; returns also the jobs that nobody could take or
    /// that must wait, because on a busy cloud every job would be offered in vain.
    fn choose_blindly(
        &self,
        open: &[OpenJob],
        asked: &BTreeSet<(JobId, NodeId)>,
    ) -> (Vec<Batch>, Vec<OpenJob>) {
        let turns = locked(&self.blind).turns(Instant::now(), open.len());
        let (now, later) = open.split_at(turns);
        let (batches, mut left) = self.choose(now, asked, Load::Ignored);
        left.extend_from_slice(later);
        (batches, left)
    }

    /// Looks for agents for these jobs in the DHT.
    async fn look(&self, jobs: &[OpenJob]) {
        let mut needs: Vec<(&Namespace, &Need)> = Vec::new();
        for job in jobs {
            if !needs.contains(&(&job.namespace, &job.need)) {
                needs.push((&job.namespace, &job.need));
            }
        }
        needs.truncate(NEEDS_MAX);
        for (namespace, need) in needs {
            let found = self.neighbours.idle(namespace, need, LOOKED_FOR_MAX).await;
            self.heard_of(found);
        }
    }

    /// Chooses from the roster; returns also the jobs that nobody there could take.
    fn choose(
        &self,
        open: &[OpenJob],
        asked: &BTreeSet<(JobId, NodeId)>,
        load: Load,
    ) -> (Vec<Batch>, Vec<OpenJob>) {
        let mut roster = locked(&self.roster);
        let now = Instant::now();
        let (mut chosen, mut left) = (BTreeMap::<NodeId, Vec<Batch>>::new(), Vec::new());
        for job in open {
            let is_new = |agent: &NodeId| !asked.contains(&(job.id, *agent));
            let best = roster.take_best(job, load, now, is_new);
            if best.is_empty() {
                left.push(job.clone());
            }
            let ahead = job.recovered && load == Load::Ignored;
            for to in best {
                add(chosen.entry(to.id()).or_default(), to, job, ahead);
            }
        }
        (chosen.into_values().flatten().collect(), left)
    }

    /// Sends one offer and takes in the answer.
    async fn ask(&self, demand_url: &str, batch: &Batch) -> Vec<JobId> {
        let Some(first) = batch.jobs.first() else {
            return Vec::new();
        };
        let jobs = batch.jobs.iter().map(|job| job.id).collect();
        let namespace = first.namespace.clone();
        let (to, url) = (batch.to.id(), demand_url.to_owned());
        let mut offer = JobOffer::new(to, jobs, url, namespace, first.need.clone());
        offer.ahead = batch.ahead;
        self.counts.offers_sent(batch.jobs.len());
        tracing::debug!(agent = %to, first = %first.id, jobs = batch.jobs.len(), "offering");
        let exchange = tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(&batch.to, &offer));
        let answer = tokio::select! {
            answer = exchange => answer,
            () = self.death_of(to) => return self.declined(batch, "it died"),
        };
        let reply = match answer {
            Ok(Ok(reply)) => reply,
            Ok(Err(reason)) => return self.declined(batch, &reason),
            Err(_) => return self.declined(batch, "no answer to the offer"),
        };
        if let Some(reason) = &reply.declined {
            let left = |job: &&OpenJob| !reply.accepted.contains(&job.id);
            let jobs = batch.jobs.iter().filter(left).cloned().collect();
            let (to, ahead) = (batch.to.clone(), batch.ahead);
            self.declined(&Batch { to, jobs, ahead }, reason);
        }
        let was_offered = |job: &JobId| offer.jobs.contains(job);
        let accepted: Vec<JobId> = reply.accepted.into_iter().filter(was_offered).collect();
        self.counts.offers_accepted(accepted.len());
        accepted
    }

    /// Waits until an agent is known to be dead.
    async fn death_of(&self, agent: NodeId) {
        let mut deaths = self.deaths.subscribe();
        let is_dead = |_: &u64| locked(&self.roster).is_buried(&agent);
        if deaths.wait_for(is_dead).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn declined(&self, batch: &Batch, reason: &str) -> Vec<JobId> {
        self.counts.offers_declined(batch.jobs.len());
        let mut declines = locked(&self.declines);
        for job in &batch.jobs {
            declines.note(job.id, batch.to.id(), reason);
        }
        Vec::new()
    }

    async fn exchange(&self, to: &Neighbour, offer: &JobOffer) -> Result<JobOfferReply, String> {
        let bytes = match &self.voucher {
            Voucher::Node(signer) => offer.sign(signer),
            Voucher::User(token) => {
                let voucher = JobOffer::voucher(token, &offer.namespace);
                offer.vouch(&voucher.map_err(|error| error.to_string())?)
            }
        };
        let answer = match self.neighbours.ask(to, bytes.clone()).await {
            Some(answer) => answer,
            None => self.post(to, bytes).await?,
        };
        JobOfferReply::verify(&answer, offer, &self.trusted, unix_now())
            .map_err(|error| format!("its answer was not accepted: {error}"))
    }

    /// The way for offers too long for a datagram, and where datagrams do not get through.
    async fn post(&self, to: &Neighbour, offer: Vec<u8>) -> Result<Vec<u8>, String> {
        let base = to.http.first().ok_or("it cannot be reached")?;
        let unreached = |error: reqwest::Error| format!("it cannot be reached: {error}");
        let request = self.http.post(format!("{base}/v1/offer")).body(offer);
        let mut answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(unreached)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreached)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err("its answer is too long".into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Longest answer to an offer.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// Adds a job to the batch of its kind for one agent.
fn add(batches: &mut Vec<Batch>, to: Neighbour, job: &OpenJob, ahead: bool) {
    let is_alike = |batch: &&mut Batch| {
        let like = |first: &OpenJob| first.namespace == job.namespace && first.need == job.need;
        let is_open = batch.ahead == ahead && batch.jobs.len() < BATCH_MAX;
        is_open && batch.jobs.first().is_some_and(like)
    };
    match batches.iter_mut().find(is_alike) {
        Some(batch) => batch.jobs.push(job.clone()),
        None => batches.push(Batch {
            to,
            jobs: vec![job.clone()],
            ahead,
        }),
    }
}
