//! The questions that the other parts of a node ask the network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use mutual_model::matching::Need;
use mutual_model::record::{
    Ad, Body, Bulletin, DirectoryEntry, Index, NodeRecord, ProviderRecord, Record, StatusMirror,
    Topic, VerifiedRecord, directory_key, idle_key, mirror_key, node_key, provider_key, roster_key,
    topic_key,
};
use mutual_model::resources::ResourceClass;
use tokio::time::Instant;

use super::{Discovery, DiscoveryError, REPLICAS, publish};

/// Keys of the index asked for one query (DESIGN §6).
const INDEX_KEYS_MAX: usize = 16;
/// Holders heard before a dictionary with many publishers counts as read.
const QUORUM: usize = 2;

/// What an idle node must offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleQuery {
    /// The namespace of the task.
    pub namespace: Namespace,
    /// What the task needs.
    pub need: Need,
}

/// An ad, and whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAd {
    /// Who signed the bulletin that it stands in.
    pub publisher: PublicKey,
    /// The topic.
    pub topic: Topic,
    /// How many jobs of the topic are open in all by that bulletin.
    pub open: u32,
    /// The ad.
    pub ad: Ad,
}

impl Discovery {
    /// Publishes the open jobs of one topic, and that the topic is not empty.
    ///
    /// # Errors
    /// [`DiscoveryError::Record`] if the bulletin does not fit a datagram,
    /// [`DiscoveryError::Stopped`].
    pub async fn publish_bulletin(
        &self,
        namespace: &Namespace,
        bulletin: Bulletin,
        lifetime: Duration,
    ) -> Result<usize, DiscoveryError> {
        let entry = DirectoryEntry {
            index: Index::Topics,
            class: bulletin.class,
            depth: 0,
        };
        let record = |body| Record {
            namespace: namespace.clone(),
            body,
        };
        let (bulletin, entry) = (
            record(Body::Bulletin(bulletin)),
            record(Body::Directory(entry)),
        );
        let (holders, listed) = tokio::join!(
            publish(&self.commands, bulletin, lifetime, REPLICAS),
            publish(&self.commands, entry, lifetime, REPLICAS),
        );
        listed?;
        holders
    }

    /// A node's own record.
    pub async fn find_node(&self, node: NodeId, deadline: Duration) -> Option<NodeRecord> {
        let found = self.get(node_key(&node), 1, deadline).await;
        found
            .into_iter()
            .find_map(|record| match record.signed.record().body.clone() {
                Body::Node(record) => Some(record),
                _ => None,
            })
    }

    /// The nodes of a namespace; of a large cloud only a sample.
    pub async fn nodes(&self, namespace: &Namespace, deadline: Duration) -> Vec<NodeRecord> {
        let found = self.get(roster_key(namespace), QUORUM, deadline).await;
        found.iter().filter_map(node_of).collect()
    }

    /// At most `max` idle nodes that fit, from the index of idle nodes; from the roster if the index
    /// shows none.
    pub async fn find_idle(
        &self,
        query: &IdleQuery,
        max: usize,
        deadline: Duration,
    ) -> Vec<NodeRecord> {
        let end = Instant::now() + deadline;
        let need = query.need.resources.class();
        let mut classes = self.listed(&query.namespace, Index::Idle, deadline).await;
        classes.retain(|class| class.may_fit(&need));
        // The smallest that may fit first: the larger ones are kept for larger tasks.
        classes.sort_unstable();
        classes.truncate(INDEX_KEYS_MAX);
        let left = end.saturating_duration_since(Instant::now());
        let keys = classes
            .iter()
            .map(|class| idle_key(&query.namespace, *class, 0));
        let found = join_all(keys.map(|key| self.get(key, QUORUM, left))).await;
        let fitting = fitting(query, found.iter().flatten().filter_map(node_of), max);
        if !fitting.is_empty() {
            return fitting;
        }
        let left = end.saturating_duration_since(Instant::now());
        let roster = self.nodes(&query.namespace, left).await;
        self::fitting(query, roster.into_iter(), max)
    }

    /// The classes that an index lists as not empty.
    async fn listed(
        &self,
        namespace: &Namespace,
        index: Index,
        deadline: Duration,
    ) -> Vec<ResourceClass> {
        let found = self
            .get(directory_key(namespace, index), QUORUM, deadline)
            .await;
        let classes: BTreeSet<ResourceClass> = found
            .iter()
            .filter_map(|record| match record.body() {
                Body::Directory(entry) => Some(entry.class),
                _ => None,
            })
            .collect();
        classes.into_iter().collect()
    }

    /// The ads of a topic.
    pub async fn ads(&self, topic: &Topic, deadline: Duration) -> Vec<FoundAd> {
        let key = topic_key(&topic.namespace, topic.class);
        let found = self.get(key, QUORUM, deadline).await;
        found
            .iter()
            .flat_map(|record| ads_of(record, topic))
            .collect()
    }

    /// The ads of all topics of a namespace that a node with this much free may fit.
    pub async fn open_ads(
        &self,
        namespace: &Namespace,
        have: ResourceClass,
        deadline: Duration,
    ) -> Vec<FoundAd> {
        let end = Instant::now() + deadline;
        let mut classes = self.listed(namespace, Index::Topics, deadline).await;
        classes.retain(|class| have.may_fit(class));
        // The largest that fit first: smaller nodes can take the smaller tasks.
        classes.reverse();
        classes.truncate(INDEX_KEYS_MAX);
        let left = end.saturating_duration_since(Instant::now());
        let topics: Vec<Topic> = classes
            .into_iter()
            .map(|class| Topic {
                namespace: namespace.clone(),
                class,
            })
            .collect();
        let found = join_all(topics.iter().map(|topic| self.ads(topic, left))).await;
        found.into_iter().flatten().collect()
    }

    /// A job's state as last known to anybody; of several words, the one that got furthest.
    pub async fn mirror(&self, job: JobId, deadline: Duration) -> Option<StatusMirror> {
        let found = self.get(mirror_key(job), QUORUM, deadline).await;
        let mirrors = found.into_iter().filter_map(|record| match record.body() {
            Body::Mirror(mirror) => Some((
                progress(mirror),
                record.signed.stamp().signed_at,
                mirror.clone(),
            )),
            _ => None,
        });
        mirrors
            .max_by_key(|(progress, at, _)| (*progress, *at))
            .map(|(_, _, mirror)| mirror)
    }

    /// Who serves a job's input.
    pub async fn providers(&self, job: JobId, deadline: Duration) -> Vec<ProviderRecord> {
        let found = self.get(provider_key(job), QUORUM, deadline).await;
        let providers = found.into_iter().filter_map(|record| match record.body() {
            Body::Provider(provider) => Some(provider.clone()),
            _ => None,
        });
        providers.collect()
    }
}

/// How far a mirror got: the end beats everything, a later claim beats an earlier one.
fn progress(mirror: &StatusMirror) -> (bool, u64, u64, JobState) {
    let fence = mirror
        .fence
        .map_or((0, 0), |fence| (fence.epoch, fence.sequence));
    (mirror.state.is_terminal(), fence.0, fence.1, mirror.state)
}

fn node_of(record: &VerifiedRecord) -> Option<NodeRecord> {
    match record.body() {
        Body::Node(node) | Body::Roster(node) => Some(node.clone()),
        Body::Idle(idle) => Some(idle.node.clone()),
        _ => None,
    }
}

fn ads_of(record: &VerifiedRecord, topic: &Topic) -> Vec<FoundAd> {
    let Body::Bulletin(bulletin) = record.body() else {
        return Vec::new();
    };
    let found = |ad: &Ad| FoundAd {
        publisher: *record.signed.publisher(),
        topic: topic.clone(),
        open: bulletin.open,
        ad: ad.clone(),
    };
    bulletin.ads.iter().map(found).collect()
}

/// The nodes that fit, each once, at most `max`, in an order that differs from call to call, so that
/// not everybody asks the same ones.
fn fitting(
    query: &IdleQuery,
    nodes: impl Iterator<Item = NodeRecord>,
    max: usize,
) -> Vec<NodeRecord> {
    let fit = nodes.filter(|node| node.is_idle() && node.offer().fits(&query.need).is_ok());
    let shuffled: BTreeMap<u64, NodeRecord> = fit
        .map(|node| (node.id(), node))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .map(|node| (rand::random(), node))
        .collect();
    shuffled.into_values().take(max).collect()
}
