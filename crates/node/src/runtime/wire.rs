//! What agent, shim and container init say to each other: length-prefixed JSON over a socket pair.
//!
//! The socket is at the same time the lifeline. Its other end belongs to one process alone, so end of file means that
//! this process is dead, and whoever reads it kills what it started.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::{Leash, Limits, Rootfs};

/// Longest frame: all arguments and variables (1 MiB) with JSON's worst escaping.
pub(super) const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Everything the shim needs to start a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Working directory as the task sees it.
    pub(super) cwd: PathBuf,
    /// The task directory on the machine.
    pub(super) dir: PathBuf,
    /// What a container sees as its input instead of the task directory's own.
    pub(super) input: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) leash: Option<Leash>,
    pub(super) network: bool,
    /// Files to which a process writes `0` to enter its cgroups.
    pub(super) join: Vec<PathBuf>,
    /// Identity to run under, when the agent is root.
    pub(super) identity: Option<u32>,
    /// Files to which `THAWED` is written so that frozen processes can die.
    pub(super) thaw: Vec<PathBuf>,
    /// What no cgroup bounds and the shim must watch.
    pub(super) watch: Watch,
}

/// How the shim runs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    Process,
    Embedded {
        rootfs: Rootfs,
    },
    Runc {
        rootfs: Rootfs,
        bundle: PathBuf,
        root: PathBuf,
        cgroup: Option<PathBuf>,
    },
}

/// Limits that the shim enforces by looking, for want of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) cpu: bool,
}

/// Agent to shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToShim {
    Start(Box<Order>),
    Signal(i32),
    Kill,
    /// There is more time, or less.
    Leash(Leash),
    /// Stops the clock; `signal` also stops the processes, for want of a freezer.
    Pause {
        paused: bool,
        signal: bool,
    },
}

/// Shim to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FromShim {
    /// With the process whose session or descendants are the task.
    Started(i32),
    Failed(Failure),
    Ended(Ended),
}

/// Shim to container init.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToInit {
    Signal(i32),
    Pause(bool),
}

/// Container init to shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    Started,
    Failed(Failure),
    Ended { status: Status, usage: Reaped },
}

/// Why a run did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FailureKind {
    NotFound,
    NotExecutable,
    BadImage,
    BadWorkdir,
    Setup,
}

impl Failure {
    pub(super) fn setup(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Setup,
            message: message.into(),
        }
    }
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Code(i32),
    Signal(i32),
}

/// Why the shim ended it, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    Killed,
    TimeLimit,
    ScratchLimit,
    MemoryWatch,
    PidsWatch,
}

/// What the kernel counted for reaped processes, and what the watcher saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reaped {
    pub(super) cpu_us: u64,
    pub(super) memory_bytes_peak: u64,
    pub(super) read_bytes: u64,
    pub(super) write_bytes: u64,
}

impl Reaped {
    /// The larger of each count: two views of the same processes.
    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.max(other.cpu_us),
            memory_bytes_peak: self.memory_bytes_peak.max(other.memory_bytes_peak),
            read_bytes: self.read_bytes.max(other.read_bytes),
            write_bytes: self.write_bytes.max(other.write_bytes),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) status: Status,
    pub(super) cause: Option<Cause>,
    pub(super) usage: Reaped,
    /// Running time without pauses, in microseconds.
    pub(super) ran_us: u64,
}

/// One frame: a little-endian length and JSON.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message too long",
        ));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The body length that a frame's first four bytes announce.
pub(super) fn body_length(head: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(head)).map_err(io::Error::other)?;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok(length)
}

/// Decodes a frame's body.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(io::Error::from)
}

/// Writes one frame to a blocking stream.
pub(super) fn send(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one frame from a blocking stream; `None` at its end.
pub(super) fn receive<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if is_end(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; body_length(head)?];
    stream.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// The other end is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_end() {
        let mut bytes = Vec::new();
        send(&mut bytes, &ToInit::Signal(15)).expect("a vector takes bytes");
        let mut stream = bytes.as_slice();
        let first: Option<ToInit> = receive(&mut stream).expect("a whole frame");
        assert!(matches!(first, Some(ToInit::Signal(15))));
        let second: Option<ToInit> = receive(&mut stream).expect("an end is no error");
        assert!(second.is_none());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        assert!(body_length(u32::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn fuzz_frames_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = receive::<FromShim>(bytes);
            let _ = receive::<ToShim>(bytes);
        });
    }
}
