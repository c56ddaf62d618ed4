//! What tasks print, kept on disk within bounds and readable while it grows and after the end.
//!
//! Each attempt has a directory of JSON lines, one [`LogMessage`] each, in segments. When two
//! segments are full the older goes, so the last [`SEGMENT_BYTES`] at least are always there; a gap
//! shows in the sequence numbers. Readers follow the files, so a slow one costs no memory and holds
//! nobody up.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::Fence;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::runtime::{Piece, Stream};

/// Bytes of one segment.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// Longest line kept in one message; longer ones are cut into several.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One message of a log stream, in files and over WebSocket alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogMessage {
    /// What the task wrote, its line end included.
    Line {
        /// Counts the messages of an attempt from 0.
        seq: u64,
        /// Where it was written.
        stream: Stream,
        /// Milliseconds since the attempt began.
        ms: u64,
        /// The text; base64 if `enc` says so.
        data: String,
        /// `base64` for what is not UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enc: Option<String>,
    },
    /// The attempt reached a state.
    State {
        /// Counts the messages of an attempt from 0.
        seq: u64,
        /// The state.
        state: JobState,
        /// Milliseconds since the attempt began.
        ms: u64,
    },
    /// The attempt is over; nothing follows.
    End {
        /// Counts the messages of an attempt from 0.
        seq: u64,
        /// Milliseconds since the attempt began.
        ms: u64,
        /// How it ended, for people.
        outcome: String,
    },
}

/// The logs of all attempts on this machine.
#[derive(Debug, Clone)]
pub struct Library {
    inner: Arc<LibraryInner>,
}

#[derive(Debug)]
struct LibraryInner {
    dir: PathBuf,
    open: Mutex<BTreeMap<PathBuf, watch::Receiver<bool>>>,
}

impl Library {
    /// Logs below `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// Whatever making the directory reports.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            inner: Arc::new(LibraryInner {
                dir,
                open: Mutex::default(),
            }),
        })
    }

    fn growing(&self) -> MutexGuard<'_, BTreeMap<PathBuf, watch::Receiver<bool>>> {
        // What a panicking thread left is still a map of receivers.
        let open = self.inner.open.lock();
        open.unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the log of an attempt.
    ///
    /// # Errors
    /// Whatever making files reports.
    pub fn begin(&self, job: JobId, attempt: u32, fence: Fence) -> io::Result<LogWriter> {
        let name = format!("{attempt:06}-{fence}");
        let dir = self.inner.dir.join(job.to_string()).join(name);
        fs::create_dir_all(&dir)?;
        let (grown, growing) = watch::channel(false);
        self.growing().insert(dir.clone(), growing);
        LogWriter::new(self.clone(), dir, grown)
    }

    /// The log of an attempt, the last one here if none is named.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn read(&self, job: JobId, attempt: Option<u32>) -> io::Result<LogReader> {
        let mut names: Vec<_> = fs::read_dir(self.inner.dir.join(job.to_string()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| match attempt {
                Some(attempt) => name.starts_with(&format!("{attempt:06}-")),
                None => true,
            })
            .collect();
        names.sort_by_key(|name| order(name));
        let name = names.pop().ok_or(io::ErrorKind::NotFound)?;
        let dir = self.inner.dir.join(job.to_string()).join(name);
        let growing = self.growing().get(&dir).cloned();
        Ok(LogReader::new(dir, growing))
    }

    /// Removes logs of attempts that ended longer ago than `age`.
    pub fn sweep(&self, age: Duration) {
        let open: Vec<_> = self.growing().keys().cloned().collect();
        for job in entries(&self.inner.dir) {
            for attempt in entries(&job) {
                let changed = fs::metadata(&attempt).and_then(|data| data.modified());
                let old = changed.is_ok_and(|at| is_older(at, age));
                if old && !open.contains(&attempt) {
                    let _ = fs::remove_dir_all(&attempt);
                }
            }
            // Only an empty directory can be removed so.
            let _ = fs::remove_dir(&job);
        }
    }
}

fn is_older(at: SystemTime, age: Duration) -> bool {
    at.elapsed().is_ok_and(|elapsed| elapsed > age)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

/// `ATTEMPT-EPOCH.SEQUENCE` as numbers.
fn order(name: &str) -> (u64, u64, u64) {
    let mut numbers = name.split(['-', '.']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

/// Writes the log of one attempt. Dropping it ends the log.
#[derive(Debug)]
pub struct LogWriter {
    library: Library,
    dir: PathBuf,
    number: u64,
    file: File,
    bytes: u64,
    segment_bytes: u64,
    seq: u64,
    started: Instant,
    partial: BTreeMap<u8, Vec<u8>>,
    grown: watch::Sender<bool>,
    /// Messages that the disk did not take.
    lost: u64,
}

impl LogWriter {
    fn new(library: Library, dir: PathBuf, grown: watch::Sender<bool>) -> io::Result<Self> {
        let file = File::create(segment(&dir, 0))?;
        Ok(Self {
            library,
            dir,
            number: 0,
            file,
            bytes: 0,
            segment_bytes: SEGMENT_BYTES,
            seq: 0,
            started: Instant::now(),
            partial: BTreeMap::new(),
            grown,
            lost: 0,
        })
    }

    /// The directory that holds the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes a state.
    pub fn state(&mut self, state: JobState) {
        let ms = self.ms();
        self.write(|seq| LogMessage::State { seq, state, ms });
    }

    /// Takes in what the task wrote; whole lines are written, the rest waits for its end.
    pub fn piece(&mut self, piece: &Piece) {
        let slot = stream_slot(piece.stream);
        let mut text = self.partial.remove(&slot).unwrap_or_default();
        text.extend_from_slice(&piece.bytes);
        let mut rest = text.as_slice();
        while let Some(end) = line_end(rest) {
            let (line, after) = rest.split_at(end);
            self.line(piece.stream, line);
            rest = after;
        }
        if !rest.is_empty() {
            self.partial.insert(slot, rest.to_vec());
        }
        self.grown.send_replace(false);
    }

    /// Tells whoever reads the log something that the task did not write: a line of standard error
    /// that begins with `mutual: `.
    pub fn note(&mut self, words: &str) {
        let line = format!("mutual: {words}\n");
        self.line(Stream::Stderr, line.as_bytes());
        self.grown.send_replace(false);
    }

    /// Writes what is left of unfinished lines, then how the attempt ended.
    pub fn end(&mut self, outcome: &str) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(rest) = self.partial.remove(&stream_slot(stream)) {
                self.line(stream, &rest);
            }
        }
        let (ms, outcome) = (self.ms(), outcome.to_owned());
        self.write(|seq| LogMessage::End { seq, ms, outcome });
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn line(&mut self, stream: Stream, line: &[u8]) {
        let ms = self.ms();
        let (data, enc) = match std::str::from_utf8(line) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (STANDARD.encode(line), Some("base64".to_owned())),
        };
        self.write(|seq| LogMessage::Line {
            seq,
            stream,
            ms,
            data,
            enc,
        });
    }

    fn write(&mut self, message: impl FnOnce(u64) -> LogMessage) {
        let message = message(self.seq);
        self.seq += 1;
        let mut line = serde_json::to_vec(&message).expect("messages are plain data");
        line.push(b'\n');
        if self.append(&line).is_err() {
            self.lost += 1;
        }
        self.grown.send_replace(false);
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.segment_bytes {
            self.file = File::create(segment(&self.dir, self.number + 1))?;
            self.number += 1;
            self.bytes = 0;
            if self.number >= 2 {
                let _ = fs::remove_file(segment(&self.dir, self.number - 2));
            }
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.lost > 0 {
            tracing::warn!(dir = %self.dir.display(), lost = self.lost, "log messages were lost");
        }
        self.library.growing().remove(&self.dir);
        self.grown.send_replace(true);
    }
}

fn stream_slot(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// Where the first line ends, its line end included, or where it is cut.
fn line_end(text: &[u8]) -> Option<usize> {
    let window = &text[..text.len().min(LINE_BYTES_MAX)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(at) => Some(at + 1),
        None => (text.len() >= LINE_BYTES_MAX).then_some(LINE_BYTES_MAX),
    }
}

/// Follows one log from its beginning.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    growing: Option<watch::Receiver<bool>>,
    number: u64,
    offset: u64,
}

/// Messages read at once.
const BATCH_BYTES: u64 = 256 * 1024;

impl LogReader {
    fn new(dir: PathBuf, growing: Option<watch::Receiver<bool>>) -> Self {
        Self {
            dir,
            growing,
            number: 0,
            offset: 0,
        }
    }

    /// The next messages as JSON lines, waiting for them; `None` after the last. Cancel-safe.
    ///
    /// # Errors
    /// Whatever reading the files reports.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            // Looked at before reading, so that nothing written meanwhile is missed.
            let over = match &mut self.growing {
                Some(growing) => *growing.borrow_and_update(),
                None => true,
            };
            if let Some(lines) = self.read_lines()? {
                return Ok(Some(lines));
            }
            if over || self.wait().await.is_err() {
                // The writer's last words may have come between the two looks.
                return self.read_lines();
            }
        }
    }

    async fn wait(&mut self) -> Result<(), watch::error::RecvError> {
        match &mut self.growing {
            Some(growing) => growing.changed().await,
            None => Ok(()),
        }
    }

    fn read_lines(&mut self) -> io::Result<Option<String>> {
        loop {
            let newest = self.skip_removed()?;
            let lines = match File::open(segment(&self.dir, self.number)) {
                Ok(file) => self.whole_lines(file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error),
            };
            if !lines.is_empty() {
                self.offset += lines.len() as u64;
                return Ok(Some(lines));
            }
            if self.number >= newest {
                return Ok(None);
            }
            self.number += 1;
            self.offset = 0;
        }
    }

    /// Goes on to the oldest segment that is left; returns the newest one's number.
    fn skip_removed(&mut self) -> io::Result<u64> {
        let numbers: Vec<u64> = fs::read_dir(&self.dir)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok())
            .collect();
        let oldest = numbers.iter().min().copied().unwrap_or(0);
        if oldest > self.number {
            (self.number, self.offset) = (oldest, 0);
        }
        Ok(numbers.iter().max().copied().unwrap_or(0))
    }

    fn whole_lines(&self, mut file: File) -> io::Result<String> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut lines = String::new();
        while (lines.len() as u64) < BATCH_BYTES {
            let before = lines.len();
            reader.read_line(&mut lines)?;
            if !lines.ends_with('\n') {
                lines.truncate(before);
                break;
            }
            if lines.len() == before {
                break;
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn job() -> JobId {
        JobId(uuid::Uuid::from_u128(1))
    }

    fn fence(sequence: u64) -> Fence {
        Fence { epoch: 1, sequence }
    }

    fn piece(stream: Stream, text: &[u8]) -> Piece {
        Piece {
            sequence: 0,
            stream,
            at_ms: 0,
            bytes: Bytes::copy_from_slice(text),
        }
    }

    async fn read_all(mut reader: LogReader) -> Vec<LogMessage> {
        let mut messages = Vec::new();
        while let Some(lines) = reader.next().await.unwrap() {
            messages.extend(lines.lines().map(|l| serde_json::from_str(l).unwrap()));
        }
        messages
    }

    fn texts(messages: &[LogMessage]) -> Vec<String> {
        messages
            .iter()
            .map(|message| match message {
                LogMessage::Line {
                    stream, data, enc, ..
                } => format!("{stream:?} {data:?}{}", enc.as_deref().unwrap_or("")),
                LogMessage::State { state, .. } => state.to_string(),
                LogMessage::End { outcome, .. } => format!("end {outcome}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn lines_are_put_together_per_stream_and_followed_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::open(dir.path().to_owned()).unwrap();
        let mut writer = library.begin(job(), 1, fence(1)).unwrap();
        let reader = tokio::spawn(read_all(library.read(job(), None).unwrap()));
        writer.state(JobState::Running);
        writer.piece(&piece(Stream::Stdout, b"one\ntw"));
        writer.piece(&piece(Stream::Stderr, b"\xff\n"));
        writer.piece(&piece(Stream::Stdout, b"o\nrest"));
        writer.end("succeeded");
        drop(writer);
        let followed = reader.await.unwrap();
        assert_eq!(
            texts(&followed),
            [
                "running",
                "Stdout \"one\\n\"",
                "Stderr \"/wo=\"base64",
                "Stdout \"two\\n\"",
                "Stdout \"rest\"",
                "end succeeded"
            ]
        );
        let later = read_all(library.read(job(), Some(1)).unwrap()).await;
        assert_eq!(later, followed);
        assert!(library.read(job(), Some(2)).is_err());
    }

    #[tokio::test]
    async fn the_disk_holds_two_segments_and_the_last_lines_survive() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::open(dir.path().to_owned()).unwrap();
        let mut writer = library.begin(job(), 1, fence(1)).unwrap();
        writer.segment_bytes = 1_000;
        for n in 0..500 {
            writer.piece(&piece(Stream::Stdout, format!("line {n}\n").as_bytes()));
        }
        assert_eq!(entries(writer.dir()).len(), 2);
        drop(writer);
        let messages = read_all(library.read(job(), None).unwrap()).await;
        assert!(messages.len() < 30);
        assert_eq!(texts(&messages).pop().unwrap(), "Stdout \"line 499\\n\"");
    }

    #[test]
    fn the_latest_attempt_is_found_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::open(dir.path().to_owned()).unwrap();
        for sequence in [9, 10] {
            library.begin(job(), 1, fence(sequence)).unwrap();
        }
        let reader = library.read(job(), None).unwrap();
        assert!(reader.dir.ends_with("000001-1.10"));
        library.sweep(Duration::ZERO);
        assert!(library.read(job(), None).is_err());
    }
}
