//! The nodes that link blocks into a Merkle DAG, so that one name stands for any number of blocks.
//!
//! There are three kinds of node, all canonical DAG-CBOR (<https://ipld.io/specs/codecs/dag-cbor/spec/>):
//! an [`Object`] is the manifest of a sealed tree, an [`Image`] the manifest of an OCI image, and an [`Index`] spreads
//! many links over several nodes. Leaves are raw chunks. A link says how much lies below it; parents are checked
//! against their children, so sizes learned from a root can be believed once the DAG has been walked.
//!
//! Nodes come from strangers: every decoder here bounds bytes, links, depth and name lengths, refuses unknown fields,
//! and refuses any encoding but the canonical one (two encodings of one node would have two names).

use serde::{Deserialize, Serialize};

use crate::address::{self, AddressError, Cid, Codec};
use crate::seal::{CHUNK_BYTES, KEY_BYTES, OBJECT_ID_BYTES, PREFIX_BYTES};

/// Most links in one index node.
pub const LINKS_MAX: usize = 4096;

/// Most bytes in one node.
pub const NODE_BYTES_MAX: usize = 1024 * 1024;

/// Most index nodes between a manifest and a chunk: 4096⁴ chunks are far more than an object may have.
pub const HEIGHT_MAX: u8 = 4;

/// Most blobs in one image.
pub const BLOBS_MAX: usize = 1024;

/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 128;

/// Largest `index.json` of an image, in bytes.
pub const IMAGE_INDEX_BYTES_MAX: usize = 256 * 1024;

/// The only version of manifests so far.
pub const VERSION: u8 = 1;

/// Why a node was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DagError {
    /// The bytes are no node.
    #[error("not a node of a DAG: {0}")]
    Malformed(String),
    /// The node decodes, but its bytes are not the canonical encoding.
    #[error("a node is not in canonical DAG-CBOR")]
    NotCanonical,
    /// A field is outside its limits.
    #[error("a node's {field} is {found}, {rule}")]
    Limit {
        /// The field.
        field: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A manifest of a version this program does not know.
    #[error("the manifest has version {0}, this program reads version {VERSION}: update it")]
    Version(u8),
    /// The node is not what its parent said.
    #[error("a node does not have the {0} its parent claims")]
    Disagrees(&'static str),
    /// A link names an unsupported block.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A root was expected to be another kind of node.
    #[error("the root is {found}, not {expected}")]
    Kind {
        /// What was asked for.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
}

/// A link to a block and what lies below it, written as the array `[cid, bytes, payload]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Cid, u64, u64)", into = "(Cid, u64, u64)")]
pub struct Link {
    /// The block's name.
    pub cid: Cid,
    /// Bytes of the block and of all blocks below it.
    pub bytes: u64,
    /// Plaintext bytes of all chunks below it.
    pub payload: u64,
}

impl From<(Cid, u64, u64)> for Link {
    fn from((cid, bytes, payload): (Cid, u64, u64)) -> Self {
        Self {
            cid,
            bytes,
            payload,
        }
    }
}

impl From<Link> for (Cid, u64, u64) {
    fn from(link: Link) -> Self {
        (link.cid, link.bytes, link.payload)
    }
}

/// A chain of chunks below one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The only chunk if `height` is 0, else an index node.
    pub root: Link,
    /// How many levels of index nodes stand above the chunks.
    pub height: u8,
}

/// A node whose children are chunks (height 1) or index nodes (height above 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Levels below: 1 means that the links are chunks.
    pub height: u8,
    /// The children in order.
    pub links: Vec<Link>,
}

/// How the data chunks of an object are sealed (its index is always a stream).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Ordered chunks under the object's own key.
    Stream,
    /// Deduplicating chunks under the job's secret.
    Convergent,
}

/// The manifest of a sealed tree: everything a seeder may see, and what a key holder needs to open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// [`VERSION`].
    pub version: u8,
    /// The namespace that owns the object.
    pub namespace: String,
    /// Its random id.
    #[serde(with = "serde_bytes")]
    pub object: [u8; OBJECT_ID_BYTES],
    /// How data chunks are sealed.
    pub mode: Mode,
    /// Plaintext bytes of every stream chunk but the last.
    pub chunk_bytes: u32,
    /// The random part of stream nonces.
    #[serde(with = "serde_bytes")]
    pub prefix: [u8; PREFIX_BYTES],
    /// Binds the object to its key.
    #[serde(with = "serde_bytes")]
    pub commitment: [u8; KEY_BYTES],
    /// The sealed list of entries.
    pub index: Section,
    /// The sealed contents of the files.
    pub data: Section,
}

/// One blob of an image: a manifest, a configuration or a layer, exactly as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// SHA2-256 of the whole blob.
    #[serde(with = "serde_bytes")]
    pub sha256: [u8; address::DIGEST_BYTES],
    /// Its bytes, unencrypted, in fixed chunks: the same blob gives the same blocks in every image.
    pub section: Section,
}

/// The manifest of an OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// [`VERSION`].
    pub version: u8,
    /// Whose members may fetch it; none means any member of the cloud.
    pub namespace: Option<String>,
    /// The layout's `index.json`.
    #[serde(with = "serde_bytes")]
    pub index: Vec<u8>,
    /// Its blobs, sorted by digest.
    pub blobs: Vec<Blob>,
}

/// Any node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Many links.
    Index(Index),
    /// The manifest of a sealed tree.
    Object(Box<Object>),
    /// The manifest of an OCI image.
    Image(Image),
}

/// A child of a node: its link, and how many index levels the child has (0 = a chunk).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The link to it.
    pub link: Link,
    /// 0 for a chunk, else the height of the index node.
    pub height: u8,
}

impl Node {
    /// The canonical bytes of a node built by this program.
    pub fn encode(&self) -> Vec<u8> {
        serde_ipld_dagcbor::to_vec(self).expect("nodes hold only types that DAG-CBOR can write")
    }

    /// Reads and checks a node from anyone.
    ///
    /// # Errors
    /// Every variant of [`DagError`] but `Disagrees` and `Kind`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DagError> {
        limit(
            "size in bytes",
            bytes.len(),
            NODE_BYTES_MAX,
            "at most 1 MiB is allowed",
        )?;
        let node: Self = serde_ipld_dagcbor::from_slice(bytes)
            .map_err(|e| DagError::Malformed(e.to_string()))?;
        node.check()?;
        if node.encode() != bytes {
            return Err(DagError::NotCanonical);
        }
        Ok(node)
    }

    /// Reads a node below `parent_link`, and checks that it is what its parent said.
    ///
    /// # Errors
    /// Every variant of [`DagError`] but `Kind`.
    pub fn decode_child(bytes: &[u8], parent: &Child) -> Result<Self, DagError> {
        let node = Self::decode(bytes)?;
        match &node {
            Self::Index(index) if index.height == parent.height => {}
            _ => return Err(DagError::Disagrees("kind and height")),
        }
        if node.total_bytes(bytes.len())? != parent.link.bytes {
            return Err(DagError::Disagrees("size"));
        }
        if node.payload()? != parent.link.payload {
            return Err(DagError::Disagrees("payload"));
        }
        Ok(node)
    }

    /// The node's children in order.
    pub fn children(&self) -> Vec<Child> {
        match self {
            Self::Index(index) => index
                .links
                .iter()
                .map(|link| Child {
                    link: link.clone(),
                    height: index.height - 1,
                })
                .collect(),
            Self::Object(object) => [&object.index, &object.data].map(child).into(),
            Self::Image(image) => image.blobs.iter().map(|b| child(&b.section)).collect(),
        }
    }

    /// Bytes of the whole DAG, given those of this node.
    ///
    /// # Errors
    /// [`DagError::Limit`] if the sum is absurd.
    pub fn total_bytes(&self, own: usize) -> Result<u64, DagError> {
        sum(self.children().iter().map(|c| c.link.bytes))
            .and_then(|below| below.checked_add(own as u64))
            .ok_or_else(|| absurd("bytes"))
    }

    fn payload(&self) -> Result<u64, DagError> {
        sum(self.children().iter().map(|c| c.link.payload)).ok_or_else(|| absurd("payload"))
    }

    /// The namespace whose members may have it; none for public images. Index nodes have none of their own.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Index(_) => None,
            Self::Object(object) => Some(&object.namespace),
            Self::Image(image) => image.namespace.as_deref(),
        }
    }

    /// What to call this kind of node in an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Index(_) => "an index node",
            Self::Object(_) => "a sealed object",
            Self::Image(_) => "an image",
        }
    }

    fn check(&self) -> Result<(), DagError> {
        match self {
            Self::Index(index) => check_index(index),
            Self::Object(object) => check_object(object),
            Self::Image(image) => check_image(image),
        }
    }
}

fn child(section: &Section) -> Child {
    Child {
        link: section.root.clone(),
        height: section.height,
    }
}

fn sum(mut terms: impl Iterator<Item = u64>) -> Option<u64> {
    terms.try_fold(0_u64, u64::checked_add)
}

fn absurd(field: &'static str) -> DagError {
    DagError::Limit {
        field,
        found: "more than 2^64".into(),
        rule: "which nothing has",
    }
}

fn limit(
    field: &'static str,
    found: usize,
    max: usize,
    rule: &'static str,
) -> Result<(), DagError> {
    if found <= max {
        return Ok(());
    }
    Err(DagError::Limit {
        field,
        found: found.to_string(),
        rule,
    })
}

fn check_index(index: &Index) -> Result<(), DagError> {
    if index.height == 0 || index.height > HEIGHT_MAX {
        return Err(DagError::Limit {
            field: "height",
            found: index.height.to_string(),
            rule: "1 to 4 is allowed",
        });
    }
    limit(
        "number of links",
        index.links.len(),
        LINKS_MAX,
        "at most 4096 are allowed",
    )?;
    if index.links.is_empty() {
        return Err(DagError::Limit {
            field: "number of links",
            found: "0".into(),
            rule: "at least one is needed",
        });
    }
    index
        .links
        .iter()
        .try_for_each(|link| check_link(link, index.height - 1))
}

fn check_link(link: &Link, height: u8) -> Result<(), DagError> {
    let expected = if height == 0 { Codec::Raw } else { Codec::Node };
    if address::codec(&link.cid)? != expected {
        return Err(DagError::Limit {
            field: "link",
            found: link.cid.to_string(),
            rule: "which has the wrong codec for its height",
        });
    }
    Ok(())
}

fn check_section(section: &Section) -> Result<(), DagError> {
    limit(
        "height",
        section.height.into(),
        HEIGHT_MAX.into(),
        "at most 4 is allowed",
    )?;
    check_link(&section.root, section.height)
}

fn check_version(version: u8) -> Result<(), DagError> {
    if version == VERSION {
        return Ok(());
    }
    Err(DagError::Version(version))
}

fn check_namespace(namespace: &str) -> Result<(), DagError> {
    limit(
        "namespace length",
        namespace.len(),
        NAMESPACE_BYTES_MAX,
        "at most 128 bytes are allowed",
    )
}

fn check_object(object: &Object) -> Result<(), DagError> {
    check_version(object.version)?;
    check_namespace(&object.namespace)?;
    if object.chunk_bytes == 0 || object.chunk_bytes > CHUNK_BYTES {
        return Err(DagError::Limit {
            field: "chunk size",
            found: object.chunk_bytes.to_string(),
            rule: "1 to 1048576 bytes are allowed",
        });
    }
    check_section(&object.index)?;
    check_section(&object.data)
}

fn check_image(image: &Image) -> Result<(), DagError> {
    check_version(image.version)?;
    image.namespace.as_deref().map_or(Ok(()), check_namespace)?;
    limit(
        "number of blobs",
        image.blobs.len(),
        BLOBS_MAX,
        "at most 1024 are allowed",
    )?;
    limit(
        "index.json size",
        image.index.len(),
        IMAGE_INDEX_BYTES_MAX,
        "at most 256 KiB are allowed",
    )?;
    if !image.blobs.is_sorted_by(|a, b| a.sha256 < b.sha256) {
        return Err(DagError::Malformed("blobs are not sorted or repeat".into()));
    }
    image
        .blobs
        .iter()
        .try_for_each(|b| check_section(&b.section))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(codec: Codec, payload: u64) -> Link {
        Link {
            cid: address::name(codec, b"chunk"),
            bytes: payload + 16,
            payload,
        }
    }

    fn object() -> Object {
        let section = Section {
            root: link(Codec::Raw, 5),
            height: 0,
        };
        Object {
            version: VERSION,
            namespace: "lab".into(),
            object: [3; 16],
            mode: Mode::Stream,
            chunk_bytes: CHUNK_BYTES,
            prefix: [1; 7],
            commitment: [9; 32],
            index: section.clone(),
            data: section,
        }
    }

    fn refused(node: Node) -> DagError {
        Node::decode(&node.encode()).unwrap_err()
    }

    fn changed(change: impl FnOnce(&mut Object)) -> Node {
        let mut object = object();
        change(&mut object);
        Node::Object(Box::new(object))
    }

    #[test]
    fn nodes_round_trip() {
        let index = Node::Index(Index {
            height: 2,
            links: vec![link(Codec::Node, 5); 3],
        });
        let image = Node::Image(Image {
            version: VERSION,
            namespace: None,
            index: b"{}".to_vec(),
            blobs: vec![],
        });
        for node in [index, image, changed(|_| ())] {
            assert_eq!(Node::decode(&node.encode()), Ok(node));
        }
    }

    #[test]
    fn absurd_nodes_are_refused() {
        let links = |height, links| Node::Index(Index { height, links });
        assert_eq!(refused(changed(|o| o.version = 2)), DagError::Version(2));
        for node in [
            changed(|o| o.chunk_bytes = 0),
            changed(|o| o.chunk_bytes = CHUNK_BYTES + 1),
            changed(|o| o.namespace = "n".repeat(129)),
            changed(|o| o.data.height = 9),
            changed(|o| o.data.height = 1),
            links(0, vec![link(Codec::Raw, 1)]),
            links(1, vec![]),
            links(2, vec![link(Codec::Raw, 1)]),
            links(1, vec![link(Codec::Raw, 1); LINKS_MAX + 1]),
        ] {
            assert!(matches!(refused(node), DagError::Limit { .. }));
        }
    }

    #[test]
    fn only_the_canonical_encoding_is_accepted() {
        let bytes = changed(|_| ()).encode();
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Node::decode(&longer).is_err());
        // The version is the only 0x01 that follows its name; write the same number in two bytes.
        let at = bytes.windows(7).position(|w| w == b"version").unwrap() + 7;
        let mut padded = bytes[..at].to_vec();
        padded.extend_from_slice(&[0x18, 0x01]);
        padded.extend_from_slice(&bytes[at + 1..]);
        assert!(Node::decode(&padded).is_err());
    }

    #[test]
    fn a_child_must_be_what_its_parent_says() {
        let node = Node::Index(Index {
            height: 1,
            links: vec![link(Codec::Raw, 5), link(Codec::Raw, 6)],
        });
        let bytes = node.encode();
        let honest = Child {
            link: Link {
                cid: address::name(Codec::Node, &bytes),
                bytes: bytes.len() as u64 + 21 + 22,
                payload: 11,
            },
            height: 1,
        };
        assert!(Node::decode_child(&bytes, &honest).is_ok());
        let mut taller = honest.clone();
        taller.height = 2;
        let mut larger = honest.clone();
        larger.link.bytes += 1;
        let mut fuller = honest;
        fuller.link.payload += 1;
        for (child, what) in [
            (taller, "kind and height"),
            (larger, "size"),
            (fuller, "payload"),
        ] {
            assert_eq!(
                Node::decode_child(&bytes, &child),
                Err(DagError::Disagrees(what))
            );
        }
    }

    #[test]
    fn fuzz_node_decode() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(node) = Node::decode(bytes) {
                assert_eq!(node.encode(), bytes);
                node.children();
                let _ = node.total_bytes(bytes.len());
            }
        });
    }

    #[test]
    fn fuzz_damaged_nodes() {
        let bytes = changed(|_| ()).encode();
        bolero::check!()
            .with_type::<(u16, u8)>()
            .for_each(|(at, value)| {
                let mut damaged = bytes.clone();
                let at = usize::from(*at) % damaged.len();
                damaged[at] = *value;
                if let Ok(node) = Node::decode(&damaged) {
                    assert_eq!(node.encode(), damaged);
                }
            });
    }
}
