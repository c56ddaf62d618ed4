//! The agent's side: a session to each demand server, and the door at which they knock back.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutual_model::identity::{Certificate, NodeKey};
use mutual_model::ids::Incarnation;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::wire::{self, BYE, Challenge, Hello, HelloError, POKE, WELCOME};

/// Connections at the door at once: one for each server that lost its session.
const CALLERS_MAX: usize = 64;
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
        let incarnation = own.or_else(|| self.incarnation_for(challenge.expected));
        let Some(incarnation) = incarnation else {
            return Ok(());
        };
        let inner = &self.inner;
        let port = inner.address.port();
        let hello = Hello::sign(
            &inner.key,
            &inner.certificate,
            incarnation,
            port,
            &challenge,
        );
        wire::send(&mut stream, &hello).await?;
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
