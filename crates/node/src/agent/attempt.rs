//! One claim on this machine, from grant to finish: prepare, run, conclude.
//!
//! The core says when ([`Order`]), this module does it and reports back. Dropping the future ends
//! the attempt wherever it is: a running task dies with its [`Running`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mutual_demand::{ClaimGrant, Manifest};
use mutual_model::agent::{End, Event, RunKey};
use mutual_model::identity::NodeKey;
use mutual_model::job::{Failure, Image, IsolationClass, JobState};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::checkpoints::Saves;
use super::images::{Images, Wish, not_started};
use super::logs::{Library, LogWriter};
use super::metrics::Metrics;
use super::mind::Input;
use super::objects::Objects;
use super::outbox::Outbox;
use super::presence::{HINT_PAUSE, Mirror, Presence};
use super::shelf::{Shelf, Unpacked};
use super::stores::StoreLink;
use crate::discovery::status_mirror;
use crate::runtime::{
    self, Class, Exit, ImageRoot, Layout, Leash, Limits, Outcome, Output, RunSpec, Running,
    Runtime, StartError, Usage,
};

/// How long a task's last words may be waited for after all its processes are gone.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// Largest checkpoint if the machine's owner does not say: 16 GiB.
pub(crate) const CHECKPOINT_BYTES_MAX_DEFAULT: u64 = 16 << 30;

/// Bounds that the machine's owner sets on every task.
#[derive(Debug, Clone)]
pub struct RunPolicy {
    /// Scratch disk of a task that asks for none, in bytes.
    pub scratch_bytes_default: u64,
    /// Processes and threads of one task.
    pub pids_max: u32,
    /// Largest input accepted, in bytes of all blocks.
    pub input_bytes_max: u64,
    /// Largest checkpoint saved, in bytes of its files.
    pub checkpoint_bytes_max: u64,
    /// How long results, checkpoints and logs are kept here, and asked of others.
    pub keep: Duration,
    /// How long other peers are sought for copies of a result.
    pub replicate_within: Duration,
}

impl Default for RunPolicy {
    /// 1 GiB, 4,096 processes, 1 TiB, 16 GiB, a day, a minute.
    fn default() -> Self {
        Self {
            scratch_bytes_default: 1 << 30,
            pids_max: 4_096,
            input_bytes_max: 1 << 40,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX_DEFAULT,
            keep: Duration::from_secs(24 * 3_600),
            replicate_within: Duration::from_secs(60),
        }
    }
}

/// What all attempts on this machine work with.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) key: Arc<NodeKey>,
    pub(super) runtime: Runtime,
    pub(super) objects: Objects,
    pub(super) images: Images,
    pub(super) shelf: Shelf,
    pub(super) logs: Library,
    pub(super) outbox: Outbox,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) metrics: Metrics,
    pub(super) tasks: PathBuf,
    pub(super) policy: RunPolicy,
}

/// What the core wants of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    Start,
    /// Until when the task may go on if nothing more is heard.
    Leash(Leash),
    Pause,
    Resume,
    Stop,
    Checkpoint(u64),
    Conclude(Option<Failure>),
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) shop: Arc<Workshop>,
    pub(super) link: Arc<StoreLink>,
    pub(super) key: RunKey,
    pub(super) grant: ClaimGrant,
    pub(super) class: IsolationClass,
    pub(super) events: mpsc::Sender<Input>,
    /// How often the DHT was told something: only the latest is.
    pub(super) said: Arc<AtomicU64>,
    pub(super) saves: Arc<Saves>,
}

/// What a task needs before it starts.
struct Prepared {
    /// None is the machine's own.
    root: Option<ImageRoot>,
    /// The input, if it is shared with other tasks; it stays until the task is over.
    input: Option<Arc<Unpacked>>,
}

/// How the live part of an attempt ended.
struct Lived {
    end: End,
    usage: Usage,
    prepared_in: Duration,
}

impl Lived {
    fn early(end: End, prepared_in: Duration) -> Self {
        Self {
            end,
            usage: Usage::default(),
            prepared_in,
        }
    }
}

impl Attempt {
    /// For what happens beside it.
    pub(super) fn share(&self) -> Self {
        Self {
            shop: self.shop.clone(),
            link: self.link.clone(),
            key: self.key.clone(),
            grant: self.grant.clone(),
            class: self.class,
            events: self.events.clone(),
            said: self.said.clone(),
            saves: self.saves.clone(),
        }
    }

    /// Where the task lives.
    pub(super) fn dir(&self) -> PathBuf {
        task_dir(&self.shop.tasks, &self.key)
    }

    pub(super) async fn tell(&self, event: Event) {
        // The mind is gone only when the agent stops.
        let _ = self.events.send(Input::Event(event)).await;
    }

    /// Lives the attempt to its finish.
    pub(super) async fn run(self, mut orders: mpsc::Receiver<Order>) {
        let begun = self.begin_log();
        let mut log = match begun {
            Ok(log) => log,
            Err(error) => {
                let reason = format!("log: {error}");
                tracing::error!(job = %self.key.job, %reason, "attempt cannot begin");
                let end = End::Failure(not_started(reason, true));
                let key = self.key.clone();
                return self.tell(Event::Ended { key, end }).await;
            }
        };
        let lived = self.live(&mut orders, &mut log).await;
        let (key, end) = (self.key.clone(), lived.end.clone());
        self.tell(Event::Ended { key, end }).await;
        while let Some(order) = orders.recv().await {
            if let Order::Conclude(failure) = order {
                let spent = (lived.prepared_in, lived.usage);
                return self.conclude(failure, spent, log).await;
            }
        }
    }

    fn begin_log(&self) -> std::io::Result<LogWriter> {
        let (job, attempt) = (self.key.job, self.grant.attempt);
        self.shop.logs.begin(job, attempt, self.key.fence)
    }

    async fn live(&self, orders: &mut mpsc::Receiver<Order>, log: &mut LogWriter) -> Lived {
        let begun = Instant::now();
        log.state(JobState::Preparing);
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            () = told_to_stop(orders) => return Lived::early(End::Stopped, begun.elapsed()),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Lived::early(End::Failure(failure), begun.elapsed()),
        };
        let prepared_in = begun.elapsed();
        self.shop.metrics.prepared(prepared_in);
        tracing::debug!(job = %self.key.job, ?prepared_in, "prepared");
        let key = self.key.clone();
        self.tell(Event::Prepared { key }).await;
        let Some(leash) = told_to_start(orders).await else {
            return Lived::early(End::Stopped, prepared_in);
        };
        let running = match self.start(&prepared, leash).await {
            Ok(running) => running,
            Err(error) => return Lived::early(start_failure(error), prepared_in),
        };
        tracing::debug!(job = %self.key.job, pid = running.pid(), "running");
        log.state(JobState::Running);
        let key = self.key.clone();
        self.tell(Event::Started { key }).await;
        self.mirror(JobState::Running, None);
        let (end, usage) = self.attend(running, orders, log).await;
        self.shop.metrics.ran(usage.ran);
        Lived {
            end,
            usage,
            prepared_in,
        }
    }

    /// Image, input and checkpoint, at the same time.
    async fn prepare(&self) -> Result<Prepared, Failure> {
        if self.class == IsolationClass::Process && self.grant.spec.image != Image::Host {
            let reason =
                "image: class process runs on this machine's own files; ask for class container";
            return Err(not_started(reason.to_owned(), true));
        }
        let layout = self.lay_out()?;
        let (spec, objects) = (&self.grant.spec, &self.shop.objects);
        let wish = Wish {
            job: self.key.job,
            namespace: &self.grant.namespace,
            keep_until: self.keep_until(),
        };
        let root = self.shop.images.root(&spec.image, wish, objects);
        let (root, input, ()) = tokio::try_join!(
            root,
            self.fetch_input(layout.input()),
            self.restore_checkpoint(layout.checkpoint()),
        )?;
        Ok(Prepared { root, input })
    }

    fn lay_out(&self) -> Result<Layout, Failure> {
        let dir = self.dir();
        let wrong = |error: std::io::Error| not_started(format!("task directory: {error}"), true);
        // Input and checkpoint directories are made by unpacking; made again here they are kept.
        std::fs::create_dir_all(&dir).map_err(wrong)?;
        Layout::prepare(dir).map_err(wrong)
    }

    async fn start(
        &self,
        prepared: &Prepared,
        leash: Option<Leash>,
    ) -> Result<Running, StartError> {
        let mut run = self.run_spec(prepared);
        run.leash = leash;
        self.shop.runtime.start(run).await
    }

    fn run_spec(&self, prepared: &Prepared) -> RunSpec {
        let spec = &self.grant.spec;
        let need = &spec.resources;
        let scratch = match need.scratch_bytes {
            0 => self.shop.policy.scratch_bytes_default,
            asked => asked,
        };
        let mut run = RunSpec::new(
            self.key.job.to_string(),
            Class::from(self.class),
            spec.command.clone(),
            self.dir(),
        );
        run.attempt = self.grant.attempt;
        run.input = prepared.input.as_ref().map(|tree| tree.dir().to_owned());
        run.env = self.environment();
        if let Some(root) = &prepared.root {
            root.apply(&mut run);
        }
        run.network = spec.network;
        run.limits = Limits {
            cpu_millis: Some(need.cpu_millis),
            memory_bytes: Some(need.memory_bytes),
            pids: Some(self.shop.policy.pids_max),
            scratch_bytes: Some(scratch),
            time: Some(Duration::from_millis(spec.timeout_ms)),
        };
        run
    }

    /// What the runtime does not set itself (DESIGN §7: attempt and fence in the environment).
    fn environment(&self) -> BTreeMap<String, String> {
        let spec = &self.grant.spec;
        let mut env = spec.env.clone();
        env.insert("MUTUAL_FENCE".to_owned(), self.key.fence.to_string());
        if let Some(array) = spec.array {
            env.insert("MUTUAL_ARRAY_INDEX".to_owned(), array.index.to_string());
            env.insert("MUTUAL_ARRAY_COUNT".to_owned(), array.count.to_string());
        }
        env
    }

    /// Carries out orders while the task runs, and keeps its log.
    async fn attend(
        &self,
        mut running: Running,
        orders: &mut mpsc::Receiver<Order>,
        log: &mut LogWriter,
    ) -> (End, Usage) {
        let mut output = running.take_output();
        let mut saving = JoinSet::new();
        let mut commanded = true;
        let exit = loop {
            tokio::select! {
                exit = running.wait() => break exit,
                piece = next_piece(&mut output) => match piece {
                    Some(piece) => log.piece(&piece),
                    None => output = None,
                },
                order = orders.recv(), if commanded => {
                    commanded = order.is_some();
                    self.obey(order, &running, &mut saving).await;
                }
                Some(saved) = saving.join_next() => if let Ok(Some(words)) = saved {
                    log.note(&words);
                },
            }
        };
        let rest = read_rest(output, log);
        let _ = tokio::time::timeout(LAST_WORDS_WITHIN, rest).await;
        (end_of(&exit), exit.usage)
    }

    async fn obey(
        &self,
        order: Option<Order>,
        running: &Running,
        saving: &mut JoinSet<Option<String>>,
    ) {
        // That the task has ended meanwhile is told by its exit.
        let _ = match order {
            Some(Order::Pause) => {
                self.shop.metrics.paused();
                running.pause().await
            }
            Some(Order::Resume) => running.resume().await,
            Some(Order::Leash(leash)) => running.leash(leash).await,
            Some(Order::Stop) => running.kill().await,
            Some(Order::Checkpoint(sequence)) => {
                saving.spawn(self.checkpoint(sequence));
                Ok(())
            }
            Some(Order::Start | Order::Conclude(_)) => Ok(()),
            // The mind is gone: nobody will pause or stop this task any more.
            None => running.kill().await,
        };
    }

    /// Tells the DHT, without waiting for it; what is not the end only if nothing else follows soon.
    pub(super) fn mirror(&self, state: JobState, output: Option<&Manifest>) {
        let last = Some((self.shop.key.id(), self.key.fence));
        let mirror = Mirror {
            namespace: self.grant.namespace.clone(),
            status: status_mirror(self.key.job, state, last, output),
        };
        let presence = self.shop.presence.clone();
        let turn = self.said.fetch_add(1, Ordering::Relaxed) + 1;
        let said = Arc::clone(&self.said);
        tokio::spawn(async move {
            if !state.is_terminal() {
                tokio::time::sleep(HINT_PAUSE).await;
            }
            if said.load(Ordering::Relaxed) == turn {
                presence.mirror(mirror).await;
            }
        });
    }
}

/// An attempt at work, as the mind holds it. Dropping it ends the attempt.
#[derive(Debug)]
pub(super) struct Handle {
    orders: mpsc::Sender<Order>,
    _task: AbortOnDropHandle<()>,
}

impl Handle {
    pub(super) fn spawn(attempt: Attempt) -> Self {
        let (orders, received) = mpsc::channel(64);
        let task = tokio::spawn(attempt.run(received));
        Self {
            orders,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) fn order(&self, order: Order) {
        // The core sends a handful of orders in an attempt's life; a closed queue means its end.
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
            tracing::error!(?order, "an attempt does not take orders");
        }
    }
}

/// The directory of a run.
pub(super) fn task_dir(tasks: &std::path::Path, key: &RunKey) -> PathBuf {
    let store = blake3::hash(key.store.as_str().as_bytes()).to_hex();
    tasks.join(format!("{}-{}-{}", key.job, key.fence, &store[..8]))
}

async fn told_to_stop(orders: &mut mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        if order == Order::Stop {
            return;
        }
    }
}

/// Under which leash to start; outer `None` is not at all.
async fn told_to_start(orders: &mut mpsc::Receiver<Order>) -> Option<Option<Leash>> {
    let mut leash = None;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Start => return Some(leash),
            Order::Stop => return None,
            Order::Leash(told) => leash = Some(told),
            _ => {}
        }
    }
    None
}

async fn next_piece(output: &mut Option<Output>) -> Option<runtime::Piece> {
    match output {
        Some(output) => output.next().await,
        None => std::future::pending().await,
    }
}

async fn read_rest(output: Option<Output>, log: &mut LogWriter) {
    if let Some(mut output) = output {
        while let Some(piece) = output.next().await {
            log.piece(&piece);
        }
    }
}

fn start_failure(error: StartError) -> End {
    let retryable = matches!(
        error,
        StartError::ClassAbsent { .. } | StartError::BadImage(_) | StartError::Setup(_)
    );
    End::Failure(not_started(error.to_string(), retryable))
}

fn end_of(exit: &Exit) -> End {
    let failure = match &exit.outcome {
        Outcome::Code(0) => return End::Success,
        Outcome::Killed => return End::Stopped,
        Outcome::Lost(reason) => {
            tracing::error!(%reason, "a task was lost");
            return End::Stopped;
        }
        Outcome::Code(code) => Failure::ExitCode { code: *code },
        Outcome::Signal(signal) => Failure::Signal { signal: *signal },
        Outcome::OutOfMemory => Failure::OutOfMemory,
        Outcome::TimeLimit => Failure::TimeLimit,
        Outcome::ScratchLimit => Failure::ScratchFull,
        // The watcher ended it as the kernel would have.
        Outcome::PidsLimit => Failure::Signal { signal: 9 },
        Outcome::NotStarted(reason) => not_started(reason.clone(), false),
    };
    End::Failure(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outcome: Outcome, expected: &End) {
        let exit = Exit {
            outcome,
            usage: Usage::default(),
            oom_kills: 0,
        };
        assert_eq!(end_of(&exit), *expected);
    }

    #[test]
    fn every_way_to_end_is_told_apart() {
        check(Outcome::Code(0), &End::Success);
        check(Outcome::Killed, &End::Stopped);
        check(Outcome::Lost("shim".into()), &End::Stopped);
        let failures = [
            (Outcome::Code(3), Failure::ExitCode { code: 3 }),
            (Outcome::Signal(11), Failure::Signal { signal: 11 }),
            (Outcome::OutOfMemory, Failure::OutOfMemory),
            (Outcome::TimeLimit, Failure::TimeLimit),
            (Outcome::ScratchLimit, Failure::ScratchFull),
        ];
        for (outcome, failure) in failures {
            check(outcome, &End::Failure(failure));
        }
    }

    #[test]
    fn a_missing_command_is_not_tried_elsewhere_but_a_missing_class_is() {
        let end = start_failure(StartError::NotFound("no such command: x".into()));
        assert_eq!(
            end,
            End::Failure(not_started("no such command: x".into(), false))
        );
        let end = start_failure(StartError::Setup("cgroup".into()));
        let expected = "setting up the task: cgroup".to_owned();
        assert_eq!(end, End::Failure(not_started(expected, true)));
    }
}
