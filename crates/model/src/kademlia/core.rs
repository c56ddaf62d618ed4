//! One node: its state, what it is told and what it wants done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::certificates::Certificates;
use super::limits::{Rates, ReplayWindow};
use super::lookup::{Goal, Lookup, Purpose};
use super::publishing::Publication;
use super::requests::Pending;
use super::store::Store;
use super::table::Table;
use super::{CERTIFICATE_LEN_MAX, CallError, Caller, Contact, Key, Limits, Random};
use crate::identity::{Certificate, NodeKey, PublicKey};
use crate::ids::Incarnation;
use crate::record::{Record, Trust, VerifiedRecord};
use crate::time::{Timestamp, UnixMillis};

/// How a node behaves. The defaults suit a LAN as well as the Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Contacts in a bucket and nodes that a look-up must hear: k of the paper.
    pub bucket_len: usize,
    /// Requests that a look-up has under way: alpha of the paper.
    pub parallel: usize,
    /// Whether this node only asks and publishes, and routes for nobody.
    pub client: bool,
    /// How long to wait for an answer before a request counts as lost.
    pub request_timeout: Duration,
    /// How long a look-up waits for one answer before it asks another node meanwhile.
    pub patience: Duration,
    /// How often the contact not heard of for longest is asked whether it lives.
    pub probe_interval: Duration,
    /// How long a bucket goes without a look-up before it gets one (section 2.3 of the paper).
    pub refresh_interval: Duration,
    /// How often absent bootstrap peers are tried again once there are others.
    pub seed_interval: Duration,
    /// How often holders make sure that the other holders have their entries.
    pub replicate_interval: Duration,
    /// The longest time between two publications of a record by its publisher.
    pub republish_interval_max: Duration,
    /// How many nodes hold what is handed on by its holders.
    pub replicas: usize,
    /// What others can make it keep and do.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bucket_len: 20,
            parallel: 3,
            client: false,
            request_timeout: Duration::from_secs(1),
            patience: Duration::from_millis(150),
            probe_interval: Duration::from_secs(5),
            refresh_interval: Duration::from_secs(900),
            seed_interval: Duration::from_secs(30),
            replicate_interval: Duration::from_secs(1_200),
            republish_interval_max: Duration::from_secs(3_600),
            replicas: 8,
            limits: Limits::default(),
        }
    }
}

/// Who a node is and whom it trusts.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its key.
    pub key: NodeKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The organisations whose members it lets in.
    pub trust: Trust,
    /// This run of its process; orders its records after those of earlier runs.
    pub incarnation: Incarnation,
}

/// Why a node cannot take part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The certificate was issued for another key.
    #[error("the certificate was issued for another node's key; issue one for this node")]
    ForeignCertificate,
    /// The certificate does not fit a datagram.
    #[error(
        "the certificate has {len} bytes, at most {max} can travel; let it name fewer namespaces"
    )]
    CertificateTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest that can travel.
        max: usize,
    },
}

/// What a node is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The wall clock shows this; it only bounds replay and certificates.
    Clock(UnixMillis),
    /// Take part in the network that these peers belong to.
    Join {
        /// Bootstrap peers and peers known from earlier.
        seeds: Vec<Contact>,
    },
    /// A datagram came in and was opened.
    Received {
        /// The sender's key, authenticated by the seal.
        from: PublicKey,
        /// The sender's address.
        addr: SocketAddr,
        /// The message.
        message: Vec<u8>,
    },
    /// [`Core::next_timer`] has passed.
    Timer,
    /// Find the nodes nearest to a position. Answered by [`Action::Found`].
    FindNodes {
        /// Named in the answer.
        query: u64,
        /// The position.
        target: Key,
        /// When to answer with what there is.
        deadline: Timestamp,
    },
    /// Find the entries of a key. Answered by [`Action::Found`].
    FindRecords {
        /// Named in the answer.
        query: u64,
        /// The key.
        key: Key,
        /// How many holders to hear before their entries are merged and returned.
        quorum: usize,
        /// When to answer with what there is.
        deadline: Timestamp,
    },
    /// Publish a record in place of any earlier one of this node at the same place (see
    /// [`Record::place`]), and keep it fresh.
    /// Answered by [`Action::Published`].
    Publish {
        /// The record.
        record: Record,
        /// How long it stands after this node is gone.
        lifetime: Duration,
        /// How many nodes are to hold it.
        replicas: usize,
    },
    /// Take back what this node published at a place by a tombstone. Answered by
    /// [`Action::Published`], at once if there is nothing.
    Withdraw {
        /// The place; the key for all but directory entries.
        key: Key,
    },
    /// Ask a node's application something. Answered by [`Action::Answered`].
    Call {
        /// Named in the answer.
        call: u64,
        /// The node.
        to: Contact,
        /// What kind of question.
        kind: u8,
        /// The question, at most [`super::PAYLOAD_LEN_MAX`] bytes.
        payload: Vec<u8>,
        /// When to give up.
        deadline: Timestamp,
    },
    /// The application answers an [`Action::Serve`]; `None` if it does not serve that kind.
    Answer {
        /// Who asked.
        caller: Caller,
        /// The answer, at most [`super::PAYLOAD_LEN_MAX`] bytes.
        payload: Option<Vec<u8>>,
    },
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The nearest nodes that answered, nearest first.
    pub contacts: Vec<Contact>,
    /// Entries, all checked; empty after [`Event::FindNodes`].
    pub records: Vec<VerifiedRecord>,
    /// Whether it came to its end; otherwise the deadline cut it off.
    pub complete: bool,
}

/// What a node wants done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Seal this message and send it.
    Send {
        /// To whom.
        to: Contact,
        /// The message.
        message: Vec<u8>,
    },
    /// A look-up ended.
    Found {
        /// Its name.
        query: u64,
        /// What it found.
        found: Found,
    },
    /// A publication or withdrawal went out; it stays fresh from now on.
    Published {
        /// Its [`Record::place`].
        key: Key,
        /// How many other nodes hold it.
        holders: usize,
    },
    /// A node asks this node's application something; answer with [`Event::Answer`].
    Serve {
        /// Who asks; hand it back.
        caller: Caller,
        /// What kind of question.
        kind: u8,
        /// The question.
        payload: Vec<u8>,
    },
    /// A call ended.
    Answered {
        /// Its name.
        call: u64,
        /// The answer.
        result: Result<Vec<u8>, CallError>,
    },
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages sent.
    pub sent: u64,
    /// Messages received and well-formed.
    pub received: u64,
    /// Messages, records and certificates refused.
    pub refused: u64,
    /// Look-ups ended.
    pub lookups: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Contacts in the routing table now.
    pub contacts: usize,
    /// Entries held for the network now.
    pub entries: usize,
}

/// What happens when a moment comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request is late.
    Patience(u64),
    /// A request counts as lost.
    Timeout(u64),
    /// A look-up must answer.
    LookupDeadline(u64),
    /// A publication is due again.
    Publication(Key),
    /// Ask the stalest contact.
    Probe,
    /// Look this node's own neighbourhood up.
    Neighbourhood,
    /// Look for buckets without recent look-ups.
    Refresh,
    /// Try bootstrap peers.
    Seeds,
    /// Drop what expired, replicate what is due.
    Sweep,
    /// Send what waits to be handed on.
    HandOver,
}

/// One node. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Core {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) me: Key,
    pub(super) certificate: Arc<[u8]>,
    pub(super) certificate_hash: [u8; 32],
    pub(super) random: Random,
    wall: (Timestamp, UnixMillis),
    pub(super) table: Table,
    pub(super) store: Store,
    pub(super) certificates: Certificates,
    pub(super) rates: Rates,
    pub(super) replay: ReplayWindow,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) lookups: BTreeMap<u64, Lookup>,
    pub(super) next_lookup: u64,
    pub(super) publications: BTreeMap<Key, Publication>,
    pub(super) sequence: u64,
    pub(super) seeds: Vec<Contact>,
    /// Whether this node was told to join, and its regular work has begun.
    pub(super) joining: bool,
    pub(super) seed_delay: Duration,
    pub(super) neighbourhood_delay: Duration,
    /// Contacts that asked for this node's certificate.
    pub(super) curious: BTreeSet<Key>,
    pub(super) hand_overs: VecDeque<(Contact, Key)>,
    timers: BTreeSet<(Timestamp, Timer)>,
    pub(super) stats: Stats,
    pub(super) actions: Vec<Action>,
}

impl Core {
    /// A node that knows nobody yet. All its choices follow from `seed`.
    ///
    /// # Errors
    /// [`SetupError`] if the certificate is another node's or too long to travel.
    pub fn new(config: Config, identity: Identity, seed: u64) -> Result<Self, SetupError> {
        if identity.certificate.membership().node != identity.key.public() {
            return Err(SetupError::ForeignCertificate);
        }
        let certificate: Arc<[u8]> = identity.certificate.to_bytes().into();
        if certificate.len() > CERTIFICATE_LEN_MAX {
            return Err(SetupError::CertificateTooLong {
                len: certificate.len(),
                max: CERTIFICATE_LEN_MAX,
            });
        }
        let me = Key::new(identity.key.id().0);
        Ok(Self {
            me,
            certificate_hash: identity.certificate.hash(),
            certificate,
            random: Random::new(seed),
            wall: (Timestamp::ZERO, UnixMillis(0)),
            table: Table::new(me, config.bucket_len),
            store: Store::new(config.limits),
            certificates: Certificates::new(config.limits.certificates),
            rates: Rates::new(config.limits.requests_per_second),
            replay: ReplayWindow::default(),
            pending: BTreeMap::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            publications: BTreeMap::new(),
            sequence: 0,
            seeds: Vec::new(),
            joining: false,
            seed_delay: super::upkeep::SEED_DELAY_MIN,
            neighbourhood_delay: super::upkeep::NEIGHBOURHOOD_DELAY_MIN,
            curious: BTreeSet::new(),
            hand_overs: VecDeque::new(),
            timers: BTreeSet::new(),
            stats: Stats::default(),
            actions: Vec::new(),
            config,
            identity,
        })
    }

    /// Takes note of `event` at `now` and returns what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::Clock(wall) => self.wall = (now, wall),
            Event::Join { seeds } => self.join(now, seeds),
            Event::Received {
                from,
                addr,
                message,
            } => {
                self.received(now, Contact::new(from, addr), &message);
            }
            Event::Timer => self.run_timers(now),
            Event::FindNodes {
                query,
                target,
                deadline,
            } => {
                let width = self.config.bucket_len;
                self.look_up(
                    now,
                    target,
                    Goal::Nodes,
                    Purpose::Query(query),
                    width,
                    deadline,
                );
            }
            Event::FindRecords {
                query,
                key,
                quorum,
                deadline,
            } => {
                self.find_records(now, query, key, quorum, deadline);
            }
            Event::Publish {
                record,
                lifetime,
                replicas,
            } => {
                self.publish(now, record, lifetime, replicas);
            }
            Event::Withdraw { key } => self.withdraw(now, key),
            Event::Call {
                call,
                to,
                kind,
                payload,
                deadline,
            } => {
                self.call(now, call, to, kind, payload, deadline);
            }
            Event::Answer { caller, payload } => self.answer(caller, payload),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timer`] is due, if at all.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// This node's position.
    pub const fn id(&self) -> &Key {
        &self.me
    }

    /// The nodes in the routing table.
    pub fn peers(&self) -> Vec<Contact> {
        self.table.contacts().copied().collect()
    }

    /// The nodes in the routing table nearest to `target`, nearest first.
    pub fn closest(&self, target: &Key, count: usize) -> Vec<Contact> {
        self.table.closest(target, count)
    }

    /// The address of a node in the routing table.
    pub fn contact(&self, node: &Key) -> Option<Contact> {
        self.table.get(node).copied()
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        Stats {
            contacts: self.table.len(),
            entries: self.store.len(),
            ..self.stats
        }
    }

    /// What the wall clock shows at `now`.
    pub(super) fn wall(&self, now: Timestamp) -> UnixMillis {
        let (at, wall) = self.wall;
        wall.after(now.since(at))
    }

    pub(super) fn set_timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers.insert((at, timer));
    }

    pub(super) fn clear_timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    fn run_timers(&mut self, now: Timestamp) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, timer));
            self.run_timer(now, timer);
        }
    }

    fn run_timer(&mut self, now: Timestamp, timer: Timer) {
        match timer {
            Timer::Patience(id) => self.request_late(now, id),
            Timer::Timeout(id) => self.request_lost(now, id),
            Timer::LookupDeadline(lookup) => self.end_lookup(now, lookup, false),
            Timer::Publication(key) => self.republish(now, key),
            Timer::Probe => self.probe(now),
            Timer::Neighbourhood => self.look_around(now),
            Timer::Refresh => self.refresh(now),
            Timer::Seeds => self.try_seeds(now),
            Timer::Sweep => self.sweep(now),
            Timer::HandOver => self.hand_over(now),
        }
    }
}
