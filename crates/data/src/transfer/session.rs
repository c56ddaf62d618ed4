//! One provider's part in a fetch: keep a window of requests open, hand over what arrives.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fetch::{Shared, lock};
use super::frame::{self, CIDS_MAX, Frame, Message};
use super::plan::{IN_FLIGHT_MAX, ProviderId, Wanted};
use super::{TransferError, blocking};

/// How often an idle session looks for blocks that others owe for too long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A window covers what the provider delivers in this time, so that it never waits for requests.
const WINDOW_TIME: Duration = Duration::from_millis(200);

/// Blocks asked of a provider before its rate is known.
const WINDOW_START: usize = 4;

/// What both directions of a session share.
struct Window {
    owed: VecDeque<Wanted>,
    size: usize,
    /// Mean time between blocks, in seconds, while blocks were owed.
    gap_mean_s: Option<f64>,
    last: Instant,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            owed: VecDeque::new(),
            size: WINDOW_START,
            gap_mean_s: None,
            last: now,
        }
    }

    fn asked(&mut self, taken: &[Wanted], now: Instant) {
        if self.owed.is_empty() {
            self.last = now;
        }
        self.owed.extend(taken.iter().cloned());
    }

    /// Takes the block that this answer is for, and adapts the size to the provider's rate.
    fn answered(&mut self, now: Instant) -> Option<Wanted> {
        const WEIGHT: f64 = 0.2;
        let wanted = self.owed.pop_front()?;
        let gap = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        let mean = self
            .gap_mean_s
            .map_or(gap, |mean| mean + WEIGHT * (gap - mean));
        self.gap_mean_s = Some(mean);
        // Half as much again as it delivers: so a window that was too small for a long way grows.
        let blocks = 1.5 * WINDOW_TIME.as_secs_f64() / mean.max(1e-6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number, clamped to a handful"
        )]
        let size = blocks.min(1e6) as usize;
        self.size = (size + 1).clamp(2, IN_FLIGHT_MAX);
        Some(wanted)
    }

    fn room(&self) -> usize {
        self.size.saturating_sub(self.owed.len()).min(CIDS_MAX)
    }
}

/// Fetches from one provider until the whole DAG is here, from whomever. The stream must be open for requests.
///
/// # Errors
/// What went wrong with this provider; what it owed is wanted again.
pub(super) async fn run(
    shared: &Arc<Shared>,
    id: ProviderId,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), TransferError> {
    let session = Session {
        shared,
        id,
        window: Mutex::new(Window::new(Instant::now())),
        asked: watch::Sender::new(()),
    };
    let result = tokio::try_join!(session.ask(writer), session.receive(reader));
    lock(&shared.plan).gone(id);
    shared.announce();
    result.map(|_| ())
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    id: ProviderId,
    window: Mutex<Window>,
    /// Wakes the receiving side when something is owed.
    asked: watch::Sender<()>,
}

impl Session<'_> {
    async fn ask(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), TransferError> {
        let mut changed = self.shared.changed.subscribe();
        while !self.shared.is_over() {
            changed.mark_unchanged();
            let taken = self.take();
            if taken.is_empty() {
                let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
                continue;
            }
            let cids = taken.iter().map(|wanted| *wanted.cid()).collect();
            let write = frame::write_message(writer, Message::Want { cids });
            frame::within(self.shared.options.stall, write).await?;
        }
        self.asked.send_replace(());
        Ok(())
    }

    fn take(&self) -> Vec<Wanted> {
        let now = Instant::now();
        let mut window = lock(&self.window);
        let taken = lock(&self.shared.plan).take(self.id, window.room(), now);
        window.asked(&taken, now);
        drop(window);
        if !taken.is_empty() {
            self.asked.send_replace(());
        }
        taken
    }

    async fn receive(&self, reader: &mut (impl AsyncRead + Unpin)) -> Result<(), TransferError> {
        let mut asked = self.asked.subscribe();
        let mut changed = self.shared.changed.subscribe();
        let mut storing: Option<JoinHandle<Result<(), TransferError>>> = None;
        loop {
            if self.shared.is_over() {
                break;
            }
            if lock(&self.window).owed.is_empty() {
                // What is being stored may be the last block, or name the next ones.
                settle(storing.take()).await?;
                tokio::select! {
                    _ = asked.changed() => {}
                    _ = changed.changed() => {}
                }
                continue;
            }
            let frame = tokio::select! {
                frame = frame::read(reader, self.shared.options.stall) => frame?,
                () = self.shared.wait_over() => break,
            };
            let next = self.answer(frame)?;
            settle(storing.take()).await?;
            storing = next;
        }
        settle(storing).await
    }

    /// Handles one answer; returns the work of storing a block.
    fn answer(
        &self,
        frame: Option<Frame>,
    ) -> Result<Option<JoinHandle<Result<(), TransferError>>>, TransferError> {
        let now = Instant::now();
        match frame {
            None => Err(TransferError::Io(std::io::ErrorKind::UnexpectedEof.into())),
            Some(Frame::Message(Message::Refused { reason })) => {
                Err(TransferError::Refused(frame::shorten(&reason)))
            }
            Some(Frame::Message(Message::Missing)) => {
                let wanted = self.owed(now)?;
                lock(&self.shared.plan).missing(self.id, wanted.cid(), now);
                self.shared.announce();
                Ok(None)
            }
            Some(Frame::Block(block)) => {
                let wanted = self.owed(now)?;
                self.shared.count(self.id, block.len());
                Ok(self.store(wanted, block))
            }
            Some(Frame::Message(other)) => Err(TransferError::Protocol(format!(
                "{other:.100?} instead of a block"
            ))),
        }
    }

    fn owed(&self, now: Instant) -> Result<Wanted, TransferError> {
        let wanted = lock(&self.window).answered(now);
        wanted.ok_or_else(|| TransferError::Protocol("more answers than questions".into()))
    }

    /// Verifies and stores in the background, while the next block arrives. What was delivered twice is dropped.
    fn store(
        &self,
        wanted: Wanted,
        block: Vec<u8>,
    ) -> Option<JoinHandle<Result<(), TransferError>>> {
        if !lock(&self.shared.plan).arrived(wanted.cid()) {
            self.shared.announce();
            return None;
        }
        let shared = Arc::clone(self.shared);
        let storing = async move { blocking(move || shared.accept(wanted, &block)).await? };
        Some(self.shared.storing.spawn(storing))
    }
}

/// Waits for a block to be stored; a bad one ends the session.
async fn settle(
    storing: Option<JoinHandle<Result<(), TransferError>>>,
) -> Result<(), TransferError> {
    match storing {
        None => Ok(()),
        Some(task) => task.await.map_err(std::io::Error::other)?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Codec, name};

    fn window_after(gap: Duration) -> usize {
        let start = Instant::now();
        let mut window = Window::new(start);
        let wanted = vec![Wanted::Root(name(Codec::Node, b"")); 50];
        window.asked(&wanted, start);
        for number in 1..=50 {
            window.answered(start + gap * number).unwrap();
        }
        assert!(window.answered(start).is_none());
        window.size
    }

    #[test]
    fn the_window_follows_the_rate() {
        assert_eq!(window_after(Duration::from_secs(1)), 2);
        assert_eq!(window_after(Duration::from_millis(50)), 7);
        assert_eq!(window_after(Duration::from_millis(1)), IN_FLIGHT_MAX);
    }
}
