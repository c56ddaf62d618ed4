//! The task that owns the socket and the core and turns each into the other.

use crate::auth::unix_now;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mutual_model::identity::PublicKey;
use mutual_model::kademlia::{
    Action, CallError, Caller, Contact, Core, DATAGRAM_LEN_MAX, Event, Found, Key, Stats,
};
use mutual_model::record::Record;
use mutual_model::time::Timestamp;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::peers::{self, Bootstrap};
use super::seal::{self, Opened, Sealer};

/// Datagrams taken at a time before commands and timers get their turn.
const BATCH: usize = 64;
/// Questions of other nodes that this node's application works on at a time.
const SERVED_MAX: usize = 256;
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
const ASK_DELAY_MIN: Duration = Duration::from_millis(250);
const ASK_DELAY_MAX: Duration = Duration::from_secs(30);

/// Answers one kind of question.
pub(super) type Handler = Arc<
    dyn Fn(Caller, Vec<u8>) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>> + Send + Sync,
>;

/// What the handle asks of the task.
pub(super) enum Command {
    Publish {
        record: Box<Record>,
        lifetime: Duration,
        replicas: usize,
        done: oneshot::Sender<usize>,
    },
    Withdraw {
        key: Key,
        done: oneshot::Sender<usize>,
    },
    FindRecords {
        key: Key,
        quorum: usize,
        deadline: Instant,
        done: oneshot::Sender<Found>,
    },
    FindNodes {
        target: Key,
        deadline: Instant,
        done: oneshot::Sender<Found>,
    },
    Call {
        to: Contact,
        kind: u8,
        payload: Vec<u8>,
        deadline: Instant,
        done: oneshot::Sender<Result<Vec<u8>, CallError>>,
    },
    Serve {
        kind: u8,
        handler: Handler,
    },
    Answer {
        caller: Caller,
        payload: Option<Vec<u8>>,
    },
    Resolved {
        key: Option<PublicKey>,
        addr: SocketAddr,
    },
    Peers {
        done: oneshot::Sender<Vec<Contact>>,
    },
    Stats {
        done: oneshot::Sender<Stats>,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// An address whose key is being asked for.
#[derive(Debug)]
struct Unknown {
    addr: SocketAddr,
    token: [u8; 8],
    next: Instant,
    delay: Duration,
}

/// Everything that the task owns.
pub(super) struct Task {
    core: Core,
    sealer: Sealer,
    socket: UdpSocket,
    listens_on_v6: bool,
    public: PublicKey,
    started: Instant,
    commands: mpsc::Receiver<Command>,
    answers: mpsc::WeakSender<Command>,
    peers_file: Option<PathBuf>,
    saved: Vec<Contact>,
    unknown: Vec<Unknown>,
    handlers: HashMap<u8, Handler>,
    serving: Arc<Semaphore>,
    next_name: u64,
    found: HashMap<u64, oneshot::Sender<Found>>,
    called: HashMap<u64, oneshot::Sender<Result<Vec<u8>, CallError>>>,
    published: HashMap<Key, Vec<oneshot::Sender<usize>>>,
}

/// What the task starts from.
pub(super) struct Start {
    pub(super) core: Core,
    pub(super) sealer: Sealer,
    pub(super) public: PublicKey,
    pub(super) socket: UdpSocket,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) answers: mpsc::WeakSender<Command>,
    pub(super) peers_file: Option<PathBuf>,
    pub(super) known: Vec<Contact>,
}

impl Task {
    pub(super) fn new(start: Start) -> Self {
        let mut task = Self {
            listens_on_v6: start.socket.local_addr().is_ok_and(|addr| addr.is_ipv6()),
            core: start.core,
            sealer: start.sealer,
            socket: start.socket,
            public: start.public,
            started: Instant::now(),
            commands: start.commands,
            answers: start.answers,
            peers_file: start.peers_file,
            saved: start.known.clone(),
            unknown: Vec::new(),
            handlers: HashMap::new(),
            serving: Arc::new(Semaphore::new(SERVED_MAX)),
            next_name: 0,
            found: HashMap::new(),
            called: HashMap::new(),
            published: HashMap::new(),
        };
        let mut unsent = task.tell(Event::Clock(unix_now()));
        unsent.extend(task.tell(Event::Join { seeds: start.known }));
        for (to, datagram) in unsent {
            // The socket has just been opened; what it cannot take now is asked again later.
            let _ = task.socket.try_send_to(&datagram, task.family(to));
        }
        task
    }

    /// Runs until told to stop or until every handle is gone.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX + 1];
        let mut save = tokio::time::interval(SAVE_INTERVAL);
        let mut clock = tokio::time::interval(CLOCK_INTERVAL);
        loop {
            let wake = self.wake();
            let unsent = tokio::select! {
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.take_datagrams(&mut buffer),
                    Err(_) => Vec::new(),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown { done }) => {
                        self.save_peers().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command),
                    None => return self.save_peers().await,
                },
                () = tokio::time::sleep_until(wake) => self.timers(),
                _ = save.tick() => {
                    self.save_peers().await;
                    Vec::new()
                }
                _ = clock.tick() => self.tell(Event::Clock(unix_now())),
            };
            self.send(unsent).await;
        }
    }

    async fn send(&self, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        for (to, datagram) in datagrams {
            // A datagram that cannot be sent is a lost one; the core copes with those.
            if let Err(error) = self.socket.send_to(&datagram, self.family(to)).await {
                tracing::debug!(%to, %error, "a datagram could not be sent");
            }
        }
    }

    /// The address as this socket takes it: one for IPv6 reaches IPv4 in mapped form.
    fn family(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.listens_on_v6 => (ip.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        }
    }

    fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        Timestamp::ZERO.after(instant.saturating_duration_since(self.started))
    }

    fn wake(&self) -> Instant {
        let core = self.core.next_timer();
        let core = core.map(|at| self.started + at.since(Timestamp::ZERO));
        let ask = self.unknown.iter().map(|unknown| unknown.next).min();
        let idle = Instant::now() + CLOCK_INTERVAL;
        [core, ask].into_iter().flatten().min().unwrap_or(idle)
    }

    fn timers(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut unsent = self.ask_unknown();
        unsent.extend(self.tell(Event::Timer));
        unsent
    }

    fn take_datagrams(&mut self, buffer: &mut [u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut unsent = Vec::new();
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((len, addr)) => unsent.extend(self.datagram(&buffer[..len], addr)),
                Err(_) => break,
            }
        }
        unsent
    }

    fn datagram(&mut self, datagram: &[u8], addr: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        match self.sealer.open(datagram) {
            Some(Opened::Message { from, message }) => self.tell(Event::Received {
                from,
                addr,
                message,
            }),
            Some(Opened::Who { token }) => vec![(addr, seal::i_am(token, &self.public))],
            Some(Opened::IAm { token, public }) => self.introduced(addr, token, public),
            None => Vec::new(),
        }
    }

    /// Tells the core and carries out what it wants; returns the datagrams to be sent.
    fn tell(&mut self, event: Event) -> Vec<(SocketAddr, Vec<u8>)> {
        let now = self.now();
        let mut unsent = Vec::new();
        for action in self.core.handle(now, event) {
            match action {
                Action::Send { to, message } => {
                    let sealed = self.sealer.seal(to.public(), message);
                    unsent.extend(sealed.map(|datagram| (to.addr(), datagram)));
                }
                Action::Found { query, found } => {
                    // Whoever asked may have gone meanwhile; then nobody is told. So below.
                    self.found.remove(&query).map(|done| done.send(found));
                }
                Action::Answered { call, result } => {
                    self.called.remove(&call).map(|done| done.send(result));
                }
                Action::Published { key, holders } => {
                    for done in self.published.remove(&key).unwrap_or_default() {
                        let _ = done.send(holders);
                    }
                }
                Action::Serve {
                    caller,
                    kind,
                    payload,
                } => self.serve(caller, kind, payload),
            }
        }
        unsent
    }

    fn command(&mut self, command: Command) -> Vec<(SocketAddr, Vec<u8>)> {
        match command {
            Command::Publish {
                record,
                lifetime,
                replicas,
                done,
            } => {
                let key = record.place();
                self.published.entry(key).or_default().push(done);
                self.tell(Event::Publish {
                    record: *record,
                    lifetime,
                    replicas,
                })
            }
            Command::Withdraw { key, done } => {
                self.published.entry(key).or_default().push(done);
                self.tell(Event::Withdraw { key })
            }
            Command::FindRecords {
                key,
                quorum,
                deadline,
                done,
            } => {
                let query = self.name();
                self.found.insert(query, done);
                let deadline = self.at(deadline);
                self.tell(Event::FindRecords {
                    query,
                    key,
                    quorum,
                    deadline,
                })
            }
            Command::FindNodes {
                target,
                deadline,
                done,
            } => {
                let query = self.name();
                self.found.insert(query, done);
                let deadline = self.at(deadline);
                self.tell(Event::FindNodes {
                    query,
                    target,
                    deadline,
                })
            }
            Command::Call {
                to,
                kind,
                payload,
                deadline,
                done,
            } => {
                let call = self.name();
                self.called.insert(call, done);
                let deadline = self.at(deadline);
                self.tell(Event::Call {
                    call,
                    to,
                    kind,
                    payload,
                    deadline,
                })
            }
            Command::Answer { caller, payload } => self.tell(Event::Answer { caller, payload }),
            Command::Resolved {
                key: Some(key),
                addr,
            } => {
                let seeds = vec![Contact::new(key, addr)];
                self.tell(Event::Join { seeds })
            }
            Command::Resolved { key: None, addr } => self.ask_for_key(addr),
            other => {
                self.inspect(other);
                Vec::new()
            }
        }
    }

    /// Commands that make nothing happen on the network.
    fn inspect(&mut self, command: Command) {
        match command {
            Command::Serve { kind, handler } => {
                self.handlers.insert(kind, handler);
            }
            Command::Peers { done } => {
                let _ = done.send(self.core.peers());
            }
            Command::Stats { done } => {
                let _ = done.send(self.core.stats());
            }
            _ => {}
        }
    }

    fn name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }

    /// Lets the application answer; without one for this kind, or when it is overloaded, the caller
    /// hears so at once.
    fn serve(&self, caller: Caller, kind: u8, payload: Vec<u8>) {
        let Some(answers) = self.answers.upgrade() else {
            return;
        };
        let permit = self.serving.clone().try_acquire_owned();
        let handler = self.handlers.get(&kind).cloned();
        tokio::spawn(async move {
            let payload = match (handler, permit) {
                (Some(handler), Ok(_permit)) => handler(caller.clone(), payload).await,
                _ => None,
            };
            // Fails only when the task is gone, and the network with it.
            let _ = answers.send(Command::Answer { caller, payload }).await;
        });
    }

    fn ask_for_key(&mut self, addr: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        if self.unknown.iter().any(|unknown| unknown.addr == addr) {
            return Vec::new();
        }
        self.unknown.push(Unknown {
            addr,
            token: rand::random(),
            next: Instant::now(),
            delay: ASK_DELAY_MIN,
        });
        self.ask_unknown()
    }

    fn ask_unknown(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let now = Instant::now();
        let mut unsent = Vec::new();
        for unknown in self
            .unknown
            .iter_mut()
            .filter(|unknown| unknown.next <= now)
        {
            unsent.push((unknown.addr, seal::who(unknown.token)));
            unknown.next = now + unknown.delay;
            unknown.delay = (unknown.delay * 2).min(ASK_DELAY_MAX);
        }
        unsent
    }

    fn introduced(
        &mut self,
        addr: SocketAddr,
        token: [u8; 8],
        public: PublicKey,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let asked = self
            .unknown
            .iter()
            .position(|unknown| unknown.addr == addr && unknown.token == token);
        match asked {
            Some(at) => {
                self.unknown.swap_remove(at);
                let seeds = vec![Contact::new(public, addr)];
                self.tell(Event::Join { seeds })
            }
            None => Vec::new(),
        }
    }

    async fn save_peers(&mut self) {
        let Some(path) = self.peers_file.clone() else {
            return;
        };
        let mut peers = self.core.closest(self.core.id(), peers::PEERS_KEPT_MAX);
        peers.sort_unstable();
        // Nobody reachable just now is no reason to forget everybody.
        if peers.is_empty() || peers == self.saved {
            return;
        }
        self.saved.clone_from(&peers);
        let shown = path.clone();
        let saved = tokio::task::spawn_blocking(move || peers::save(&path, &peers)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(path = %shown.display(), %error, "known peers could not be saved");
        }
    }
}

/// Finds the addresses of bootstrap peers, again and again until their names resolve.
pub(super) async fn resolve(bootstrap: Bootstrap, commands: mpsc::WeakSender<Command>) {
    let mut delay = ASK_DELAY_MIN;
    loop {
        match tokio::net::lookup_host(&bootstrap.address).await {
            Ok(addresses) => {
                let Some(commands) = commands.upgrade() else {
                    return;
                };
                for addr in addresses.take(2) {
                    let key = bootstrap.key;
                    let _ = commands.send(Command::Resolved { key, addr }).await;
                }
                return;
            }
            Err(error) => {
                tracing::warn!(address = %bootstrap.address, %error, "bootstrap peer not found; trying again");
            }
        }
        if commands.upgrade().is_none() {
            return;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(ASK_DELAY_MAX);
    }
}
