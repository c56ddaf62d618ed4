//! The loop that feeds the core and carries out what it decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{ClaimGrant, ClaimReply, StoreResult};
use mutual_model::agent::{
    Action, AdvertisedJob, Agent, Decline, Event, OfferId, RunKey, RunStatus, Scope, StoreUrl,
};
use mutual_model::guardian::StateHash;
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::OnDisconnect;
use mutual_model::lease::HeldJob;
use mutual_model::matching::{Need, Offer};
use tokio::sync::{mpsc, oneshot, watch};

use super::attempt::{Attempt, Handle, Order, Workshop, task_dir};
use super::checkpoints::Saves;
use super::runs::Incarnations;
use super::stores::{StoreLink, Stores, claimed, renewed};
use crate::clock;
use crate::runtime::{Leash, Slack};

/// While claims are held the loop looks at the clock this often: tokio's timers stand still while
/// the machine sleeps, leases do not.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_millis(250);
/// Answers to offers that may wait at once.
const OFFERS_MAX: usize = 1_024;

/// The agent's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferAnswer {
    /// Jobs it goes to claim now.
    pub accepted: Vec<JobId>,
    /// Why it leaves the others.
    pub declined: Option<Decline>,
}

/// What reaches the loop.
#[derive(Debug)]
pub(super) enum Input {
    /// Something for the core.
    Event(Event),
    /// A claim was answered; the grants are kept for their attempts.
    Claimed {
        nonce: Nonce,
        store: StoreUrl,
        incarnation: Incarnation,
        asked: usize,
        reply: StoreResult<ClaimReply>,
    },
    /// Somebody offers jobs.
    Offer {
        store: StoreUrl,
        jobs: Vec<JobId>,
        need: Need,
        ahead: bool,
        answer: oneshot::Sender<OfferAnswer>,
    },
    /// An ad was found.
    Ad {
        store: StoreUrl,
        jobs: Vec<JobId>,
        need: Need,
        idle: u32,
    },
}

/// What others may see of the agent.
#[derive(Debug, Clone)]
pub struct Status {
    /// What is free.
    pub free: Offer,
    /// Every held claim.
    pub runs: Vec<RunStatus>,
    /// Whether nothing runs any more and nothing will.
    pub quiet: bool,
}

/// The loop's state.
#[derive(Debug)]
pub(super) struct Mind {
    pub(super) core: Agent,
    pub(super) shop: Arc<Workshop>,
    pub(super) stores: Stores,
    pub(super) incarnations: Incarnations,
    pub(super) agent_url: String,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) status: watch::Sender<Status>,
    pub(super) state: watch::Sender<StateHash>,
    pub(super) grants: BTreeMap<RunKey, ClaimGrant>,
    pub(super) attempts: BTreeMap<RunKey, Handle>,
    /// The leash that each attempt was last told.
    pub(super) leashes: BTreeMap<RunKey, Leash>,
    pub(super) answers: BTreeMap<OfferId, oneshot::Sender<OfferAnswer>>,
    pub(super) offers_seen: u64,
}

impl Mind {
    /// Runs until every sender of inputs is gone or the agent is told to end.
    pub(super) async fn run(mut self, mut received: mpsc::Receiver<Input>) {
        loop {
            let input = tokio::select! {
                input = received.recv() => match input {
                    Some(input) => input,
                    None => return,
                },
                () = sleep(self.pause()) => Input::Event(Event::Tick),
            };
            let event = self.event_of(input);
            let actions = self.core.handle(clock::now(), event);
            // Before anything starts under it.
            self.leash();
            for action in actions {
                self.perform(action);
            }
            self.grants.clear();
            self.show();
        }
    }

    /// How long nothing is due.
    fn pause(&self) -> Option<Duration> {
        let until_due = self.core.next_wake().map(|wake| wake.since(clock::now()));
        match self.attempts.is_empty() {
            true => until_due,
            false => Some(
                until_due
                    .unwrap_or(LOOK_AT_CLOCK_EVERY)
                    .min(LOOK_AT_CLOCK_EVERY),
            ),
        }
    }

    fn event_of(&mut self, input: Input) -> Event {
        match input {
            Input::Event(event) => event,
            Input::Claimed {
                nonce,
                store,
                incarnation,
                asked,
                reply,
            } => self.on_claimed(nonce, store, incarnation, asked, reply),
            Input::Offer {
                store,
                jobs,
                need,
                ahead,
                answer,
            } => {
                let offer = self.expect_answer(answer);
                Event::Offered {
                    offer,
                    store,
                    jobs,
                    need,
                    ahead,
                }
            }
            Input::Ad {
                store,
                jobs,
                need,
                idle,
            } => Event::Advertised {
                store,
                jobs: advertised(jobs, &need),
                idle,
            },
        }
    }

    fn on_claimed(
        &mut self,
        nonce: Nonce,
        store: StoreUrl,
        incarnation: Incarnation,
        asked: usize,
        reply: StoreResult<ClaimReply>,
    ) -> Event {
        let incarnations = &self.incarnations;
        let seen = claimed(&reply, || incarnations.renew(&store, incarnation));
        if let Ok(reply) = reply {
            self.shop.metrics.claims(reply.grants.len(), asked);
            for grant in reply.grants {
                self.grants.insert(RunKey::of(&store, &grant.claim), grant);
            }
        }
        Event::Claimed {
            nonce,
            store,
            reply: seen,
        }
    }

    fn expect_answer(&mut self, answer: oneshot::Sender<OfferAnswer>) -> OfferId {
        self.offers_seen += 1;
        let offer = OfferId(self.offers_seen);
        self.answers.retain(|_, answer| !answer.is_closed());
        if self.answers.len() < OFFERS_MAX {
            self.answers.insert(offer, answer);
        }
        offer
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Claim {
                store,
                incarnation,
                nonce,
                scope,
                offer,
            } => self.claim(store, incarnation, nonce, scope, offer),
            Action::Renew {
                store,
                incarnation,
                held,
                complete,
            } => self.renew(store, incarnation, held, complete),
            Action::Prepare { key, class } => self.prepare(key, class),
            Action::Start { key } => self.order(&key, Order::Start),
            Action::Pause { key } => self.order(&key, Order::Pause),
            Action::Resume { key } => self.order(&key, Order::Resume),
            Action::Stop { key } => self.order(&key, Order::Stop),
            Action::Checkpoint { key, sequence } => self.order(&key, Order::Checkpoint(sequence)),
            Action::Conclude { key, failure } => self.order(&key, Order::Conclude(failure)),
            Action::Release { key, claim, reason } => self.release(key, claim, reason),
            Action::Discard { key } => self.discard(&key),
            Action::Answer {
                offer,
                taken,
                declined,
            } => self.answer(offer, taken, declined),
            Action::Quiet => self.status.send_modify(|status| status.quiet = true),
        }
    }

    /// Tells attempts until when their tasks may go on by themselves, where that has changed.
    fn leash(&mut self) {
        for (key, until, then) in self.core.leashes() {
            let then = match then {
                OnDisconnect::Stop => Slack::Kill,
                OnDisconnect::Pause | OnDisconnect::Finish => Slack::Pause,
            };
            let leash = Leash {
                until_us: until.0,
                then,
            };
            if let Some(attempt) = self.attempts.get(key)
                && self.leashes.insert(key.clone(), leash) != Some(leash)
            {
                attempt.order(Order::Leash(leash));
            }
        }
    }

    fn order(&self, key: &RunKey, order: Order) {
        if let Some(attempt) = self.attempts.get(key) {
            attempt.order(order);
        }
    }

    fn answer(&mut self, offer: OfferId, accepted: Vec<JobId>, declined: Option<Decline>) {
        self.shop.metrics.offer(!accepted.is_empty());
        if let Some(answer) = self.answers.remove(&offer) {
            // Whoever asked may have given up.
            let _ = answer.send(OfferAnswer { accepted, declined });
        }
    }

    fn claim(
        &self,
        store: StoreUrl,
        incarnation: Incarnation,
        nonce: Nonce,
        scope: Scope,
        offer: Offer,
    ) {
        let asked = match &scope {
            Scope::Jobs(jobs) => jobs.len(),
            Scope::Any => 0,
        };
        tracing::debug!(%store, asked, "claiming");
        let agent_url = self.agent_url.clone();
        self.call(store.clone(), move |link| async move {
            let reply = link.claim(incarnation, nonce, scope, offer, agent_url);
            Input::Claimed {
                nonce,
                store,
                incarnation,
                asked,
                reply: reply.await,
            }
        });
    }

    fn renew(&self, store: StoreUrl, incarnation: Incarnation, held: Vec<HeldJob>, complete: bool) {
        let incarnations = self.incarnations.clone();
        let metrics = self.shop.metrics.clone();
        self.call(store.clone(), move |link| async move {
            let reply = link.renew(incarnation, held, complete).await;
            metrics.renewal(reply.is_ok());
            let reply = renewed(reply, || incarnations.renew(&store, incarnation));
            Input::Event(Event::Renewed { store, reply })
        });
    }

    fn release(&self, key: RunKey, claim: mutual_model::lease::Claim, reason: String) {
        self.call(key.store.clone(), move |link| async move {
            if let Err(error) = link.release(claim, reason).await {
                // The next complete lists tell the store the same.
                tracing::debug!(job = %key.job, %error, "release not answered");
            }
            Input::Event(Event::Released { key })
        });
    }

    /// Makes a request beside the loop; its answer comes back as an input.
    fn call<F>(&self, store: StoreUrl, request: impl FnOnce(Arc<StoreLink>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let Some(link) = self.stores.get(&store) else {
            tracing::error!(%store, "the core knows a store that the agent does not");
            return;
        };
        let (answer, inputs) = (request(link), self.inputs.clone());
        tokio::spawn(async move {
            // The loop is gone only when the agent stops.
            let _ = inputs.send(answer.await).await;
        });
    }

    fn prepare(&mut self, key: RunKey, class: mutual_model::job::IsolationClass) {
        let (Some(grant), Some(link)) = (self.grants.remove(&key), self.stores.get(&key.store))
        else {
            tracing::error!(run = %key, "a run without its grant");
            return;
        };
        tracing::info!(job = %key.job, fence = %key.fence, class = class.name(), "claimed");
        let saves = Saves::of(&self.shop.key, &key, &grant);
        let attempt = Attempt {
            saves: Arc::new(saves),
            shop: self.shop.clone(),
            link,
            key: key.clone(),
            grant,
            class,
            events: self.inputs.clone(),
            said: Arc::default(),
        };
        attempt.mirror(mutual_model::job::JobState::Assigned, None);
        self.attempts.insert(key, Handle::spawn(attempt));
    }

    fn discard(&mut self, key: &RunKey) {
        self.attempts.remove(key);
        self.leashes.remove(key);
        let dir = task_dir(&self.shop.tasks, key);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = mutual_data::tree::remove(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "task directory stays");
            }
        });
    }

    /// Lets others see what changed.
    fn show(&self) {
        let free = self.core.capacity(self.incarnations.classes());
        let runs: Vec<_> = self.core.runs().collect();
        self.shop.metrics.holds(runs.len());
        self.shop.metrics.mismatched(self.core.mismatches());
        let held = |run: &RunStatus| (run.key.job, run.key.fence, run.checkpoint);
        self.state
            .send_replace(StateHash::of(runs.iter().map(held)));
        self.status.send_if_modified(|status| {
            let changed = status.free != free || status.runs != runs;
            (status.free, status.runs) = (free, runs);
            changed
        });
    }
}

fn advertised(jobs: Vec<JobId>, need: &Need) -> Vec<AdvertisedJob> {
    let jobs = jobs.into_iter().map(|job| AdvertisedJob {
        job,
        need: need.clone(),
    });
    jobs.collect()
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
