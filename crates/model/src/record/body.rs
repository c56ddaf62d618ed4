//! What records say: one type for each kind, with its binary form and its place in the network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use super::codec::{CodecError, Reader, Writer};
use crate::identity::{NodeId, PublicKey};
use crate::ids::{ContentId, JobId, Namespace};
use crate::job::{IsolationClass, JobState};
use crate::kademlia::Key;
use crate::lease::Fence;
use crate::matching::Offer;
use crate::resources::{ResourceClass, Resources};
use crate::time::UnixMillis;

/// Most jobs that a bulletin names; the rest comes by batch claim (DESIGN §5).
pub const BULLETIN_JOBS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 4;
const URL_LEN_MAX: usize = 200;
const DEMAND_URLS_MAX: usize = 4;
const LABELS_MAX: usize = 16;
const LABEL_LEN_MAX: usize = 63;
const PROVIDERS_MAX: usize = 8;
/// An HPKE-sealed data key has 80 bytes.
const SEALED_KEY_MAX: usize = 128;

/// What a record is about; decides its place, its longest lifetime and its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node's addresses, resources and status, kept at the node's own id.
    Node,
    /// The same under one key per namespace, so that a small cloud can be listed.
    Roster,
    /// A node with free slots, under the key of its exact resource class.
    Idle,
    /// A publisher's open jobs of one topic.
    Bulletin,
    /// Who serves a job's input.
    Provider,
    /// A job's state as last known.
    Mirror,
    /// Which resource classes have entries at all.
    Directory,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Roster,
        Self::Idle,
        Self::Bulletin,
        Self::Provider,
        Self::Mirror,
        Self::Directory,
    ];

    /// The longest lifetime that holders grant.
    pub const fn lifetime_max(self) -> Duration {
        match self {
            Self::Idle => Duration::from_secs(60),
            Self::Bulletin | Self::Directory => Duration::from_secs(600),
            Self::Node | Self::Roster => Duration::from_secs(3_600),
            Self::Provider | Self::Mirror => Duration::from_secs(7 * 24 * 3_600),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Roster => 2,
            Self::Idle => 3,
            Self::Bulletin => 4,
            Self::Provider => 5,
            Self::Mirror => 6,
            Self::Directory => 7,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, CodecError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or(CodecError::Invalid { field: "kind" })
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its key; must be the publisher's.
    pub node: PublicKey,
    /// Discovery addresses, at most 4.
    pub udp: Vec<SocketAddr>,
    /// Base URLs of its HTTP interface, at most 4.
    pub http: Vec<String>,
    /// Its libp2p multiaddresses, at most 4.
    pub p2p: Vec<String>,
    /// All that its owner offers.
    pub total: Resources,
    /// What is free now.
    pub free: Resources,
    /// How many tasks it runs at once.
    pub slots: u16,
    /// How many more it would take now; 0 is busy.
    pub slots_free: u16,
    /// Isolation classes that its probe proved.
    pub isolation: Vec<IsolationClass>,
    /// The owner's labels, at most 16 of at most 63 bytes each way.
    pub labels: BTreeMap<String, String>,
}

impl NodeRecord {
    /// A node that nobody can reach and that offers nothing.
    pub const fn new(node: PublicKey) -> Self {
        Self {
            node,
            udp: Vec::new(),
            http: Vec::new(),
            p2p: Vec::new(),
            total: Resources::ZERO,
            free: Resources::ZERO,
            slots: 0,
            slots_free: 0,
            isolation: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.node.node_id()
    }

    /// What it has to give at this moment, for matching.
    pub fn offer(&self) -> Offer {
        Offer {
            free: self.free,
            slots: u32::from(self.slots_free),
            classes: self.isolation.clone(),
            labels: self.labels.clone(),
        }
    }

    /// Whether it can take at least one more task.
    pub const fn is_idle(&self) -> bool {
        self.slots_free > 0
    }

    fn write(&self, out: &mut Writer) -> Result<(), CodecError> {
        out.put(self.node.as_bytes());
        out.count("udp", self.udp.len(), ADDRESSES_MAX)?;
        self.udp.iter().for_each(|addr| out.socket(*addr));
        write_texts(out, "http", &self.http, ADDRESSES_MAX)?;
        write_texts(out, "p2p", &self.p2p, ADDRESSES_MAX)?;
        write_resources(out, &self.total);
        write_resources(out, &self.free);
        out.u16(self.slots);
        out.u16(self.slots_free);
        out.u8(isolation_bits(&self.isolation));
        out.count("labels", self.labels.len(), LABELS_MAX)?;
        for (name, value) in &self.labels {
            out.text("label name", name, LABEL_LEN_MAX)?;
            out.text("label value", value, LABEL_LEN_MAX)?;
        }
        Ok(())
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            node: PublicKey(input.array("node")?),
            udp: read_list(input, "udp", ADDRESSES_MAX, |input| input.socket("udp"))?,
            http: read_texts(input, "http", ADDRESSES_MAX)?,
            p2p: read_texts(input, "p2p", ADDRESSES_MAX)?,
            total: read_resources(input)?,
            free: read_resources(input)?,
            slots: input.u16("slots")?,
            slots_free: input.u16("slots_free")?,
            isolation: read_isolation(input.u8("isolation")?)?,
            labels: read_labels(input)?,
        })
    }
}

/// A node with free slots in the index of idle nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleEntry {
    /// The class it is filed under: that of its free resources.
    pub class: ResourceClass,
    /// Which of the class's shards; 0 while a class has one.
    pub shard: u8,
    /// The node.
    pub node: NodeRecord,
}

/// What ads are filed under: a namespace and the resource class that its tasks need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The namespace.
    pub namespace: Namespace,
    /// The class of the tasks' needs.
    pub class: ResourceClass,
}

/// One open job of a bulletin. The bulletin's signature covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ad {
    /// The job.
    pub job: JobId,
    /// Where to claim it.
    pub demand_url: String,
    /// When the ad no longer means anything, by the publisher's clock.
    pub expires: UnixMillis,
}

/// A publisher's open jobs under one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulletin {
    /// The class of the tasks' needs; with the record's namespace it is the topic.
    pub class: ResourceClass,
    /// How many jobs of the topic are open in all, those not named here included.
    pub open: u32,
    /// At most 16 of them, with at most 4 different demand URLs.
    pub ads: Vec<Ad>,
}

/// Who serves a job's input: `p2p/{job_id}/manifest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRecord {
    /// The job.
    pub job: JobId,
    /// Root of the manifest.
    pub manifest: ContentId,
    /// libp2p multiaddresses of nodes that serve it, at most 8.
    pub seeders: Vec<String>,
}

/// A job's state as last known, so that a result is found while control and store are down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusMirror {
    /// The job.
    pub job: JobId,
    /// Its state.
    pub state: JobState,
    /// The last holder, if it ever had one.
    pub holder: Option<NodeId>,
    /// The last claim's fence, if it ever was claimed.
    pub fence: Option<Fence>,
    /// Root of the result, once there is one.
    pub result: Option<ContentId>,
    /// The result's data key, sealed to the submitter, so that the one who may read the result can
    /// do so without the store; at most 128 bytes, empty if there is no result. Whoever keeps the
    /// record can open it as little as the result itself.
    pub sealed_key: Vec<u8>,
    /// libp2p multiaddresses of nodes that serve the result, at most 8.
    pub providers: Vec<String>,
}

/// Which index a directory entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Classes with idle nodes.
    Idle,
    /// Classes with open jobs.
    Topics,
}

/// A note that a class is not empty, under one key per namespace and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The index.
    pub index: Index,
    /// The class that has entries.
    pub class: ResourceClass,
    /// How many leading bits of the node id choose a shard; 0 while the class is not split.
    pub depth: u8,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// [`Kind::Node`].
    Node(NodeRecord),
    /// [`Kind::Roster`].
    Roster(NodeRecord),
    /// [`Kind::Idle`].
    Idle(IdleEntry),
    /// [`Kind::Bulletin`].
    Bulletin(Bulletin),
    /// [`Kind::Provider`].
    Provider(ProviderRecord),
    /// [`Kind::Mirror`].
    Mirror(StatusMirror),
    /// [`Kind::Directory`].
    Directory(DirectoryEntry),
}

impl Body {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Roster(_) => Kind::Roster,
            Self::Idle(_) => Kind::Idle,
            Self::Bulletin(_) => Kind::Bulletin,
            Self::Provider(_) => Kind::Provider,
            Self::Mirror(_) => Kind::Mirror,
            Self::Directory(_) => Kind::Directory,
        }
    }

    /// Where it is kept.
    pub fn key(&self, namespace: &Namespace) -> Key {
        match self {
            Self::Node(node) => node_key(&node.id()),
            Self::Roster(_) => roster_key(namespace),
            Self::Idle(idle) => idle_key(namespace, idle.class, idle.shard),
            Self::Bulletin(bulletin) => topic_key(namespace, bulletin.class),
            Self::Provider(provider) => provider_key(provider.job),
            Self::Mirror(mirror) => mirror_key(mirror.job),
            Self::Directory(entry) => directory_key(namespace, entry.index),
        }
    }

    /// The node it speaks of, if it may be published by that node only.
    pub const fn subject(&self) -> Option<&PublicKey> {
        match self {
            Self::Node(node) | Self::Roster(node) => Some(&node.node),
            Self::Idle(idle) => Some(&idle.node.node),
            _ => None,
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) -> Result<(), CodecError> {
        match self {
            Self::Node(node) | Self::Roster(node) => node.write(out),
            Self::Idle(idle) => {
                write_class(out, idle.class);
                out.u8(idle.shard);
                idle.node.write(out)
            }
            Self::Bulletin(bulletin) => bulletin.write(out),
            Self::Provider(provider) => provider.write(out),
            Self::Mirror(mirror) => mirror.write(out),
            Self::Directory(entry) => {
                out.u8(match entry.index {
                    Index::Idle => 0,
                    Index::Topics => 1,
                });
                write_class(out, entry.class);
                out.u8(entry.depth);
                Ok(())
            }
        }
    }

    pub(crate) fn read(kind: Kind, bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes);
        let input = &mut input;
        let body = match kind {
            Kind::Node => Self::Node(NodeRecord::read(input)?),
            Kind::Roster => Self::Roster(NodeRecord::read(input)?),
            Kind::Idle => Self::Idle(IdleEntry {
                class: read_class(input)?,
                shard: input.u8("shard")?,
                node: NodeRecord::read(input)?,
            }),
            Kind::Bulletin => Self::Bulletin(Bulletin::read(input)?),
            Kind::Provider => Self::Provider(ProviderRecord::read(input)?),
            Kind::Mirror => Self::Mirror(StatusMirror::read(input)?),
            Kind::Directory => Self::Directory(read_directory(input)?),
        };
        match input.rest().len() {
            0 => Ok(body),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

impl Bulletin {
    fn write(&self, out: &mut Writer) -> Result<(), CodecError> {
        let mut urls: Vec<&str> = self.ads.iter().map(|ad| ad.demand_url.as_str()).collect();
        urls.sort_unstable();
        urls.dedup();
        write_class(out, self.class);
        out.u32(self.open);
        out.count("demand_url", urls.len(), DEMAND_URLS_MAX)?;
        for url in &urls {
            out.text("demand_url", url, URL_LEN_MAX)?;
        }
        out.count("ads", self.ads.len(), BULLETIN_JOBS_MAX)?;
        for ad in &self.ads {
            let url = urls.partition_point(|url| *url < ad.demand_url.as_str());
            out.put(ad.job.0.as_bytes());
            out.u8(u8::try_from(url).unwrap_or(u8::MAX));
            out.u64(ad.expires.0);
        }
        Ok(())
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let class = read_class(input)?;
        let open = input.u32("open")?;
        let urls = read_texts(input, "demand_url", DEMAND_URLS_MAX)?;
        let ads = read_list(input, "ads", BULLETIN_JOBS_MAX, |input| {
            let job = read_job(input)?;
            let url =
                urls.get(usize::from(input.u8("demand_url")?))
                    .ok_or(CodecError::Invalid {
                        field: "demand_url",
                    })?;
            Ok(Ad {
                job,
                demand_url: url.clone(),
                expires: UnixMillis(input.u64("exp")?),
            })
        })?;
        Ok(Self { class, open, ads })
    }
}

impl ProviderRecord {
    fn write(&self, out: &mut Writer) -> Result<(), CodecError> {
        out.put(self.job.0.as_bytes());
        out.text("manifest", self.manifest.as_str(), URL_LEN_MAX)?;
        write_texts(out, "seeders", &self.seeders, PROVIDERS_MAX)
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            job: read_job(input)?,
            manifest: input.name("manifest")?,
            seeders: read_texts(input, "seeders", PROVIDERS_MAX)?,
        })
    }
}

impl StatusMirror {
    fn write(&self, out: &mut Writer) -> Result<(), CodecError> {
        out.put(self.job.0.as_bytes());
        out.u8(state_code(self.state));
        out.flag(self.holder.is_some());
        if let Some(holder) = &self.holder {
            out.put(holder.as_bytes());
        }
        out.flag(self.fence.is_some());
        if let Some(fence) = &self.fence {
            out.u64(fence.epoch);
            out.u64(fence.sequence);
        }
        out.text(
            "result",
            self.result.as_ref().map_or("", ContentId::as_str),
            URL_LEN_MAX,
        )?;
        out.bytes("sealed_key", &self.sealed_key, SEALED_KEY_MAX)?;
        write_texts(out, "providers", &self.providers, PROVIDERS_MAX)
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let job = read_job(input)?;
        let state = read_state(input.u8("state")?)?;
        let holder = match input.flag("holder")? {
            true => Some(NodeId(input.array("holder")?)),
            false => None,
        };
        let fence = match input.flag("fence")? {
            true => Some(Fence {
                epoch: input.u64("epoch")?,
                sequence: input.u64("sequence")?,
            }),
            false => None,
        };
        let result = match input.text("result", URL_LEN_MAX)? {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| CodecError::Invalid { field: "result" })?,
            ),
        };
        Ok(Self {
            job,
            state,
            holder,
            fence,
            result,
            sealed_key: input.bytes("sealed_key", SEALED_KEY_MAX)?.to_vec(),
            providers: read_texts(input, "providers", PROVIDERS_MAX)?,
        })
    }
}

/// Where a node's own record is kept: at its id.
pub const fn node_key(node: &NodeId) -> Key {
    Key::new(node.0)
}

/// Where a namespace's nodes are listed.
pub fn roster_key(namespace: &Namespace) -> Key {
    Key::hash("mutual roster v1", &[namespace.as_str().as_bytes()])
}

/// Where idle nodes of one class and shard are kept (DESIGN §6).
pub fn idle_key(namespace: &Namespace, class: ResourceClass, shard: u8) -> Key {
    let class = [class.gpu, class.memory, class.cpu, shard];
    Key::hash("mutual idle v1", &[namespace.as_str().as_bytes(), &class])
}

/// Where the bulletins of a topic are kept.
pub fn topic_key(namespace: &Namespace, class: ResourceClass) -> Key {
    let class = [class.gpu, class.memory, class.cpu];
    Key::hash("mutual topic v1", &[namespace.as_str().as_bytes(), &class])
}

/// Where the providers of a job's input are kept: `p2p/{job_id}/manifest`.
pub fn provider_key(job: JobId) -> Key {
    Key::hash(
        "mutual provider v1",
        &[format!("p2p/{job}/manifest").as_bytes()],
    )
}

/// Where a job's status mirrors are kept.
pub fn mirror_key(job: JobId) -> Key {
    Key::hash("mutual mirror v1", &[job.0.as_bytes()])
}

/// Where the classes of an index that are not empty are listed.
pub fn directory_key(namespace: &Namespace, index: Index) -> Key {
    let index: &[u8] = match index {
        Index::Idle => b"idle",
        Index::Topics => b"topics",
    };
    Key::hash(
        "mutual directory v1",
        &[namespace.as_str().as_bytes(), index],
    )
}

fn read_directory(input: &mut Reader<'_>) -> Result<DirectoryEntry, CodecError> {
    Ok(DirectoryEntry {
        index: match input.u8("index")? {
            0 => Index::Idle,
            1 => Index::Topics,
            _ => return Err(CodecError::Invalid { field: "index" }),
        },
        class: read_class(input)?,
        depth: input.u8("depth")?,
    })
}

fn write_class(out: &mut Writer, class: ResourceClass) {
    out.put(&[class.gpu, class.memory, class.cpu]);
}

fn read_class(input: &mut Reader<'_>) -> Result<ResourceClass, CodecError> {
    let [gpu, memory, cpu] = input.array("class")?;
    Ok(ResourceClass { gpu, memory, cpu })
}

fn write_resources(out: &mut Writer, amount: &Resources) {
    out.u32(amount.cpu_millis);
    out.u64(amount.memory_bytes);
    out.u32(amount.gpus);
    out.u64(amount.scratch_bytes);
}

fn read_resources(input: &mut Reader<'_>) -> Result<Resources, CodecError> {
    Ok(Resources {
        cpu_millis: input.u32("cpu_millis")?,
        memory_bytes: input.u64("memory_bytes")?,
        gpus: input.u32("gpus")?,
        scratch_bytes: input.u64("scratch_bytes")?,
    })
}

fn isolation_bits(classes: &[IsolationClass]) -> u8 {
    (0..)
        .zip(IsolationClass::ALL)
        .filter(|(_, class)| classes.contains(class))
        .fold(0, |bits, (place, _)| bits | 1 << place)
}

fn read_isolation(bits: u8) -> Result<Vec<IsolationClass>, CodecError> {
    if bits >> IsolationClass::ALL.len() != 0 {
        return Err(CodecError::Invalid { field: "isolation" });
    }
    let offered = (0..).zip(IsolationClass::ALL);
    Ok(offered
        .filter(|(place, _)| bits & 1 << place != 0)
        .map(|(_, class)| class)
        .collect())
}

fn read_labels(input: &mut Reader<'_>) -> Result<BTreeMap<String, String>, CodecError> {
    let mut labels = BTreeMap::new();
    for _ in 0..input.count("labels", LABELS_MAX)? {
        let name = input.text("label name", LABEL_LEN_MAX)?.to_owned();
        // One value has one form: names ascend.
        if labels
            .last_key_value()
            .is_some_and(|(last, _)| *last >= name)
        {
            return Err(CodecError::Invalid { field: "labels" });
        }
        labels.insert(name, input.text("label value", LABEL_LEN_MAX)?.to_owned());
    }
    Ok(labels)
}

fn write_texts(
    out: &mut Writer,
    field: &'static str,
    texts: &[String],
    max: usize,
) -> Result<(), CodecError> {
    out.count(field, texts.len(), max)?;
    texts
        .iter()
        .try_for_each(|text| out.text(field, text, URL_LEN_MAX))
}

fn read_texts(
    input: &mut Reader<'_>,
    field: &'static str,
    max: usize,
) -> Result<Vec<String>, CodecError> {
    read_list(input, field, max, |input| {
        input.text(field, URL_LEN_MAX).map(str::to_owned)
    })
}

fn read_list<T>(
    input: &mut Reader<'_>,
    field: &'static str,
    max: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let len = input.count(field, max)?;
    (0..len).map(|_| read(input)).collect()
}

fn read_job(input: &mut Reader<'_>) -> Result<JobId, CodecError> {
    input
        .array("job")
        .map(|bytes| JobId(Uuid::from_bytes(bytes)))
}

fn state_code(state: JobState) -> u8 {
    let place = JobState::ALL.iter().position(|known| *known == state);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn read_state(code: u8) -> Result<JobState, CodecError> {
    JobState::ALL
        .get(usize::from(code))
        .copied()
        .ok_or(CodecError::Invalid { field: "state" })
}
