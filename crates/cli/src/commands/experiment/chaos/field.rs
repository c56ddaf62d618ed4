//! One run: a cloud of its own, tasks fed to it, and everything gone afterwards.

use std::time::{Duration, Instant};

use mutual_node::config::LivenessProfile;
use mutual_node::demand::{JobFilter, JobView};
use rand::RngExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::evidence::{Evidence, NEED};
use super::judge::Account;
use super::recovery::Fault;
use super::watch::{LOOK, Watch};
use crate::args::Session;
use crate::client::Client;
use crate::cloud::{Beyond, Cloud, Plan};
use crate::commands::demo::clean_up;
use crate::commands::node::ended;
use crate::failure::{Failure, Outcome};
use crate::scratch::Scratch;

/// Of the organisation, and of the directory.
const NAME: &str = "experiment";
/// How long the store may take to tell what is new.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Agents beyond share processes: as many processes fit a machine with two cores and 24 GiB.
const ALONE_MAX: usize = 200;
/// Agents in each shared process.
const TOGETHER: usize = 15;
/// What one agent may take to start, when many do.
const START_PER_AGENT: Duration = Duration::from_secs(2);
/// What is allowed beyond all that can be computed.
const SLACK: Duration = Duration::from_secs(180);
/// Open files that a server needs for each agent, generously, and for itself.
const FILES_PER_AGENT: u64 = 16;
const FILES: u64 = 512;

/// What a run consists of.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) agents: usize,
    /// Tasks at once on each agent.
    pub(crate) slots: u32,
    pub(crate) tasks: usize,
    /// Tasks that wait or run at the same time.
    pub(crate) in_flight: usize,
    /// How long a task runs at least.
    pub(crate) duration: Duration,
    /// How much longer, as a share of that, the longest one runs.
    pub(crate) spread: f64,
    pub(crate) profile: LivenessProfile,
    /// Whether another process does nothing but keep blocks.
    pub(crate) seeder: bool,
    /// The demand store's PostgreSQL, instead of a file of its own.
    pub(crate) postgres: Option<String>,
    /// Some agents live beyond a link that can be cut.
    pub(crate) link: Option<Beyond>,
}

impl Setting {
    fn plan(&self) -> Plan {
        Plan {
            alone: ALONE_MAX,
            together: TOGETHER,
            profile: self.profile,
            seeder: self.seeder,
            postgres: self.postgres.clone(),
            beyond: self.link.clone(),
            ..Plan::new(NAME, self.agents, self.slots, NEED)
        }
    }

    /// A run that takes longer is stuck: four times what its tasks take, and its start.
    fn longest(&self) -> Duration {
        let at_once = self.in_flight.min(self.agents * self.slots as usize).max(1);
        let waves = self.tasks.div_ceil(at_once) as u32;
        let task = self.duration.mul_f64(1.0 + self.spread) + Duration::from_secs(1);
        START_PER_AGENT * self.agents as u32 + 4 * waves * task + SLACK
    }
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) cloud: &'a mut Cloud,
    pub(crate) client: Client,
    pub(crate) evidence: &'a Evidence,
    pub(crate) watch: Watch,
    submitted: usize,
    /// How long the cloud took to start.
    pub(crate) started_in: Duration,
}

/// Starts a cloud, lets `act` do what it wants with it, and clears everything away, also if it
/// fails, takes too long or is interrupted.
pub(crate) async fn on<T>(
    session: &Session,
    setting: &Setting,
    act: impl AsyncFnOnce(&mut Field<'_>) -> Outcome<T>,
) -> Outcome<T> {
    allow_files(setting.agents)?;
    let evidence = Evidence::new()?;
    let scratch = Scratch::new("mutual-experiment-")?;
    let mut cloud = Cloud::new(scratch.path(), setting.plan())?;
    let acted = async {
        let mut field = Field::begin(session, setting, &mut cloud, &evidence).await?;
        act(&mut field).await
    };
    let longest = setting.longest();
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(longest, acted) => outcome.unwrap_or_else(|_| {
            Err(Failure::internal(format!("a run did not end within {longest:?}")))
        }),
        _ = ended() => Err(Failure::interrupted("interrupted; everything is cleaned up")),
    };
    let outcome = outcome.map_err(|failure| cloud.explain(failure));
    cloud.stop().await;
    evidence.close()?;
    clean_up(session, scratch, outcome.is_err() && session.verbose > 0);
    outcome
}

/// Servers keep connections to every agent; processes inherit what this one may open.
fn allow_files(agents: usize) -> Outcome {
    let needed = FILES + agents as u64 * FILES_PER_AGENT;
    let limits = getrlimit(Resource::Nofile);
    let allowed = limits.maximum.unwrap_or(u64::MAX);
    if allowed < needed {
        let words = format!("{agents} agents need {needed} open files, and {allowed} are allowed");
        return Err(Failure::configuration(words).hint("raise the hard limit: ulimit -Hn"));
    }
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised).map_err(Failure::internal)
}

impl<'a> Field<'a> {
    async fn begin(
        session: &Session,
        setting: &'a Setting,
        cloud: &'a mut Cloud,
        evidence: &'a Evidence,
    ) -> Outcome<Self> {
        let since = Instant::now();
        cloud.start().await?;
        let session = Session {
            context: Some(cloud.context_path()),
            ..session.clone()
        };
        Ok(Self {
            setting,
            client: Client::open(&session)?,
            cloud,
            evidence,
            watch: Watch::default(),
            submitted: 0,
            started_in: since.elapsed(),
        })
    }

    /// Looks at the store, and keeps as many tasks in flight as the setting says.
    pub(crate) async fn step(&mut self) -> Outcome {
        self.step_after(LOOK).await.map(drop)
    }

    /// The same after a while; tells whether the store answered.
    pub(crate) async fn step_after(&mut self, pause: Duration) -> Outcome<bool> {
        tokio::time::sleep(pause).await;
        // Nothing else may wait for a store that is away.
        let look = tokio::time::timeout(LOOK_MAX, self.watch.look(&self.client));
        let answered = look.await.unwrap_or(Ok(false))?;
        self.feed().await?;
        Ok(answered)
    }

    /// Goes on until something holds.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Watch) -> bool) -> Outcome {
        while !holds(&self.watch) {
            self.step().await?;
        }
        Ok(())
    }

    /// Goes on until every task is over, however.
    pub(crate) async fn finish(&mut self) -> Outcome {
        let tasks = self.setting.tasks;
        self.until(|watch| watch.over() >= tasks).await
    }

    async fn feed(&mut self) -> Outcome {
        let in_flight = self.submitted - self.watch.over().min(self.submitted);
        let room = self.setting.in_flight.saturating_sub(in_flight);
        let more = room.min(self.setting.tasks - self.submitted);
        if more == 0 {
            return Ok(());
        }
        let specs = (0..more).map(|_| {
            let longer = 1.0 + self.setting.spread * rand::rng().random::<f64>();
            self.evidence.task(self.setting.duration.mul_f64(longer))
        });
        let namespace = self.cloud.namespace();
        self.client
            .submit_specs(namespace, specs.collect(), None)
            .await?;
        self.submitted += more;
        Ok(())
    }

    /// Everything that is known in the end.
    pub(crate) async fn account(&self, faults: Vec<Fault>) -> Outcome<Account> {
        Ok(Account {
            tasks: self.setting.tasks,
            jobs: self.jobs().await?,
            executions: self.evidence.read()?,
            faults,
        })
    }

    /// Every job as the store shows it.
    async fn jobs(&self) -> Outcome<Vec<JobView>> {
        let mut filter = JobFilter {
            limit: 1_000,
            ..JobFilter::default()
        };
        let mut jobs = Vec::new();
        loop {
            let page = self.client.jobs(&filter).await?;
            jobs.extend(page.jobs);
            match page.next {
                Some(next) => filter.before = Some(next),
                None => return Ok(jobs),
            }
        }
    }
}
