//! What a task writes, as it writes it.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

/// Most bytes of one piece: what a pipe holds by default.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Where a task wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a task's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Counts all pieces of both streams from 0.
    pub sequence: u64,
    /// Which stream.
    pub stream: Stream,
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// The bytes, at most 64 KiB, cut anywhere.
    pub bytes: Bytes,
}

/// Both streams of a running task, in one order.
///
/// The order is that in which the pieces were read: exact within a stream, and between the streams exact for writes
/// that are further apart than the reader takes to wake up. Nothing is buffered beyond the kernel's pipes (64 KiB
/// each): a task whose output is not read is held up when they are full. Dropping this closes the pipes.
#[derive(Debug)]
pub struct Output {
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    buffer: Vec<u8>,
    start: Instant,
    sequence: u64,
}

impl Output {
    pub(super) fn new(stdout: PipeReader, stderr: PipeReader) -> std::io::Result<Self> {
        Ok(Self {
            stdout: Some(Receiver::from_owned_fd(OwnedFd::from(stdout))?),
            stderr: Some(Receiver::from_owned_fd(OwnedFd::from(stderr))?),
            buffer: Vec::new(),
            start: Instant::now(),
            sequence: 0,
        })
    }

    pub(super) fn started(&mut self) {
        self.start = Instant::now();
    }

    /// The next piece; `None` when all processes that could write are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            let stream = self.ready().await?;
            if let Some(piece) = self.take(stream) {
                return Some(piece);
            }
        }
    }

    /// Waits until a stream can be read; `None` when both have ended.
    async fn ready(&self) -> Option<Stream> {
        tokio::select! {
            biased;
            () = readable(self.stdout.as_ref()), if self.stdout.is_some() => Some(Stream::Stdout),
            () = readable(self.stderr.as_ref()), if self.stderr.is_some() => Some(Stream::Stderr),
            else => None,
        }
    }

    fn take(&mut self, stream: Stream) -> Option<Piece> {
        self.buffer.resize(PIECE_BYTES_MAX, 0);
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let length = match pipe.as_ref()?.try_read(&mut self.buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Ok(0) | Err(_) => {
                *pipe = None;
                return None;
            }
            Ok(length) => length,
        };
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Piece {
            sequence,
            stream,
            at_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes: Bytes::copy_from_slice(&self.buffer[..length]),
        })
    }

    /// Reads both streams to their ends and drops them, so that the task is never held up.
    pub async fn discard(mut self) {
        while self.next().await.is_some() {}
    }
}

/// A pipe that cannot be waited for is treated as readable: reading it tells why.
async fn readable(pipe: Option<&Receiver>) {
    if let Some(pipe) = pipe {
        let _ = pipe.readable().await;
    }
}
