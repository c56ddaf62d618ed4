//! Many Kademlia nodes in one virtual network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use mutual_model::identity::{Certificate, Membership, NodeKey, PublicKey, Role};
use mutual_model::ids::{Incarnation, Namespace};
use mutual_model::kademlia::{
    Action, CallError, Config, Contact, Core, Event, Found, Identity, Key, SEAL_LEN,
};
use mutual_model::record::{Record, Trust};
use mutual_model::time::{Timestamp, UnixMillis};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What the wall clocks of all nodes show when a world begins.
const EPOCH: UnixMillis = UnixMillis(1_800_000_000_000);
const PORT: u16 = 7_400;

/// How datagrams fare between two nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Shortest delay.
    pub delay_min: Duration,
    /// Longest delay; datagrams overtake each other within the difference.
    pub delay_max: Duration,
    /// Share of datagrams that never arrive, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice, 0 to 1.
    pub repeated: f64,
}

impl Link {
    /// A quiet local network.
    pub const LAN: Self = Self {
        delay_min: Duration::from_micros(50),
        delay_max: Duration::from_micros(500),
        loss: 0.0,
        repeated: 0.0,
    };

    /// A bad day on the Internet.
    pub const ROUGH: Self = Self {
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(120),
        loss: 0.1,
        repeated: 0.1,
    };
}

/// A node of a world, by the order of its coming.
pub type NodeIndex = usize;

#[derive(Debug)]
struct Node {
    key: NodeKey,
    certificate: Certificate,
    config: Config,
    contact: Contact,
    /// `None` while it is down.
    core: Option<Core>,
    timer: Option<Timestamp>,
    /// Nodes in different groups do not hear each other.
    group: usize,
    runs: u64,
}

#[derive(Debug, Clone)]
struct Datagram {
    from: NodeIndex,
    to: SocketAddr,
    message: Vec<u8>,
}

/// What the nodes reported.
#[derive(Debug, Default)]
pub struct Reports {
    /// Ends of look-ups.
    pub found: BTreeMap<u64, Found>,
    /// Publications that went out, with how many other nodes hold them.
    pub published: BTreeMap<(NodeIndex, Key), usize>,
    /// Ends of calls.
    pub answered: BTreeMap<u64, Result<Vec<u8>, CallError>>,
}

/// A network of nodes and its clock.
#[derive(Debug)]
pub struct World {
    seed: u64,
    random: ChaCha8Rng,
    now: Timestamp,
    link: Link,
    organisation: NodeKey,
    nodes: Vec<Node>,
    addresses: BTreeMap<SocketAddr, NodeIndex>,
    in_flight: BTreeMap<(Timestamp, u64), Datagram>,
    timers: BTreeSet<(Timestamp, NodeIndex)>,
    counter: u64,
    digest: u64,
    messages: u64,
    bytes: u64,
    reports: Reports,
}

impl World {
    /// An empty network; everything that happens in it follows from `seed`.
    pub fn new(seed: u64, link: Link) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let organisation = NodeKey::generate(&mut random);
        Self {
            seed,
            random,
            now: Timestamp(1_000_000),
            link,
            organisation,
            nodes: Vec::new(),
            addresses: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            timers: BTreeSet::new(),
            counter: 0,
            digest: 0,
            messages: 0,
            bytes: 0,
            reports: Reports::default(),
        }
    }

    /// A network of `count` nodes that joined one after another through the first two.
    ///
    /// # Errors
    /// If a node cannot be set up or does not find the others in time.
    pub fn joined(seed: u64, link: Link, count: usize) -> anyhow::Result<Self> {
        let mut world = Self::new(seed, link);
        for index in 0..count {
            let seeds: Vec<NodeIndex> = (0..index.min(2)).collect();
            world.add(Config::default(), &seeds)?;
            world.run_for(Duration::from_millis(20));
        }
        let met = world.run_until(Duration::from_secs(60), |world| {
            (0..count).all(|index| world.peers(index) >= (count - 1).min(2))
        });
        anyhow::ensure!(met, "seed {seed}: some of {count} nodes found nobody");
        Ok(world)
    }

    /// What everything follows from; print it when a test fails.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The present.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Datagrams sent so far.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the datagrams sent so far, seals included.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A number that tells two runs apart: a digest of every datagram delivered so far.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// What the nodes reported.
    pub const fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Changes how datagrams fare from now on.
    pub const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Adds a member that joins through `seeds`.
    ///
    /// # Errors
    /// If its certificate cannot be issued.
    pub fn add(&mut self, config: Config, seeds: &[NodeIndex]) -> anyhow::Result<NodeIndex> {
        let organisation = self.organisation.clone();
        self.add_of(&organisation, config, seeds)
    }

    /// Adds a node with a certificate of some other organisation.
    ///
    /// # Errors
    /// If its certificate cannot be issued.
    pub fn add_stranger(
        &mut self,
        config: Config,
        seeds: &[NodeIndex],
    ) -> anyhow::Result<NodeIndex> {
        let organisation = NodeKey::generate(&mut self.random);
        self.add_of(&organisation, config, seeds)
    }

    fn add_of(
        &mut self,
        organisation: &NodeKey,
        config: Config,
        seeds: &[NodeIndex],
    ) -> anyhow::Result<NodeIndex> {
        let index = self.nodes.len();
        let key = NodeKey::generate(&mut self.random);
        let certificate = certificate(organisation, &key, index)?;
        let number = u32::try_from(index).context("too many nodes")?;
        let ip = Ipv4Addr::from(0x0a00_0001 + number);
        let contact = Contact::new(key.public(), SocketAddr::from((ip, PORT)));
        self.addresses.insert(contact.addr(), index);
        self.nodes.push(Node {
            key,
            certificate,
            config,
            contact,
            core: None,
            timer: None,
            group: 0,
            runs: 0,
        });
        self.start(index, seeds)?;
        Ok(index)
    }

    /// Starts a node that is down, with what it knows from its configuration alone.
    ///
    /// # Errors
    /// If its identity is not accepted.
    pub fn start(&mut self, index: NodeIndex, seeds: &[NodeIndex]) -> anyhow::Result<()> {
        let seed = self.random.next_u64();
        let wall = self.wall();
        let trust = Trust::in_organisation(self.organisation.public());
        let seeds = seeds.iter().map(|seed| self.nodes[*seed].contact).collect();
        let node = &mut self.nodes[index];
        node.runs += 1;
        let identity = Identity {
            key: node.key.clone(),
            certificate: node.certificate.clone(),
            trust,
            incarnation: Incarnation::new(wall, [u8::try_from(node.runs % 256)?; 10]),
        };
        node.core = Some(Core::new(node.config.clone(), identity, seed)?);
        self.tell(index, Event::Clock(wall));
        self.tell(index, Event::Join { seeds });
        Ok(())
    }

    /// Ends a node's process; what it knew is lost.
    pub fn crash(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index];
        node.core = None;
        if let Some(at) = node.timer.take() {
            self.timers.remove(&(at, index));
        }
    }

    /// Puts a node into a group; only nodes of one group hear each other.
    pub fn place_in_group(&mut self, index: NodeIndex, group: usize) {
        self.nodes[index].group = group;
    }

    /// A node's state, unless it is down.
    pub fn core(&self, index: NodeIndex) -> Option<&Core> {
        self.nodes[index].core.as_ref()
    }

    /// How to reach a node.
    pub fn contact(&self, index: NodeIndex) -> Contact {
        self.nodes[index].contact
    }

    /// A node's key.
    pub fn key(&self, index: NodeIndex) -> &NodeKey {
        &self.nodes[index].key
    }

    /// A node's certificate.
    pub fn certificate(&self, index: NodeIndex) -> &Certificate {
        &self.nodes[index].certificate
    }

    /// How many nodes a node knows; 0 while it is down.
    pub fn peers(&self, index: NodeIndex) -> usize {
        self.core(index).map_or(0, |core| core.stats().contacts)
    }

    /// How many nodes there are, those that are down included.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What wall clocks show now.
    pub fn wall(&self) -> UnixMillis {
        EPOCH.after(self.now.since(Timestamp::ZERO))
    }

    /// Publishes a record at a node and waits until it went out.
    ///
    /// # Errors
    /// If it did not go out within a virtual minute.
    pub fn publish(
        &mut self,
        index: NodeIndex,
        record: Record,
        lifetime: Duration,
    ) -> anyhow::Result<usize> {
        let key = record.body.key(&record.namespace);
        self.reports.published.remove(&(index, key));
        let replicas = 8;
        self.tell(
            index,
            Event::Publish {
                record,
                lifetime,
                replicas,
            },
        );
        self.until_published(index, key)
    }

    /// Withdraws a record at a node and waits until its tombstone went out.
    ///
    /// # Errors
    /// If it did not go out within a virtual minute.
    pub fn withdraw(&mut self, index: NodeIndex, key: Key) -> anyhow::Result<usize> {
        self.reports.published.remove(&(index, key));
        self.tell(index, Event::Withdraw { key });
        self.until_published(index, key)
    }

    fn until_published(&mut self, index: NodeIndex, key: Key) -> anyhow::Result<usize> {
        self.run_until(Duration::from_secs(60), |world| {
            world.reports.published.contains_key(&(index, key))
        });
        let holders = self.reports.published.get(&(index, key)).copied();
        holders.with_context(|| format!("seed {}: nothing was published", self.seed))
    }

    /// Looks a key up from a node and waits for the end.
    ///
    /// # Errors
    /// If the look-up outlives its own deadline.
    pub fn find(&mut self, index: NodeIndex, key: Key, quorum: usize) -> anyhow::Result<Found> {
        let query = self.next_number();
        let deadline = self.now.after(Duration::from_secs(20));
        self.tell(
            index,
            Event::FindRecords {
                query,
                key,
                quorum,
                deadline,
            },
        );
        self.until_found(query)
    }

    /// Looks up the nodes nearest to a position and waits for the end.
    ///
    /// # Errors
    /// If the look-up outlives its own deadline.
    pub fn find_nodes(&mut self, index: NodeIndex, target: Key) -> anyhow::Result<Found> {
        let query = self.next_number();
        let deadline = self.now.after(Duration::from_secs(20));
        self.tell(
            index,
            Event::FindNodes {
                query,
                target,
                deadline,
            },
        );
        self.until_found(query)
    }

    fn until_found(&mut self, query: u64) -> anyhow::Result<Found> {
        self.run_until(Duration::from_secs(30), |world| {
            world.reports.found.contains_key(&query)
        });
        let found = self.reports.found.remove(&query);
        found.with_context(|| format!("seed {}: a look-up never ended", self.seed))
    }

    /// Asks a node's application something and waits for the end. In this world every application
    /// answers a question with the question.
    ///
    /// # Errors
    /// If the call outlives its own deadline.
    pub fn call(
        &mut self,
        index: NodeIndex,
        to: NodeIndex,
        payload: Vec<u8>,
    ) -> anyhow::Result<Result<Vec<u8>, CallError>> {
        let call = self.next_number();
        let deadline = self.now.after(Duration::from_secs(5));
        let to = self.nodes[to].contact;
        self.tell(
            index,
            Event::Call {
                call,
                to,
                kind: 1,
                payload,
                deadline,
            },
        );
        self.run_until(Duration::from_secs(10), |world| {
            world.reports.answered.contains_key(&call)
        });
        let answer = self.reports.answered.remove(&call);
        answer.with_context(|| format!("seed {}: a call never ended", self.seed))
    }

    /// Hands a node a datagram of a test's own making.
    pub fn deliver(&mut self, from: PublicKey, addr: SocketAddr, to: NodeIndex, message: Vec<u8>) {
        self.tell(
            to,
            Event::Received {
                from,
                addr,
                message,
            },
        );
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `reached`, at most for `limit`. Returns whether it was reached.
    pub fn run_until(&mut self, limit: Duration, mut reached: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.after(limit);
        loop {
            if reached(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return reached(self);
            }
        }
    }

    /// Does what comes next, unless that lies beyond `end`.
    fn step(&mut self, end: Timestamp) -> bool {
        let datagram = self.in_flight.keys().next().map(|(at, _)| *at);
        let timer = self.timers.first().map(|(at, _)| *at);
        let Some(next) = [datagram, timer].into_iter().flatten().min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if datagram == Some(next) {
            self.arrive();
        } else if let Some((_, index)) = self.timers.pop_first() {
            self.nodes[index].timer = None;
            self.tell(index, Event::Timer);
        }
        true
    }

    fn arrive(&mut self) {
        let Some((_, datagram)) = self.in_flight.pop_first() else {
            return;
        };
        let Some(to) = self.addresses.get(&datagram.to).copied() else {
            return;
        };
        let from = &self.nodes[datagram.from];
        if from.group != self.nodes[to].group {
            return;
        }
        let (key, addr) = (*from.contact.public(), from.contact.addr());
        self.note(&datagram, to);
        let message = datagram.message;
        self.tell(
            to,
            Event::Received {
                from: key,
                addr,
                message,
            },
        );
    }

    fn note(&mut self, datagram: &Datagram, to: NodeIndex) {
        let words = [self.now.0, datagram.from as u64, to as u64];
        let bytes = datagram.message.iter().map(|byte| u64::from(*byte));
        for word in words.into_iter().chain(bytes) {
            // FNV-1a over words: enough to notice that two runs differ.
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Tells a node something and carries out what it wants done.
    pub fn tell(&mut self, index: NodeIndex, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Some(core) = self.nodes[index].core.as_mut() else {
                return;
            };
            for action in core.handle(self.now, event) {
                self.carry_out(index, action, &mut events);
            }
        }
        self.reschedule(index);
    }

    fn reschedule(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index];
        let next = node.core.as_ref().and_then(Core::next_timer);
        if node.timer == next {
            return;
        }
        if let Some(at) = std::mem::replace(&mut node.timer, next) {
            self.timers.remove(&(at, index));
        }
        if let Some(at) = next {
            self.timers.insert((at, index));
        }
    }

    fn carry_out(&mut self, index: NodeIndex, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Send { to, message } => self.send(index, to.addr(), message),
            Action::Found { query, found } => {
                self.reports.found.insert(query, found);
            }
            Action::Published { key, holders } => {
                self.reports.published.insert((index, key), holders);
            }
            Action::Serve {
                caller, payload, ..
            } => events.push(Event::Answer {
                caller,
                payload: Some(payload),
            }),
            Action::Answered { call, result } => {
                self.reports.answered.insert(call, result);
            }
        }
    }

    fn send(&mut self, from: NodeIndex, to: SocketAddr, message: Vec<u8>) {
        self.messages += 1;
        self.bytes += (message.len() + SEAL_LEN) as u64;
        if self.random.random_bool(self.link.loss) {
            return;
        }
        let copies = 1 + usize::from(self.random.random_bool(self.link.repeated));
        for _ in 0..copies {
            let span = self.link.delay_min..=self.link.delay_max;
            let at = self.now.after(self.random.random_range(span));
            let number = self.next_number();
            let message = message.clone();
            self.in_flight
                .insert((at, number), Datagram { from, to, message });
        }
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// The namespace that every node of a world serves.
///
/// # Panics
/// Never: the name is valid.
pub fn namespace() -> Namespace {
    "lab".parse().expect("a valid constant")
}

fn certificate(
    organisation: &NodeKey,
    node: &NodeKey,
    index: usize,
) -> anyhow::Result<Certificate> {
    let membership = Membership {
        organisation: organisation.public(),
        node: node.public(),
        sealing: node.sealing_public(),
        name: format!("node-{index}"),
        namespaces: vec![namespace()],
        roles: vec![Role::Agent],
        not_before: UnixMillis(0),
        not_after: EPOCH.after(Duration::from_secs(400 * 24 * 3_600)),
    };
    Ok(Certificate::issue(organisation, membership)?)
}
