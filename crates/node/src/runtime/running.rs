//! A run from the agent's side: orders to the shim, news from it, and the end with what was used.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};

use super::StartError;
use super::cgroup::Group;
use super::output::Output;
use super::record::Record;
use super::spec::Leash;
use super::wire::{self, Cause, Ended, Failure, FromShim, Reaped, Status, ToShim};

/// Orders that wait for the shim at most; it takes them within microseconds.
const ORDERS_MAX: usize = 16;
/// How long a shim may take to leave after it has told the end.
const SHIM_LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// The command ended with this code; 0 is success.
    Code(i32),
    /// A signal ended the command, and the runtime did not send it.
    Signal(i32),
    /// The memory limit was hit and the command did not survive it.
    OutOfMemory,
    /// The time limit passed.
    TimeLimit,
    /// The task directory, or one file in it, grew beyond the scratch limit.
    ScratchLimit,
    /// More processes than allowed, where the kernel cannot refuse them.
    PidsLimit,
    /// Ended by [`Running::kill`].
    Killed,
    /// It never became the command; only engines other than the embedded one find out so late.
    NotStarted(String),
    /// The shim died; what it had started was killed.
    Lost(String),
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Running time, pauses not counted.
    pub ran: Duration,
    /// Processor time.
    pub cpu: Duration,
    /// Processors used on average.
    pub cpu_avg: f64,
    /// Most memory at once, in bytes.
    pub mem_peak_bytes: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub write_bytes: u64,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// How.
    pub outcome: Outcome,
    /// With what.
    pub usage: Usage,
    /// Processes that the kernel killed for want of memory, whatever the outcome.
    pub oom_kills: u64,
}

/// A running task. Dropping it kills the task.
#[derive(Debug)]
pub struct Running {
    orders: mpsc::Sender<ToShim>,
    exit: watch::Receiver<Option<Exit>>,
    output: Option<Output>,
    freezer: Option<Freezer>,
    pid: i32,
}

/// The group to freeze, named by its directories.
#[derive(Debug)]
struct Freezer(Group);

/// The run is over; the order came too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task has ended")]
pub struct Gone;

/// What a run leaves to be cleared away.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) group: Option<Group>,
    pub(super) record: Record,
}

impl Running {
    /// Gives the order to a shim and waits until the command runs.
    pub(super) async fn begin(
        shim: super::launch::Shim,
        order: wire::Order,
        remains: Remains,
        freezer: Option<Group>,
    ) -> Result<Self, StartError> {
        let super::launch::Shim {
            child,
            control,
            mut output,
        } = shim;
        let (reader, writer) = control.into_split();
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (first, started) = oneshot::channel();
        let (told, exit) = watch::channel(None);
        let start = ToShim::Start(Box::new(order));
        tokio::spawn(async move {
            let news = News {
                reader,
                first: Some(first),
                pid: 0,
            };
            let end = talk(news, writer, start, queue).await;
            told.send_replace(Some(close(child, remains, end).await));
        });
        let pid = match started.await {
            Ok(Ok(pid)) => pid,
            Ok(Err(failure)) => return Err(settled(exit, failure.into()).await),
            Err(_) => {
                return Err(settled(exit, StartError::Setup("the shim died".to_owned())).await);
            }
        };
        output.started();
        let freezer = freezer.map(Freezer);
        Ok(Self {
            orders,
            exit,
            output: Some(output),
            freezer,
            pid,
        })
    }

    /// The task's output, once. If it is never taken, a task that writes more than a pipe holds waits for ever: call
    /// [`Output::discard`] on it if nobody wants it.
    pub fn take_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// Process id, on this machine, of the container's init or of the task itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal to the task's main process.
    ///
    /// # Errors
    /// [`Gone`] if there is none any more.
    pub async fn signal(&self, signal: i32) -> Result<(), Gone> {
        self.order(ToShim::Signal(signal)).await
    }

    /// Kills all of the task's processes, paused ones too; [`Running::wait`] tells when they are gone.
    ///
    /// # Errors
    /// [`Gone`] if they are gone already.
    pub async fn kill(&self) -> Result<(), Gone> {
        self.order(ToShim::Kill).await
    }

    /// Says until when the task may go on if nothing more is heard of the agent. What the last one held goes on.
    ///
    /// # Errors
    /// [`Gone`] if there is none any more.
    pub async fn leash(&self, leash: Leash) -> Result<(), Gone> {
        self.order(ToShim::Leash(leash)).await
    }

    /// Stops all processes and the time limit's clock.
    ///
    /// # Errors
    /// [`Gone`] if there are none any more.
    pub async fn pause(&self) -> Result<(), Gone> {
        let frozen = self.freeze(true);
        self.order(ToShim::Pause {
            paused: true,
            signal: !frozen,
        })
        .await
    }

    /// Continues after [`Running::pause`].
    ///
    /// # Errors
    /// [`Gone`] if the task was killed meanwhile.
    pub async fn resume(&self) -> Result<(), Gone> {
        let thawed = self.freeze(false);
        self.order(ToShim::Pause {
            paused: false,
            signal: !thawed,
        })
        .await
    }

    fn freeze(&self, frozen: bool) -> bool {
        self.freezer
            .as_ref()
            .is_some_and(|freezer| freezer.0.freeze(frozen))
    }

    async fn order(&self, order: ToShim) -> Result<(), Gone> {
        self.orders.send(order).await.map_err(|_| Gone)
    }

    /// The end, when every process of the task is gone. May be called many times; cancel-safe.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(lost_driver),
            Err(_) => lost_driver(),
        }
    }
}

/// Only when the runtime itself is being torn down.
fn lost_driver() -> Exit {
    Exit {
        outcome: Outcome::Lost("the agent is shutting down".to_owned()),
        usage: Usage::default(),
        oom_kills: 0,
    }
}

/// A start that failed is told when nothing of it is left.
async fn settled(mut exit: watch::Receiver<Option<Exit>>, error: StartError) -> StartError {
    let _ = exit.wait_for(Option::is_some).await;
    error
}

/// How the conversation with a shim ended.
enum End {
    Told(Ended),
    Failed(Failure),
    /// The socket ended first; with the pid if there is one to clear away.
    Silent,
}

struct News {
    reader: OwnedReadHalf,
    first: Option<oneshot::Sender<Result<i32, Failure>>>,
    pid: i32,
}

async fn talk(
    news: News,
    writer: OwnedWriteHalf,
    start: ToShim,
    orders: mpsc::Receiver<ToShim>,
) -> End {
    tokio::select! {
        end = listen(news) => end,
        () = speak(writer, start, orders) => End::Silent,
    }
}

/// Passes orders on. When nobody can order any more the socket is half closed, on which the shim kills the task, and
/// its last words are still heard.
async fn speak(mut writer: OwnedWriteHalf, start: ToShim, mut orders: mpsc::Receiver<ToShim>) {
    let mut next = Some(start);
    while let Some(order) = next {
        let Ok(frame) = wire::encode(&order) else {
            break;
        };
        if writer.write_all(&frame).await.is_err() {
            break;
        }
        next = orders.recv().await;
    }
    let _ = writer.shutdown().await;
    std::future::pending().await
}

async fn listen(mut news: News) -> End {
    loop {
        match read_frame(&mut news.reader).await {
            Ok(Some(FromShim::Started(pid))) => {
                news.pid = pid;
                if let Some(first) = news.first.take() {
                    // Nobody waits any more: the orders' sender is gone too, which ends the run.
                    let _ = first.send(Ok(pid));
                }
            }
            Ok(Some(FromShim::Failed(failure))) => {
                if let Some(first) = news.first.take() {
                    let _ = first.send(Err(failure.clone()));
                }
                return End::Failed(failure);
            }
            Ok(Some(FromShim::Ended(ended))) => return End::Told(ended),
            Ok(None) | Err(_) => return End::Silent,
        }
    }
}

async fn read_frame(reader: &mut OwnedReadHalf) -> io::Result<Option<FromShim>> {
    let mut head = [0; 4];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; wire::body_length(head)?];
    reader.read_exact(&mut body).await?;
    wire::decode(&body).map(Some)
}

/// Waits for the shim to leave and clears away what the run leaves.
async fn close(mut child: Child, remains: Remains, end: End) -> Exit {
    if tokio::time::timeout(SHIM_LEAVES_WITHIN, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
    let counted =
        tokio::task::spawn_blocking(move || remains.clear(matches!(end, End::Silent)).judge(end));
    counted.await.unwrap_or_else(|_| lost_driver())
}

impl Remains {
    /// Reads the last counts and removes the group and the record.
    fn clear(self, shim_died: bool) -> Counts {
        let counts = self
            .group
            .as_ref()
            .map_or_else(Counts::default, |group| Counts {
                usage: group.usage(),
                oom_kills: group.oom_kills(),
            });
        if shim_died {
            self.record.kill();
        }
        if let Some(group) = &self.group {
            group.remove();
        }
        self.record.remove();
        counts
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    usage: Reaped,
    oom_kills: u64,
}

impl Counts {
    fn judge(self, end: End) -> Exit {
        match end {
            End::Told(ended) => Exit {
                outcome: outcome(&ended, self.oom_kills),
                usage: usage(
                    ended.usage.merge(self.usage),
                    Duration::from_micros(ended.ran_us),
                ),
                oom_kills: self.oom_kills,
            },
            End::Failed(failure) => self.without_shim(Outcome::NotStarted(failure.message)),
            End::Silent => self.without_shim(Outcome::Lost("the shim died".to_owned())),
        }
    }

    fn without_shim(self, outcome: Outcome) -> Exit {
        Exit {
            outcome,
            usage: usage(self.usage, Duration::ZERO),
            oom_kills: self.oom_kills,
        }
    }
}

/// A task that fails after the kernel killed one of its processes for memory is out of memory, whatever code its main
/// process made of that; one that succeeds has coped.
fn outcome(ended: &Ended, oom_kills: u64) -> Outcome {
    match ended.cause {
        Some(Cause::Killed) => Outcome::Killed,
        Some(Cause::TimeLimit) => Outcome::TimeLimit,
        Some(Cause::ScratchLimit) => Outcome::ScratchLimit,
        Some(Cause::MemoryWatch) => Outcome::OutOfMemory,
        Some(Cause::PidsWatch) => Outcome::PidsLimit,
        None if oom_kills > 0 && ended.status != Status::Code(0) => Outcome::OutOfMemory,
        None => match ended.status {
            Status::Code(code) => Outcome::Code(code),
            Status::Signal(signal) => Outcome::Signal(signal),
        },
    }
}

fn usage(reaped: Reaped, ran: Duration) -> Usage {
    let cpu = Duration::from_micros(reaped.cpu_us);
    let cpu_avg = if ran.is_zero() {
        0.0
    } else {
        cpu.as_secs_f64() / ran.as_secs_f64()
    };
    Usage {
        ran,
        cpu,
        cpu_avg,
        mem_peak_bytes: reaped.memory_bytes_peak,
        read_bytes: reaped.read_bytes,
        write_bytes: reaped.write_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: Status, cause: Option<Cause>) -> Ended {
        Ended {
            status,
            cause,
            usage: Reaped::default(),
            ran_us: 1,
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let plain = |status| ended(status, None);
        assert_eq!(outcome(&plain(Status::Code(3)), 0), Outcome::Code(3));
        assert_eq!(outcome(&plain(Status::Signal(11)), 0), Outcome::Signal(11));
        assert_eq!(outcome(&plain(Status::Signal(9)), 1), Outcome::OutOfMemory);
        assert_eq!(outcome(&plain(Status::Code(137)), 1), Outcome::OutOfMemory);
        assert_eq!(outcome(&plain(Status::Code(0)), 1), Outcome::Code(0));
        let killed = ended(Status::Signal(9), Some(Cause::TimeLimit));
        assert_eq!(outcome(&killed, 0), Outcome::TimeLimit);
    }

    #[test]
    fn average_is_processor_time_over_running_time() {
        let reaped = Reaped {
            cpu_us: 3_000_000,
            ..Reaped::default()
        };
        let usage = usage(reaped, Duration::from_secs(2));
        assert!((usage.cpu_avg - 1.5).abs() < 1e-9);
    }
}
