//! The demand server's side: who is there, and who is gone.

use crate::auth::unix_now;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::Incarnation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{self, BYE, Challenge, Hello, HelloError, POKE, Pass, WELCOME};

/// Pause before a connection that was cut at once is tried again; doubled each time.
const KNOCK_PAUSE: Duration = Duration::from_millis(2);
const KNOCK_PAUSE_MAX: Duration = Duration::from_millis(64);

/// How a watch is kept.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Organisations whose agents are watched.
    pub trusted: Vec<PublicKey>,
    /// How long dialling back may take before it counts as silence.
    pub dial_time_max: Duration,
    /// Sessions at once; more are turned away.
    pub sessions_max: usize,
}

impl WatchConfig {
    /// 500 ms for dialling back, 16,384 sessions.
    pub fn new(trusted: Vec<PublicKey>) -> Self {
        Self {
            trusted,
            dial_time_max: Duration::from_millis(500),
            sessions_max: 16_384,
        }
    }
}

/// An agent with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The agent.
    pub agent: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its run.
    pub incarnation: Incarnation,
    /// Where it can be dialled back, if it has a port.
    pub door: Option<SocketAddr>,
    /// What it gave a guardian to open sessions with.
    pub pass: Option<Pass>,
}

/// How an agent was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its port refuses: the process is dead.
    Refused,
    /// A later run answers at its port.
    Replaced(Incarnation),
    /// Nobody answers in time; it may live behind a broken network.
    Silent,
    /// It said goodbye.
    Left,
}

impl Loss {
    /// Whether the incarnation is certainly gone from where it was, so that it may be revoked.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Refused | Self::Replaced(_))
    }
}

/// What a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A session is open.
    Opened(Peer),
    /// A session ended and dialling back did not restore it.
    Lost {
        /// Who.
        peer: Peer,
        /// How.
        loss: Loss,
        /// From the end of the stream to this notice.
        after: Duration,
    },
}

/// Opens sessions with agents that asked for it, as guardians do.
#[derive(Debug, Clone)]
pub(super) struct Dialler {
    inner: Arc<Inner>,
}

impl Dialler {
    /// A dialler; notices arrive at the receiver.
    pub(super) fn new(config: WatchConfig) -> (Self, mpsc::Receiver<Notice>) {
        let (inner, noticed) = Inner::new(config);
        (Self { inner }, noticed)
    }

    /// Opens a session with the agent whose door is at `door` and whose run is `expected`, showing
    /// the `pass` it gave. Dropping the handle ends the session.
    pub(super) fn dial(
        &self,
        agent: NodeId,
        door: SocketAddr,
        expected: Incarnation,
        pass: Pass,
    ) -> AbortOnDropHandle<()> {
        let inner = self.inner.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let peer = Peer {
                agent,
                name: String::new(),
                incarnation: expected,
                door: Some(door),
                pass: Some(pass),
            };
            let begun = tokio::time::Instant::now();
            match inner.dial_back(&peer).await {
                Ok((stream, peer)) => {
                    inner.tell(Notice::Opened(peer.clone())).await;
                    inner.keep(stream, peer).await;
                }
                Err(None) => {}
                Err(Some(loss)) => {
                    let after = begun.elapsed();
                    inner.tell(Notice::Lost { peer, loss, after }).await;
                }
            }
        }))
    }
}

/// Listens for agents' sessions. Dropping the last clone closes all of them.
#[derive(Debug, Clone)]
pub struct Watch {
    inner: Arc<Inner>,
    address: SocketAddr,
    _guard: Arc<DropGuard>,
}

#[derive(Debug)]
struct Inner {
    config: WatchConfig,
    notices: mpsc::Sender<Notice>,
    /// The way to each open session, by agent and incarnation.
    sessions: Mutex<BTreeMap<(NodeId, Incarnation), mpsc::Sender<()>>>,
}

impl Watch {
    /// Listens at `address`; notices arrive at the receiver.
    ///
    /// # Errors
    /// Whatever binding the address reports.
    pub async fn open(
        address: SocketAddr,
        config: WatchConfig,
    ) -> io::Result<(Self, mpsc::Receiver<Notice>)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (inner, noticed) = Inner::new(config);
        let closed = CancellationToken::new();
        let watch = Self {
            inner: inner.clone(),
            address,
            _guard: Arc::new(closed.clone().drop_guard()),
        };
        tokio::spawn(accept(inner, listener, closed));
        Ok((watch, noticed))
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells every open session of `agent` to renew now. False if there is none.
    pub fn poke(&self, agent: &NodeId) -> bool {
        let sessions = self.inner.sessions();
        let mut poked = false;
        for (_, session) in sessions.iter().filter(|((who, _), _)| who == agent) {
            // Full means that a poke is on its way already.
            let _ = session.try_send(());
            poked = true;
        }
        poked
    }

    /// Agents with an open session.
    pub fn present(&self) -> Vec<(NodeId, Incarnation)> {
        self.inner.sessions().keys().copied().collect()
    }
}

async fn accept(inner: Arc<Inner>, listener: TcpListener, closed: CancellationToken) {
    let room = Arc::new(Semaphore::new(inner.config.sessions_max));
    loop {
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Out of descriptors, say: sessions that end make room.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            continue;
        };
        let (inner, closed) = (inner.clone(), closed.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = inner.serve(stream, from.ip()) => {}
            }
            drop(place);
        });
    }
}

/// How a session ended.
enum End {
    Broken,
    Left,
}

impl Inner {
    fn new(config: WatchConfig) -> (Arc<Self>, mpsc::Receiver<Notice>) {
        let (notices, noticed) = mpsc::channel(1_024);
        let inner = Self {
            config,
            notices,
            sessions: Mutex::default(),
        };
        (Arc::new(inner), noticed)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Incarnation), mpsc::Sender<()>>> {
        // What a panicking thread left is still a map of senders.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: TcpStream, from: IpAddr) {
        let peer = match self.greet(&mut stream, from, None, None).await {
            Ok(peer) => peer,
            Err(error) => return tracing::debug!(%from, %error, "liveness session refused"),
        };
        self.tell(Notice::Opened(peer.clone())).await;
        self.keep(stream, peer).await;
    }

    /// Holds a session, and the one that takes its place when it breaks, until the agent is lost.
    async fn keep(&self, mut stream: TcpStream, mut peer: Peer) {
        loop {
            let end = self.hold(&mut stream, &peer).await;
            let ended = tokio::time::Instant::now();
            let loss = match end {
                End::Left => Loss::Left,
                End::Broken => match self.dial_back(&peer).await {
                    Ok((again, found)) => {
                        (stream, peer) = (again, found);
                        continue;
                    }
                    Err(None) => return,
                    Err(Some(loss)) => loss,
                },
            };
            let after = ended.elapsed();
            return self.tell(Notice::Lost { peer, loss, after }).await;
        }
    }

    async fn tell(&self, notice: Notice) {
        // Nobody listens any more when the server shuts down.
        let _ = self.notices.send(notice).await;
    }

    async fn greet(
        &self,
        stream: &mut TcpStream,
        from: IpAddr,
        expected: Option<Incarnation>,
        pass: Option<Pass>,
    ) -> Result<Peer, HelloError> {
        stream.set_nodelay(true)?;
        let challenge = Challenge {
            nonce: rand::random(),
            expected,
            pass,
        };
        wire::send(stream, &challenge).await?;
        let hello: Hello = wire::receive(stream).await?;
        hello.verify(&challenge, &self.config.trusted, unix_now())?;
        stream.write_all(&[WELCOME]).await?;
        let member = hello.certificate.membership();
        Ok(Peer {
            agent: member.node.node_id(),
            name: member.name.clone(),
            incarnation: hello.incarnation,
            door: (hello.port != 0).then(|| SocketAddr::new(from, hello.port)),
            pass,
        })
    }

    /// Waits for the end of a session, poking meanwhile.
    async fn hold(&self, stream: &mut TcpStream, peer: &Peer) -> End {
        let name = (peer.agent, peer.incarnation);
        let (poke, mut poked) = mpsc::channel(1);
        self.sessions().insert(name, poke.clone());
        let end = loop {
            tokio::select! {
                byte = stream.read_u8() => match byte {
                    Ok(BYE) => break End::Left,
                    Ok(_) => {}
                    Err(_) => break End::Broken,
                },
                Some(()) = poked.recv() => if stream.write_all(&[POKE]).await.is_err() {
                    break End::Broken;
                },
            }
        };
        // A newer session of the same run may have taken the place.
        let mut sessions = self.sessions();
        if sessions
            .get(&name)
            .is_some_and(|held| held.same_channel(&poke))
        {
            sessions.remove(&name);
        }
        end
    }

    /// Dials the agent's own port. `Err(None)`: the agent has another session already.
    async fn dial_back(&self, peer: &Peer) -> Result<(TcpStream, Peer), Option<Loss>> {
        let name = (peer.agent, peer.incarnation);
        if self.sessions().contains_key(&name) {
            return Err(None);
        }
        let door = peer.door.ok_or(Loss::Silent)?;
        let knock = self.knock(door, peer);
        let answer = tokio::time::timeout(self.config.dial_time_max, knock).await;
        match answer {
            Ok(Ok((_, found))) if found.agent != peer.agent => Err(Some(Loss::Refused)),
            Ok(Ok((_, found))) if found.incarnation != peer.incarnation => {
                Err(Some(Loss::Replaced(found.incarnation)))
            }
            Ok(Ok(session)) => Ok(session),
            Ok(Err(loss)) => Err(Some(loss)),
            Err(_) => Err(Some(Loss::Silent)),
        }
    }

    /// Connects until somebody says hello or the kernel says that nobody listens. A dying process
    /// closes its sockets one by one, so that a connection may still be taken in and then cut:
    /// only a refusal is proof.
    async fn knock(&self, door: SocketAddr, peer: &Peer) -> Result<(TcpStream, Peer), Loss> {
        let expected = Some(peer.incarnation);
        let mut pause = KNOCK_PAUSE;
        loop {
            let mut stream = match TcpStream::connect(door).await {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(Loss::Refused);
                }
                Err(_) => return Err(Loss::Silent),
            };
            let greeted = self
                .greet(&mut stream, door.ip(), expected, peer.pass)
                .await;
            match greeted {
                Ok(found) => return Ok((stream, found)),
                Err(HelloError::Io(_)) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(KNOCK_PAUSE_MAX);
                }
                Err(_) => return Err(Loss::Silent),
            }
        }
    }
}
