//! The agent's side: a session to each demand server, and the door at which they knock back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutual_model::identity::{Certificate, NodeKey};
use mutual_model::ids::Incarnation;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::wire::{self, BYE, Challenge, Hello, HelloError, POKE, Pass, WELCOME};

/// Connections at the door at once: guardians, and one for each server that lost its session.
const CALLERS_MAX: usize = 128;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Where a demand server takes sessions: what its `GET /v1/session` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionPlace {
    /// TCP port, at the host of the demand URL.
    pub port: u16,
}

/// A server says that something about the agent's jobs changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poke {
    /// The incarnation it holds the session with.
    pub incarnation: Incarnation,
}

/// A guardian that may open a session.
#[derive(Debug)]
struct Expected {
    run: Incarnation,
    /// Its open sessions: a new one may begin before the old one is known to be over.
    open: watch::Sender<usize>,
    dismissed: CancellationToken,
}

/// A guardian's right to a session at an agent's door. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct Guarded {
    door: AgentDoor,
    pass: Pass,
    open: watch::Receiver<usize>,
}

impl Guarded {
    /// Waits until the guardian has no session, or has one. False if that can never be.
    pub(super) async fn becomes(&mut self, open: bool) -> bool {
        let changed = self.open.wait_for(|sessions| (*sessions > 0) == open);
        changed.await.is_ok()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(expected) = self.door.expected_guardians().remove(&self.pass) {
            expected.dismissed.cancel();
        }
    }
}

/// The agent's liveness port. It answers servers that dial back, for as long as the process lives.
#[derive(Debug, Clone)]
pub struct AgentDoor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: Arc<NodeKey>,
    certificate: Certificate,
    address: SocketAddr,
    live: Mutex<BTreeSet<Incarnation>>,
    guardians: Mutex<BTreeMap<Pass, Expected>>,
    pokes: mpsc::Sender<Poke>,
    closed: CancellationToken,
}

impl AgentDoor {
    /// Listens at `address`. Pokes from any session arrive at the receiver.
    ///
    /// # Errors
    /// Whatever binding the address reports.
    pub async fn open(
        address: SocketAddr,
        key: Arc<NodeKey>,
        certificate: Certificate,
    ) -> io::Result<(Self, mpsc::Receiver<Poke>)> {
        let listener = TcpListener::bind(address).await?;
        let (pokes, poked) = mpsc::channel(64);
        let inner = Inner {
            key,
            certificate,
            address: listener.local_addr()?,
            live: Mutex::default(),
            guardians: Mutex::default(),
            pokes,
            closed: CancellationToken::new(),
        };
        let door = Self {
            inner: Arc::new(inner),
        };
        tokio::spawn(door.clone().answer(listener));
        Ok((door, poked))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// From now on `incarnation` is alive, and `former` no longer.
    pub fn live(&self, incarnation: Incarnation, former: Option<Incarnation>) {
        let mut live = self.incarnations();
        live.insert(incarnation);
        if let Some(former) = former.filter(|former| *former != incarnation) {
            live.remove(&former);
        }
    }

    /// Lets in the guardian that shows `pass`, and answers it as `run`.
    pub(super) fn expect(&self, pass: Pass, run: Incarnation) -> Guarded {
        let (open, opened) = watch::channel(0);
        let expected = Expected {
            run,
            open,
            dismissed: CancellationToken::new(),
        };
        self.expected_guardians().insert(pass, expected);
        Guarded {
            door: self.clone(),
            pass,
            open: opened,
        }
    }

    fn expected_guardians(&self) -> std::sync::MutexGuard<'_, BTreeMap<Pass, Expected>> {
        // A map that a panicking thread left is still a map of guardians.
        let guardians = self.inner.guardians.lock();
        guardians.unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the door and every session, with a word of farewell.
    pub fn close(&self) {
        self.inner.closed.cancel();
    }

    fn incarnations(&self) -> std::sync::MutexGuard<'_, BTreeSet<Incarnation>> {
        // A set that a panicking thread left is still a set of incarnations.
        let live = self.inner.live.lock();
        live.unwrap_or_else(PoisonError::into_inner)
    }

    /// The incarnation to answer with: the expected one if it lives, else the latest.
    fn incarnation_for(&self, expected: Option<Incarnation>) -> Option<Incarnation> {
        let live = self.incarnations();
        let expected = expected.filter(|expected| live.contains(expected));
        expected.or_else(|| live.last().copied())
    }

    async fn answer(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CALLERS_MAX));
        let mut callers = JoinSet::new();
        loop {
            // Without room callers wait in the kernel's queue: cut off, they would take us for dead.
            let next = async {
                let place = room.clone().acquire_owned().await;
                (listener.accept().await, place)
            };
            let accepted = tokio::select! {
                () = self.inner.closed.cancelled() => break,
                accepted = next => accepted,
            };
            while callers.try_join_next().is_some() {}
            let (Ok((stream, _)), Ok(place)) = accepted else {
                continue;
            };
            let door = self.clone();
            callers.spawn(async move {
                let _ = door.talk(stream, None).await;
                drop(place);
            });
        }
        while callers.join_next().await.is_some() {}
    }

    /// Holds one session until it ends. `own` is the incarnation of a session the agent opened.
    async fn talk(
        &self,
        mut stream: TcpStream,
        own: Option<Incarnation>,
    ) -> Result<(), HelloError> {
        stream.set_nodelay(true)?;
        let challenge: Challenge = wire::receive(&mut stream).await?;
        if let Some(pass) = challenge.pass.filter(|_| own.is_none()) {
            return self.talk_to_guardian(stream, &challenge, &pass).await;
        }
        let incarnation = own.or_else(|| self.incarnation_for(challenge.expected));
        let Some(incarnation) = incarnation else {
            return Ok(());
        };
        self.greet(&mut stream, &challenge, incarnation).await?;
        self.listen(&mut stream, incarnation).await
    }

    /// Nothing is answered to whoever shows no pass that this agent gave out.
    async fn talk_to_guardian(
        &self,
        mut stream: TcpStream,
        challenge: &Challenge,
        pass: &Pass,
    ) -> Result<(), HelloError> {
        let known = |expected: &Expected| {
            let (open, dismissed) = (expected.open.clone(), expected.dismissed.clone());
            (expected.run, open, dismissed)
        };
        let expected = self.expected_guardians().get(pass).map(known);
        let Some((run, open, dismissed)) = expected else {
            return Ok(());
        };
        self.greet(&mut stream, challenge, run).await?;
        open.send_modify(|sessions| *sessions += 1);
        let ended = tokio::select! {
            ended = self.listen(&mut stream, run) => ended,
            () = dismissed.cancelled() => Ok(stream.write_all(&[BYE]).await?),
        };
        open.send_modify(|sessions| *sessions -= 1);
        ended
    }

    async fn greet(
        &self,
        stream: &mut TcpStream,
        challenge: &Challenge,
        incarnation: Incarnation,
    ) -> Result<(), HelloError> {
        let inner = &self.inner;
        let port = inner.address.port();
        let hello = Hello::sign(&inner.key, &inner.certificate, incarnation, port, challenge);
        Ok(wire::send(stream, &hello).await?)
    }

    async fn listen(
        &self,
        stream: &mut TcpStream,
        incarnation: Incarnation,
    ) -> Result<(), HelloError> {
        let inner = &self.inner;
        loop {
            let byte = tokio::select! {
                () = inner.closed.cancelled() => {
                    return Ok(stream.write_all(&[BYE]).await?);
                }
                byte = stream.read_u8() => byte?,
            };
            match byte {
                POKE => {
                    // A full queue already holds a poke; one is as good as two.
                    let _ = inner.pokes.try_send(Poke { incarnation });
                }
                WELCOME => tracing::debug!(%incarnation, "liveness session is open"),
                _ => return Err(HelloError::Malformed),
            }
        }
    }
}

/// Keeps a session of `incarnation` with the server at `server` (`host:port`), connecting again
/// whenever it breaks. Ends when the door is closed or the future is dropped.
pub async fn keep_session(door: AgentDoor, server: String, incarnation: Incarnation) {
    let mut pause = RETRY_MIN;
    while !door.inner.closed.is_cancelled() {
        let connect = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(&server));
        if let Ok(Ok(stream)) = connect.await {
            pause = RETRY_MIN;
            let end = door.talk(stream, Some(incarnation)).await;
            tracing::debug!(%server, ?end, "liveness session ended");
        }
        tokio::select! {
            () = door.inner.closed.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
        }
    }
}
