//! The acts of the demo: work, two deaths, recovery, proof.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutual_node::auth::unix_now;
use mutual_node::demand::JobView;
use mutual_node::model::identity::NodeId;
use mutual_node::model::ids::JobId;
use mutual_node::model::job::{ArrayIndex, JobState, TaskSpec};
use mutual_node::model::time::{UnixMillis, millis};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::input::Input;
use super::story::Story;
use super::watch::{Board, Room, holder, number};
use super::work::{RESULT_FILE, SCRIPT, STEPS, expected};
use crate::args::Session;
use crate::client::Client;
use crate::client::follow::{Follower, Line};
use crate::cloud::Cloud;
use crate::failure::{Failure, Naming as _, Outcome};
use crate::output::size;

/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a task of the first wave rests in all.
const EARLY_REST: Duration = Duration::from_millis(1_500);
/// How long a later one rests, and how much longer for each task there is: all of the first wave
/// are over while the later ones run, whatever else this machine does, so there is always an agent
/// with both to kill.
const LATE_REST: Duration = Duration::from_millis(3_200);
const LATE_REST_PER_TASK: Duration = Duration::from_millis(60);
/// How long to wait until some agent both runs something and has finished something.
const MOMENT: Duration = Duration::from_secs(60);
/// Lines that may wait to be told.
const LINES_MAX: usize = 10_000;

/// A log stream that is followed.
#[derive(Debug)]
struct Stream {
    job: JobId,
    agent: NodeId,
    lines: mpsc::Receiver<(Instant, Line)>,
    follower: JoinHandle<Outcome<(JobView, u32)>>,
    seen: Vec<Instant>,
}

/// The agent's death.
#[derive(Debug)]
struct Death {
    agent: NodeId,
    /// Whether the others could take its tasks over at once.
    had_room: bool,
    at: UnixMillis,
    running: Vec<JobId>,
    finished: Vec<JobId>,
    rescued: BTreeSet<JobId>,
}

/// The demo under way.
pub(super) struct Play<'a> {
    client: Arc<Client>,
    story: &'a mut Story,
    cloud: &'a mut Cloud,
    input: &'a Input,
    board: Board,
    /// A victim's task began at most this long ago: it will not end before the kill.
    fresh_ms: u64,
    stream: Option<Stream>,
    control_died: Option<Instant>,
    death: Option<Death>,
}

impl<'a> Play<'a> {
    /// Seeds the input and submits the array.
    pub(super) async fn begin(
        session: &Session,
        story: &'a mut Story,
        cloud: &'a mut Cloud,
        input: &'a Input,
        tasks: u32,
    ) -> Outcome<Self> {
        let client = Arc::new(Client::open(session)?);
        let seeded = client
            .seed(&input.root, &|path, is_dir| input.choose(path, is_dir))
            .await?;
        let holders = seeded
            .receipts
            .iter()
            .map(|receipt| receipt.holder.node_id());
        let keepers: Vec<_> = holders.map(|holder| cloud.name_of(&holder)).collect();
        story.event(format!(
            "input sealed and seeded: {} of ciphertext, vouched for by {}",
            size(seeded.bytes),
            keepers.join(", ")
        ));
        story.step(&format!("input CID {}", seeded.root));
        let short = first_wave(cloud);
        let specs = specs(cloud, tasks, short)?;
        let namespace = cloud.namespace();
        client.submit_specs(namespace, specs, Some(seeded)).await?;
        story.event(format!("{tasks} tasks submitted through control"));
        let mut board = Board {
            short,
            ..Board::default()
        };
        board.refresh(&client).await?;
        Ok(Self {
            client,
            story,
            cloud,
            input,
            board,
            fresh_ms: millis(late_rest(tasks)) * 5 / 8,
            stream: None,
            control_died: None,
            death: None,
        })
    }

    /// Looks at the board and tells what is new.
    async fn look(&mut self) -> Outcome {
        tokio::time::sleep(LOOK).await;
        let changed = self.board.refresh(&self.client).await?;
        for at in changed {
            self.tell_state(at);
        }
        self.tell_lines();
        self.tell_rescues();
        Ok(())
    }

    fn tell_state(&mut self, at: usize) {
        let Some(job) = self.board.jobs.get(at) else {
            return;
        };
        let agent = holder(job)
            .map(|agent| self.cloud.name_of(&agent))
            .unwrap_or_default();
        match job.state {
            JobState::Running => self
                .story
                .step(&format!("task {} runs on {agent}", number(job))),
            JobState::Succeeded => {
                self.story
                    .step(&format!("task {} succeeded on {agent}", number(job)));
            }
            _ => {}
        }
    }

    fn tell_lines(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let who = self
            .board
            .get(stream.job)
            .map_or(String::new(), |job| format!("task {}", number(job)));
        while let Ok((at, line)) = stream.lines.try_recv() {
            if let Line::Output { bytes, .. } = line {
                stream.seen.push(at);
                self.story
                    .log(&who, String::from_utf8_lossy(&bytes).trim_end());
            }
        }
    }

    fn tell_rescues(&mut self) {
        let Some(death) = &mut self.death else {
            return;
        };
        for id in death.running.clone() {
            let Some(job) = self.board.get(id).filter(|_| !death.rescued.contains(&id)) else {
                continue;
            };
            let later = job
                .attempts
                .last()
                .filter(|attempt| attempt.holder.agent != death.agent);
            let Some((attempt, started)) = later.and_then(|later| Some((later, later.started_at?)))
            else {
                continue;
            };
            death.rescued.insert(id);
            let waited = match death.had_room {
                true => "",
                false => " (no slot was free at first)",
            };
            self.story.rescue(format!(
                "task {} taken over by {}: claimed {} ms after the kill{waited}, running again after {} ms",
                number(job),
                self.cloud.name_of(&attempt.holder.agent),
                attempt.claimed_at.0.saturating_sub(death.at.0),
                started.0.saturating_sub(death.at.0),
            ));
        }
    }

    /// Waits until one agent runs something and has finished something, while a log stream of
    /// another agent's task is open.
    pub(super) async fn wait_for_the_moment(&mut self) -> Outcome {
        let since = Instant::now();
        while since.elapsed() < MOMENT {
            self.look().await?;
            if self.board.all_succeeded()? {
                break;
            }
            let has_finished = self
                .board
                .jobs
                .iter()
                .any(|job| job.state == JobState::Succeeded);
            if has_finished && self.has_moment().await? {
                return Ok(());
            }
        }
        Err(
            Failure::user("no agent ever held both a running task and a finished one")
                .hint("give the demo more files with --input, or more tasks with --tasks"),
        )
    }

    async fn has_moment(&mut self) -> Outcome<bool> {
        if self.stream_agent().is_none() {
            self.open_stream();
        }
        let streams = self
            .stream
            .as_ref()
            .is_some_and(|stream| !stream.seen.is_empty());
        let room = Room::of(self.cloud);
        let victim = self
            .stream_agent()
            .and_then(|agent| self.board.victim(agent, self.fresh_ms, &room));
        Ok(streams && victim.is_some())
    }

    /// The agent of the followed task, if that task still runs.
    fn stream_agent(&self) -> Option<NodeId> {
        let stream = self.stream.as_ref()?;
        let job = self.board.get(stream.job)?;
        (job.state == JobState::Running).then_some(stream.agent)
    }

    fn open_stream(&mut self) {
        let Some((job, agent)) = self
            .board
            .youngest(self.fresh_ms)
            .and_then(|job| Some((job.id, holder(job)?)))
        else {
            return;
        };
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let client = self.client.clone();
        let follower = tokio::spawn(async move {
            let mut follower = Follower::new(&client, job);
            let view = follower
                .run(&mut |line| drop(sender.try_send((Instant::now(), line.clone()))))
                .await?;
            Ok((view, follower.streams))
        });
        self.stream = Some(Stream {
            job,
            agent,
            lines,
            follower,
            seen: Vec::new(),
        });
    }

    /// Control dies and stays dead.
    pub(super) async fn kill_control(&mut self) -> Outcome {
        let control = self.cloud.process("control")?;
        let (pid, at) = (control.pid(), control.kill()?);
        self.control_died = Some(at);
        self.story
            .death(format!("SIGKILL control (pid {pid}); it stays dead"));
        self.look().await
    }

    /// An agent dies with its tasks and its copy of its results.
    pub(super) async fn kill_agent(&mut self) -> Outcome {
        let stays = self.stream.as_ref().map(|stream| stream.agent);
        let (since, room) = (Instant::now(), Room::of(self.cloud));
        let agent = loop {
            let found = stays.and_then(|stays| self.board.victim(stays, self.fresh_ms, &room));
            match found {
                Some(agent) => break agent,
                None if since.elapsed() > MOMENT => {
                    return Err(Failure::internal("no agent to kill"));
                }
                None => self.look().await?,
            }
        };
        let name = self.cloud.name_of(&agent);
        let (running, finished) = (self.board.running(agent), self.board.finished(agent));
        let had_room = self.board.fits_elsewhere(agent, &room);
        let text = format!(
            "it ran {} and had finished {}",
            self.numbers(&running),
            self.numbers(&finished)
        );
        let victim = self.cloud.process(&name)?;
        let at = unix_now();
        victim.kill()?;
        let pid = victim.pid();
        self.death = Some(Death {
            agent,
            had_room,
            at,
            running,
            finished,
            rescued: BTreeSet::new(),
        });
        self.story
            .death(format!("SIGKILL {name} (pid {pid}): {text}"));
        Ok(())
    }

    fn numbers(&self, jobs: &[JobId]) -> String {
        let numbers: Vec<_> = jobs
            .iter()
            .filter_map(|job| self.board.get(*job))
            .map(|job| number(job).to_string())
            .collect();
        match numbers.len() {
            0 => "no task".to_owned(),
            1 => format!("task {}", numbers[0]),
            _ => format!("tasks {}", numbers.join(", ")),
        }
    }

    /// Until every task has succeeded.
    pub(super) async fn watch_to_the_end(&mut self) -> Outcome {
        while !self.board.all_succeeded()? {
            self.look().await?;
        }
        let rescued = self.death.as_ref().map_or(0, |death| death.rescued.len());
        if rescued == 0 {
            return Err(Failure::internal(
                "no task of the killed agent was taken over",
            ));
        }
        self.story.event(format!(
            "all {} tasks succeeded, {rescued} of them in a second attempt; control is still dead",
            self.board.jobs.len()
        ));
        Ok(())
    }

    /// The stream that was opened through control went on without it, to its end.
    pub(super) async fn check_stream(&mut self) -> Outcome {
        let (Some(mut stream), Some(died)) = (self.stream.take(), self.control_died) else {
            return Err(Failure::internal("no log stream was open"));
        };
        let joined = tokio::time::timeout(MOMENT, &mut stream.follower).await;
        let (view, streams) = joined
            .map_err(|_| Failure::internal("the log stream does not end"))?
            .map_err(Failure::internal)??;
        while let Ok((at, line)) = stream.lines.try_recv() {
            if matches!(line, Line::Output { .. }) {
                stream.seen.push(at);
            }
        }
        let after = stream.seen.iter().filter(|at| **at > died).count();
        if streams != 1 || after == 0 {
            return Err(Failure::internal(format!(
                "the log stream did not survive control's death: {streams} connections, {after} lines after it"
            )));
        }
        self.story.event(format!(
            "the log stream of task {}, opened through control, went on after its death: {after} of {} lines",
            number(&view),
            stream.seen.len()
        ));
        Ok(())
    }

    /// Every result comes back by its content address and is what we compute ourselves.
    pub(super) async fn fetch_and_compare(&mut self) -> Outcome {
        let target = tempfile::tempdir_in(self.cloud.dir()).map_err(Failure::user)?;
        let (mut bytes, mut sources) = (0, BTreeMap::<JobId, Vec<String>>::new());
        for job in &self.board.jobs {
            let dir = target.path().join(number(job).to_string());
            let fetched = self.client.download(job.id, &dir).await?;
            let found = fs::read(dir.join(RESULT_FILE)).naming(RESULT_FILE)?;
            let index = number(job) as usize;
            if found != expected(self.input, index, self.board.jobs.len())? {
                return Err(Failure::internal(format!(
                    "the result of task {index} is wrong"
                )));
            }
            bytes += fetched.bytes;
            sources.insert(job.id, fetched.peers);
        }
        self.story.event(format!(
            "{} results ({}) fetched by CID; all {} files as computed here",
            self.board.jobs.len(),
            size(bytes),
            self.input.files.len()
        ));
        self.tell_orphans(&sources)
    }

    /// Where the killed agent's results came from.
    fn tell_orphans(&mut self, sources: &BTreeMap<JobId, Vec<String>>) -> Outcome {
        let Some(death) = &self.death else {
            return Err(Failure::internal("no agent was killed"));
        };
        let peers: BTreeSet<_> = death
            .finished
            .iter()
            .filter_map(|job| sources.get(job))
            .flatten()
            .map(|peer| self.cloud.name_of_peer(peer))
            .collect();
        let text = format!(
            "the killed agent's own results ({}) came from {}",
            self.numbers(&death.finished),
            peers.into_iter().collect::<Vec<_>>().join(", ")
        );
        self.story.event(text);
        Ok(())
    }
}

/// As many tasks as run at once: they are short and go first.
fn first_wave(cloud: &Cloud) -> u32 {
    let room = Room::of(cloud);
    u32::try_from(room.agents * room.slots).unwrap_or(u32::MAX)
}

fn late_rest(tasks: u32) -> Duration {
    LATE_REST + LATE_REST_PER_TASK * tasks
}

fn specs(cloud: &Cloud, tasks: u32, short: u32) -> Outcome<Vec<TaskSpec>> {
    let command = ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec();
    let mut spec = TaskSpec::new(command, cloud.plan().need);
    spec.name = "demo".to_owned();
    spec.class = Some(cloud.strongest()?);
    spec.has_input = true;
    spec.outputs = vec![RESULT_FILE.to_owned()];
    spec.timeout_ms = 60_000;
    // Two machines will be killed, and either may be the one that keeps a copy.
    spec.result_copies = 2;
    spec.env.insert("STEPS".to_owned(), STEPS.to_string());
    let member = |index| {
        let mut member = spec.clone();
        let count = tasks;
        member.array = Some(ArrayIndex { index, count });
        let is_early = index <= short;
        member.priority = i32::from(is_early);
        let rest = if is_early {
            EARLY_REST
        } else {
            late_rest(tasks)
        };
        let pause = format!("{:.3}", (rest / STEPS).as_secs_f64());
        member.env.insert("PAUSE".to_owned(), pause);
        member
    };
    Ok((1..=tasks).map(member).collect())
}
