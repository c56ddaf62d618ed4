//! The DHT in the words of the roles: neighbours for servers, presence for agents.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mutual_model::identity::PublicKey;
use mutual_model::ids::{ContentId, JobId, Namespace};
use mutual_model::kademlia::{Contact, Key};
use mutual_model::matching::{Need, Offer};
use mutual_model::record::{
    Ad, Body, Bulletin, NodeRecord, ProviderRecord, Record, StatusMirror, mirror_key, provider_key,
};
use mutual_model::time::UnixMillis;

use crate::agent::{Mirror, PeerFinder, Presence};
use crate::auth::unix_now;
use crate::control::offer::{JobNotice, Neighbour, Neighbours};
use crate::discovery::{Discovery, IdleQuery, Presence as Announcement};
use crate::swarm::PeerAddr;
use rand::seq::SliceRandom as _;

/// Kind of the datagram that carries an offer.
pub(super) const OFFER_KIND: u8 = 1;
/// How long an offer by datagram may take; beyond it HTTP is tried.
const OFFER_DEADLINE: Duration = Duration::from_millis(250);
/// How long a look-up may take while a job waits for it.
const LOOK_UP: Duration = Duration::from_millis(500);
/// Lifetime of ads (DESIGN §5).
const AD_LIFETIME: Duration = Duration::from_secs(60);
/// Lifetime of manifests and mirrors; they are refreshed until they make room for newer ones.
const HINT_LIFETIME: Duration = Duration::from_secs(300);
/// Hints of one kind that a node keeps fresh at once.
const HINTS_MAX: usize = 512;
/// Addresses in a mirror or manifest record.
const ADDRESSES_MAX: usize = 8;

/// Hints that are kept fresh: the newest, so that traffic stays bounded.
#[derive(Debug, Default)]
struct Fresh(Mutex<VecDeque<Key>>);

impl Fresh {
    /// Notes a key; returns one that should make room.
    fn add(&self, key: Key) -> Option<Key> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.contains(&key) {
            return None;
        }
        keys.push_back(key);
        if keys.len() > HINTS_MAX {
            keys.pop_front()
        } else {
            None
        }
    }
}

/// This node's way to the DHT. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Dht {
    discovery: Discovery,
    announcement: Announcement,
    fresh: Arc<Fresh>,
}

/// The way to agents for a program that is no node of the cloud itself and only has a client's
/// place in the DHT under the key `own`.
pub fn neighbours(discovery: Discovery, own: PublicKey) -> Arc<dyn Neighbours> {
    let node = NodeRecord::new(own);
    let namespaces = Vec::new();
    Arc::new(Dht::new(discovery, Announcement { node, namespaces }))
}

impl Dht {
    /// A way through `discovery` for the node that `announcement` describes.
    pub(super) fn new(discovery: Discovery, announcement: Announcement) -> Self {
        Self {
            discovery,
            announcement,
            fresh: Arc::default(),
        }
    }

    /// Publishes a hint in the background.
    fn hint(&self, namespace: &Namespace, body: Body, key: Option<Key>, lifetime: Duration) {
        let record = Record {
            namespace: namespace.clone(),
            body,
        };
        let dht = self.clone();
        tokio::spawn(async move {
            if let Err(error) = dht.discovery.publish(record, lifetime).await {
                tracing::debug!(%error, "a hint was not published");
            }
            if let Some(old) = key.and_then(|key| dht.fresh.add(key)) {
                // A hint that cannot be withdrawn expires.
                let _ = dht.discovery.withdraw(old).await;
            }
        });
    }

    fn provider(&self, namespace: &Namespace, job: JobId, root: ContentId, seeders: Vec<String>) {
        let body = Body::Provider(ProviderRecord {
            job,
            manifest: root,
            seeders: bounded(seeders),
        });
        self.hint(namespace, body, Some(provider_key(job)), HINT_LIFETIME);
    }

    /// Publishes what is known of a job, with as many addresses as a record holds: further ones
    /// are found by the holder's id.
    fn status(&self, namespace: &Namespace, mut mirror: StatusMirror) {
        let key = mirror_key(mirror.job);
        mirror.providers = bounded(mirror.providers);
        let body = loop {
            let record = Record {
                namespace: namespace.clone(),
                body: Body::Mirror(mirror.clone()),
            };
            if record.check_len().is_ok() || mirror.providers.pop().is_none() {
                break record.body;
            }
        };
        self.hint(namespace, body, Some(key), HINT_LIFETIME);
    }

    fn bulletin(&self, namespace: &Namespace, bulletin: Bulletin) {
        let (dht, namespace) = (self.clone(), namespace.clone());
        tokio::spawn(async move {
            let published = dht
                .discovery
                .publish_bulletin(&namespace, bulletin, AD_LIFETIME)
                .await;
            if let Err(error) = published {
                tracing::debug!(%error, "a bulletin was not published");
            }
        });
    }

    fn neighbours(&self, found: Vec<NodeRecord>) -> Vec<Neighbour> {
        let own = self.announcement.node.node;
        let others = found
            .into_iter()
            .filter(|node| node.slots > 0 || node.node != own);
        others.map(neighbour).collect()
    }
}

fn bounded(mut addresses: Vec<String>) -> Vec<String> {
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

fn neighbour(node: NodeRecord) -> Neighbour {
    Neighbour {
        offer: node.offer(),
        node: node.node,
        udp: node.udp,
        http: node.http,
        total: node.total,
    }
}

#[async_trait]
impl Neighbours for Dht {
    async fn idle(&self, namespace: &Namespace, need: &Need, max: usize) -> Vec<Neighbour> {
        let query = IdleQuery {
            namespace: namespace.clone(),
            need: need.clone(),
        };
        self.neighbours(self.discovery.find_idle(&query, max, LOOK_UP).await)
    }

    async fn all(&self, namespace: &Namespace) -> Vec<Neighbour> {
        self.neighbours(self.discovery.nodes(namespace, LOOK_UP).await)
    }

    async fn ask(&self, to: &Neighbour, offer: Vec<u8>) -> Option<Vec<u8>> {
        let contact = Contact::new(to.node, *to.udp.first()?);
        let asked = self
            .discovery
            .request(contact, OFFER_KIND, offer, OFFER_DEADLINE);
        asked.await.ok()
    }

    async fn publish(&self, namespace: &Namespace, notice: JobNotice) {
        match notice {
            JobNotice::Open {
                class,
                open,
                jobs,
                demand_url,
            } => {
                let expires = unix_now().after(AD_LIFETIME);
                let ads = jobs.into_iter().map(|job| ad(job, &demand_url, expires));
                let ads = ads.collect();
                self.bulletin(namespace, Bulletin { class, open, ads });
            }
            JobNotice::Input { job, root, seeders } => {
                self.provider(namespace, job, root, seeders);
            }
            JobNotice::Mirror(status) => self.status(namespace, status),
        }
    }
}

fn ad(job: JobId, demand_url: &str, expires: UnixMillis) -> Ad {
    Ad {
        job,
        demand_url: demand_url.to_owned(),
        expires,
    }
}

#[async_trait]
impl Presence for Dht {
    async fn capacity(&self, free: Offer) {
        let mut announcement = self.announcement.clone();
        announcement.node.free = free.free;
        announcement.node.slots_free = u16::try_from(free.slots).unwrap_or(u16::MAX);
        self.discovery.announce(announcement);
    }

    async fn provides(&self, namespace: Namespace, job: JobId, root: ContentId) {
        let seeders = self.announcement.node.p2p.clone();
        self.provider(&namespace, job, root, seeders);
    }

    async fn mirror(&self, mirror: Mirror) {
        self.status(&mirror.namespace, mirror.status);
    }
}

#[async_trait]
impl PeerFinder for Dht {
    async fn keepers(&self, namespace: &Namespace) -> Vec<PeerAddr> {
        let own = self.announcement.node.node;
        let mut nodes = self.discovery.nodes(namespace, LOOK_UP).await;
        nodes.retain(|node| node.node != own);
        // Not always the same ones.
        nodes.shuffle(&mut rand::rng());
        nodes.iter().flat_map(|node| parse(&node.p2p)).collect()
    }

    async fn providers(&self, job: JobId) -> Vec<PeerAddr> {
        let found = self.discovery.providers(job, LOOK_UP).await;
        found
            .iter()
            .flat_map(|found| parse(&found.seeders))
            .collect()
    }
}

/// Those of the texts that are peers' addresses; the others are hints that do not help.
fn parse(texts: &[String]) -> Vec<PeerAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
