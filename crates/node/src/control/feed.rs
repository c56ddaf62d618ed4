//! Following one store: counting what happens, offering what is queued, telling the DHT.
//!
//! The store's events are the only trigger. A server that starts, or was away for a while, goes
//! silently to the end of the events, then looks once at what is queued.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mutual_demand::http::HttpStore;
use mutual_demand::{
    DemandStore, EventPage, JobEvent, JobFilter, JobView, Principal, Reason, StoreResult,
};
use mutual_model::identity::NodeId;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use mutual_model::resources::ResourceClass;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::counts::Counts;
use super::offer::{JobNotice, Offerer, OpenJob};
use crate::discovery::status_mirror;

/// Events asked for at once while following.
const PAGE: u32 = 1_000;
/// Events asked for at once while going to the end.
const SKIP_PAGE: u32 = 10_000;
/// How long one question for events waits.
const WAIT: Duration = Duration::from_secs(10);
/// How long a store of this process is waited for before it is asked again.
const LOCAL_WAIT: Duration = Duration::from_secs(1);
/// How often a store that cannot tell of changes is asked.
const POLL: Duration = Duration::from_millis(200);
/// Pause after a store could not be reached.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);
/// Jobs offered out of one page of events. More than this and agents are better served by
/// claiming in batches as they become free.
const OFFERED_MAX: usize = 64;
/// Jobs offered out of one page of events though nobody seems to have room.
const OFFERED_MIN: usize = 4;
/// Offers under way at once.
const OFFERING_MAX: usize = 64;
/// How often open jobs are announced again; announcements last three times as long.
const ANNOUNCE: Duration = Duration::from_secs(20);
/// Shortest pause between two announcements.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(500);
/// Open jobs looked at for one announcement.
const ANNOUNCED_MAX: u32 = 256;
/// Jobs named in one bulletin (DESIGN §5).
const BULLETIN_JOBS_MAX: usize = 16;

/// Where a store's events come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A store of this process, and what moves with each of its changes.
    Local(Arc<dyn DemandStore>, Option<watch::Receiver<u64>>),
    /// A store behind HTTP.
    Remote(HttpStore),
}

impl Source {
    fn store(&self) -> &dyn DemandStore {
        match self {
            Self::Local(store, _) => &**store,
            Self::Remote(store) => store,
        }
    }

    /// The next events after a position; empty after [`WAIT`] without any. Cancel-safe.
    async fn next(&mut self, who: &Principal, after: u64) -> StoreResult<EventPage> {
        let (store, changes) = match self {
            Self::Remote(store) => return store.events_within(after, PAGE, WAIT).await,
            Self::Local(store, changes) => (store, changes),
        };
        if let Some(changes) = changes.as_mut() {
            changes.mark_unchanged();
        }
        let page = store.events(who, after, PAGE).await?;
        if page.events.is_empty() {
            let changed = async {
                let told = match changes {
                    Some(changes) => changes.changed().await.is_ok(),
                    None => false,
                };
                if !told {
                    tokio::time::sleep(POLL).await;
                }
            };
            // Whether something changed or time is up, the caller asks again. Changes made through
            // another server of the same store do not show here.
            let _ = tokio::time::timeout(LOCAL_WAIT, changed).await;
        }
        Ok(page)
    }
}

/// What is done with what is seen.
#[derive(Debug, Clone)]
pub struct Follow {
    /// Offers queued jobs.
    pub offerer: Arc<Offerer>,
    /// Counts changes.
    pub counts: Counts,
    /// Where agents claim the store's jobs.
    pub demand_url: String,
    /// How long a queued job is left alone first; `None` leaves offering to others.
    pub patience: Option<Duration>,
}

/// Jobs to offer out of one page of events.
#[derive(Debug, Default)]
struct Queued {
    /// Those that somebody held before: first in turn (DESIGN §7).
    recovered: Vec<JobId>,
    fresh: Vec<JobId>,
}

impl Queued {
    fn add(&mut self, event: &JobEvent) {
        match event.claim {
            Some(_) => self.recovered.push(event.job),
            None => self.fresh.push(event.job),
        }
    }

    fn remove(&mut self, job: &JobId) {
        self.recovered.retain(|queued| queued != job);
        self.fresh.retain(|queued| queued != job);
    }

    /// Whose turn it is while agents are thought to have this much `room`.
    fn first(mut self, room: usize) -> Vec<JobId> {
        // Where nobody has room, a few jobs are enough to find out whether somebody has now.
        self.fresh.truncate(room.clamp(OFFERED_MIN, OFFERED_MAX));
        let mut jobs = self.recovered;
        jobs.append(&mut self.fresh);
        jobs.truncate(OFFERED_MAX);
        jobs
    }
}

/// One store, seen by one principal.
#[derive(Debug, Clone)]
pub struct Feed {
    source: Source,
    who: Principal,
    /// Agents whose jobs were changed by somebody else.
    touched: Option<mpsc::Sender<NodeId>>,
    unclaimed: Arc<Notify>,
}

impl Feed {
    /// Follows `source` as `who`.
    pub fn new(source: Source, who: Principal) -> Self {
        Self {
            source,
            who,
            touched: None,
            unclaimed: Arc::default(),
        }
    }

    /// Also reports agents that should renew at once, because a job of theirs was cancelled.
    #[must_use]
    pub fn with_touched(self, touched: mpsc::Sender<NodeId>) -> Self {
        Self {
            touched: Some(touched),
            ..self
        }
    }

    /// Follows for ever.
    pub async fn run(mut self, follow: Follow) {
        let mut offering = JoinSet::new();
        let mut position = self.go_to_end().await;
        let waiting = Queued {
            fresh: self.queued().await,
            ..Queued::default()
        };
        self.hand_over(&follow, &mut offering, waiting).await;
        loop {
            match self.source.next(&self.who, position).await {
                Ok(page) => {
                    position = page.next;
                    let queued = self.take_in(&follow, &page.events, &mut offering);
                    self.hand_over(&follow, &mut offering, queued).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "the store's events cannot be read");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    /// The position after the last event so far.
    async fn go_to_end(&self) -> u64 {
        let mut position = 0;
        loop {
            let page = self
                .source
                .store()
                .events(&self.who, position, SKIP_PAGE)
                .await;
            match page {
                Ok(page) => {
                    position = page.next;
                    if page.events.len() < SKIP_PAGE as usize {
                        return position;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the store's events cannot be read");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    async fn list_queued(&self, limit: u32) -> Vec<JobView> {
        let filter = JobFilter {
            states: vec![JobState::Queued],
            limit,
            ..JobFilter::default()
        };
        match self.source.store().jobs(&self.who, &filter).await {
            Ok(page) => page.jobs,
            Err(error) => {
                tracing::debug!(%error, "queued jobs cannot be listed");
                Vec::new()
            }
        }
    }

    async fn queued(&self) -> Vec<JobId> {
        let limit = u32::try_from(OFFERED_MAX).unwrap_or(u32::MAX);
        let jobs = self.list_queued(limit).await;
        jobs.iter().map(|view| view.id).collect()
    }

    /// Counts events and starts what follows from them; returns the jobs to offer.
    fn take_in(
        &self,
        follow: &Follow,
        events: &[JobEvent],
        background: &mut JoinSet<()>,
    ) -> Queued {
        let mut queued = Queued::default();
        for event in events {
            follow.counts.saw(event);
            follow.offerer.saw(event);
            if let Some(agent) = lost_holder(event) {
                follow.offerer.gone(&agent);
            }
            match event.state {
                JobState::Queued => queued.add(event),
                JobState::Cancelled => self.touch(event),
                _ => queued.remove(&event.job),
            }
            if event.state.is_terminal() && background.len() < OFFERING_MAX {
                background.spawn(self.clone().mirror(follow.clone(), event.job));
            }
        }
        queued
    }

    fn touch(&self, event: &JobEvent) {
        if let (Some(touched), Some(agent)) = (&self.touched, event.agent) {
            // Full: the agent learns of it with its next renewal.
            let _ = touched.try_send(agent);
        }
    }

    /// Offers jobs in the background, a bounded number at once.
    async fn hand_over(&self, follow: &Follow, background: &mut JoinSet<()>, queued: Queued) {
        while background.try_join_next().is_some() {}
        let jobs = queued.first(follow.offerer.room());
        let Some(patience) = follow.patience.filter(|_| !jobs.is_empty()) else {
            return;
        };
        while background.len() >= OFFERING_MAX {
            background.join_next().await;
        }
        background.spawn(self.clone().offer(follow.clone(), jobs, patience));
    }

    async fn offer(self, follow: Follow, jobs: Vec<JobId>, patience: Duration) {
        if !patience.is_zero() {
            tokio::time::sleep(patience).await;
        }
        let open = self.still_open(&jobs).await;
        let offers: Vec<OpenJob> = open.iter().map(OpenJob::from).collect();
        let taken = follow.offerer.offer(&follow.demand_url, &offers).await;
        if taken.len() < offers.len() {
            self.unclaimed.notify_one();
        }
        for view in &open {
            self.tell_input(&follow, view).await;
        }
    }

    async fn still_open(&self, jobs: &[JobId]) -> Vec<JobView> {
        let store = self.source.store();
        let views = join_all(jobs.iter().map(|job| store.job(&self.who, *job))).await;
        let is_open = |view: &JobView| view.state == JobState::Queued;
        views.into_iter().flatten().filter(is_open).collect()
    }

    async fn tell_input(&self, follow: &Follow, view: &JobView) {
        let Some(input) = &view.input else { return };
        let notice = JobNotice::Input {
            job: view.id,
            root: input.root.clone(),
            seeders: input.seeders.clone(),
        };
        let neighbours = follow.offerer.neighbours();
        neighbours.publish(&view.namespace, notice).await;
    }

    async fn mirror(self, follow: Follow, job: JobId) {
        let view = match self.source.store().job(&self.who, job).await {
            Ok(view) => view,
            Err(error) => return tracing::debug!(%job, %error, "a job's end cannot be mirrored"),
        };
        let last = view.attempts.last();
        let output = view
            .result
            .as_ref()
            .and_then(|result| result.output.as_ref());
        let last = last.map(|attempt| (attempt.holder.agent, attempt.fence));
        let notice = JobNotice::Mirror(status_mirror(job, view.state, last, output));
        let neighbours = follow.offerer.neighbours();
        neighbours.publish(&view.namespace, notice).await;
    }

    /// Announces open jobs in the DHT for ever: every so often, and soon after an offer that
    /// nobody took.
    pub async fn announce(self, follow: Follow) {
        loop {
            let open = self.list_queued(ANNOUNCED_MAX).await;
            for (namespace, notice) in bulletins(&open, &follow.demand_url) {
                let neighbours = follow.offerer.neighbours();
                neighbours.publish(&namespace, notice).await;
            }
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
            tokio::select! {
                () = self.unclaimed.notified() => {}
                () = tokio::time::sleep(ANNOUNCE) => {}
            }
        }
    }
}

/// The agent whose death or silence set a job free.
fn lost_holder(event: &JobEvent) -> Option<NodeId> {
    let is_over = matches!(event.state, JobState::Queued | JobState::Dead);
    let is_lost = is_over && event.reason == Some(Reason::HolderLost);
    event.agent.filter(|_| is_lost)
}

/// One bulletin for each topic among the open jobs.
fn bulletins(open: &[JobView], demand_url: &str) -> Vec<(Namespace, JobNotice)> {
    let mut topics: BTreeMap<(Namespace, ResourceClass), Vec<JobId>> = BTreeMap::new();
    for view in open {
        let topic = (view.namespace.clone(), view.spec.resources.class());
        topics.entry(topic).or_default().push(view.id);
    }
    let bulletin = |((namespace, class), mut jobs): ((Namespace, ResourceClass), Vec<JobId>)| {
        let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        // The oldest first: they have waited longest.
        jobs.sort_unstable();
        jobs.truncate(BULLETIN_JOBS_MAX);
        let notice = JobNotice::Open {
            class,
            open: count,
            jobs,
            demand_url: demand_url.to_owned(),
        };
        (namespace, notice)
    };
    topics.into_iter().map(bulletin).collect()
}
