//! The user's side of the cloud: jobs through any living control server, or straight to the demand
//! store when none lives; objects always straight from and to peers.

use std::sync::Arc;

use mutual_node::demand::http::{HttpStore, HttpStoreConfig};
use mutual_node::demand::{
    Attempt, DemandStore as _, EventPage, JobFilter, JobPage, JobView, Manifest, Principal,
    StoreInfo, Submission,
};
use mutual_node::model::ids::{ClientKey, JobId, Namespace};
use mutual_node::model::job::TaskSpec;
use mutual_node::model::record::{NodeRecord, StatusMirror};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::args::Session;
use crate::context::Context;
use crate::failure::{Failure, Kind, Outcome};
use crate::job_draft::JobDraft;
use crate::output::Output;

mod control;
mod exchange;
pub(crate) mod follow;
mod offer;
mod transfer;

use control::Control;
use exchange::Exchange;
pub(crate) use exchange::Places;
pub(crate) use transfer::check_target;

/// Tasks in one submission; the store's own bound.
const SUBMIT_MAX: usize = 1_000;

/// Where a job's log stream is, and what opens it.
#[derive(Debug)]
pub(crate) struct LogAccess {
    /// WebSocket address at the agent.
    pub(crate) url: String,
    /// Good for a minute.
    pub(crate) token: Zeroizing<String>,
}

/// Why a job is where it is, as a server knows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Explanation {
    pub(crate) task: JobView,
    /// Milliseconds in the queue.
    pub(crate) waiting_ms: Option<u64>,
    /// Agents that were offered it and did not want it.
    pub(crate) declined: Vec<Declined>,
    /// Every known machine of its namespace.
    pub(crate) nodes: Vec<Fit>,
}

/// One agent's no.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Declined {
    pub(crate) agent: String,
    pub(crate) reason: String,
}

/// Whether a machine could take a job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fit {
    pub(crate) node: String,
    /// What keeps it from it.
    pub(crate) unfit: Option<String>,
}

/// A user's connection to the cloud.
#[derive(Debug)]
pub(crate) struct Client {
    context: Context,
    output: Output,
    control: Control,
    store: Option<HttpStore>,
    places: Places,
    /// Started when the first object travels.
    exchange: OnceCell<Exchange>,
}

impl Client {
    /// Reads context and token; asks nobody yet.
    pub(crate) fn open(session: &Session) -> Outcome<Self> {
        let context = Context::find(session.context.as_deref())?;
        let token = context.token()?;
        let control = Control::new(context.file.control.clone(), &token)?;
        let store = match context.file.demand.is_empty() {
            true => None,
            false => Some(direct(&context.file.demand, &control)?),
        };
        Ok(Self {
            context,
            output: session.output,
            control,
            store,
            places: session.places.clone(),
            exchange: OnceCell::new(),
        })
    }

    /// The demand store itself, for when no control lives.
    fn store(&self) -> Outcome<&HttpStore> {
        self.store.as_ref().ok_or_else(|| {
            Failure::unavailable("no control server answers, and the context names no demand store")
                .hint("add demand = [\"http://HOST:PORT\"] to the context file")
        })
    }

    /// What the store says of itself.
    pub(crate) async fn store_info(&self) -> Outcome<StoreInfo> {
        Ok(self.store()?.info().await?)
    }

    /// Begins a new epoch. Only at the store itself.
    pub(crate) async fn new_epoch(&self) -> Outcome<u64> {
        Ok(self.store()?.new_epoch(&nobody()).await?)
    }

    /// One job.
    pub(crate) async fn job(&self, job: JobId) -> Outcome<JobView> {
        match unless_absent(self.control.job(job).await)? {
            Some(view) => Ok(view),
            None => Ok(self.store()?.job(&nobody(), job).await?),
        }
    }

    /// What the DHT remembers of a job, for when nobody else answers.
    pub(crate) async fn mirror(&self, job: JobId) -> Outcome<Option<StatusMirror>> {
        self.exchange().await?.mirror(job).await
    }

    /// A page of jobs.
    pub(crate) async fn jobs(&self, filter: &JobFilter) -> Outcome<JobPage> {
        match unless_absent(self.control.jobs(filter).await)? {
            Some(page) => Ok(page),
            None => Ok(self.store()?.jobs(&nobody(), filter).await?),
        }
    }

    /// Changes of all jobs after a position, from the store itself.
    pub(crate) async fn events(&self, after: u64, limit: u32) -> Outcome<EventPage> {
        Ok(self.store()?.events(&nobody(), after, limit).await?)
    }

    /// Ends a job.
    pub(crate) async fn cancel(&self, job: JobId, reason: &str) -> Outcome<JobView> {
        match unless_absent(self.control.cancel(job, reason).await)? {
            Some(view) => Ok(view),
            None => Ok(self.store()?.cancel(&nobody(), job, reason).await?),
        }
    }

    /// Asks the holder of a job for a checkpoint.
    pub(crate) async fn request_checkpoint(&self, job: JobId) -> Outcome {
        match unless_absent(self.control.request_checkpoint(job).await)? {
            Some(_) => Ok(()),
            None => Ok(self.store()?.request_checkpoint(&nobody(), job).await?),
        }
    }

    /// Where a held job's log stream is.
    pub(crate) async fn log_access(&self, job: JobId, attempt: &Attempt) -> Outcome<LogAccess> {
        if let Some(access) = unless_absent(self.control.log_access(job).await)? {
            return Ok(access);
        }
        let access = self.control.log_access_at(self.store()?.bases(), job).await;
        access.map_err(|failure| failure.about(format!("the log at {}", attempt.agent_url)))
    }

    /// Why a job is where it is.
    pub(crate) async fn explain(&self, job: JobId) -> Outcome<Explanation> {
        match unless_absent(self.control.explain(job).await)? {
            Some(explanation) => Ok(explanation),
            None => self.control.explain_at(self.store()?.bases(), job).await,
        }
    }

    /// Seeds a draft's input and submits its members.
    pub(crate) async fn submit(&self, draft: &JobDraft) -> Outcome<Vec<JobId>> {
        let mut specs = draft.members()?;
        if let (None, Some(copies)) = (draft.result_copies, self.context.file.result_copies) {
            specs
                .iter_mut()
                .for_each(|spec| spec.result_copies = copies);
        }
        let namespace = draft
            .namespace
            .as_ref()
            .unwrap_or(&self.context.file.namespace);
        let input = match draft.inputs.is_empty() {
            true => None,
            false => Some(self.seed_inputs(namespace, &draft.inputs).await?),
        };
        let submitted = self.submit_specs(namespace, specs, input).await;
        // To a store, a namespace that the token does not name is one that is not there.
        submitted.map_err(|failure| match &draft.namespace {
            Some(named) if failure.kind == Kind::User => {
                failure.about(format!("namespace {named}"))
            }
            _ => failure,
        })
    }

    /// Submits tasks that share one input, already seeded, so that nothing is ever half-stored.
    pub(crate) async fn submit_specs(
        &self,
        namespace: &Namespace,
        specs: Vec<TaskSpec>,
        input: Option<Manifest>,
    ) -> Outcome<Vec<JobId>> {
        let run: u128 = rand::random();
        let mut jobs = Vec::with_capacity(specs.len());
        for (part, chunk) in specs.chunks(SUBMIT_MAX).enumerate() {
            let submission = |(at, spec): (usize, &TaskSpec)| {
                Ok(Submission {
                    namespace: namespace.clone(),
                    client_key: client_key(run, part * SUBMIT_MAX + at)?,
                    spec: spec.clone(),
                    result_key: None,
                    input: input.clone(),
                })
            };
            let tasks = chunk
                .iter()
                .enumerate()
                .map(submission)
                .collect::<Outcome<Vec<_>>>()?;
            jobs.extend(self.submit_once(tasks).await?);
        }
        Ok(jobs)
    }

    /// The client key makes a repetition after a lost answer harmless, also at another server.
    async fn submit_once(&self, tasks: Vec<Submission>) -> Outcome<Vec<JobId>> {
        match unless_absent(self.control.submit(&tasks).await)? {
            Some(jobs) => Ok(jobs),
            None => self.submit_and_offer(tasks).await,
        }
    }

    /// Straight to the demand store; then what control would have done (DESIGN §1).
    async fn submit_and_offer(&self, tasks: Vec<Submission>) -> Outcome<Vec<JobId>> {
        let store = self.store()?;
        let submitted = store.submit(&nobody(), tasks.clone()).await?;
        let jobs: Vec<JobId> = submitted.iter().map(|submitted| submitted.job).collect();
        if let Err(failure) = self.offer(store, &jobs, &tasks).await {
            // They are queued: agents that ask the store find them all the same.
            tracing::info!(%failure, "the jobs were not offered to agents");
        }
        Ok(jobs)
    }

    /// The machines that serve the user's namespace, by their own records in the DHT.
    pub(crate) async fn nodes(&self) -> Outcome<Vec<NodeRecord>> {
        self.exchange()
            .await?
            .nodes(&self.context.file.namespace)
            .await
    }

    /// The node that this client is while objects travel.
    async fn exchange(&self) -> Outcome<&Exchange> {
        self.exchange
            .get_or_try_init(|| Exchange::start(&self.context, &self.places))
            .await
    }
}

/// The answer of a control server; `None` if no control lives, so that the store itself is asked.
fn unless_absent<T>(answer: Outcome<T>) -> Outcome<Option<T>> {
    match answer {
        Err(failure) if failure.kind == Kind::Unavailable => {
            tracing::info!(%failure, "no control lives; asking the demand store itself");
            Ok(None)
        }
        answered => answered.map(Some),
    }
}

/// HTTP stores believe the credential, not the principal they are given.
fn nobody() -> Principal {
    Principal {
        subject: String::new(),
        node: None,
        sealing: mutual_node::model::identity::SealingPublic([0; 32]),
        namespaces: Vec::new(),
        rights: Vec::new(),
    }
}

fn client_key(run: u128, index: usize) -> Outcome<ClientKey> {
    format!("{run:032x}-{index}")
        .parse()
        .map_err(Failure::internal)
}

fn direct(urls: &[String], control: &Control) -> Outcome<HttpStore> {
    HttpStore::new(urls, Arc::new(control.bearer()), HttpStoreConfig::default())
        .map_err(Failure::configuration)
}
