//! The signed form of a record and the checks before it is kept or believed.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::body::{Body, Kind};
use super::codec::{CodecError, Reader, Writer};
use super::trust::Trust;
use crate::identity::{Certificate, NodeKey, PublicKey, Signature};
use crate::ids::{Incarnation, Namespace};
use crate::kademlia::Key;
use crate::time::{UnixMillis, millis};

/// Longest signed record, in bytes: with the fields around it, it fits one datagram.
pub const RECORD_LEN_MAX: usize = 1_024;
/// How far two wall clocks may differ before a record counts as replayed (DESIGN §3).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

const FORMAT: u8 = 1;
const CONTEXT: &str = "record v1";
const SIGNATURE_LEN: usize = 64;

/// Why a record is not kept or not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is no record.
    #[error("malformed record: {0}")]
    Malformed(#[from] CodecError),
    /// The signature is not the publisher's.
    #[error("the record's signature is not its publisher's")]
    Signature,
    /// The certificate is not the one that the record names, or not the publisher's.
    #[error("the certificate is not that of the record's publisher")]
    Certificate,
    /// The publisher is no member of the record's namespace.
    #[error("the publisher may not publish in namespace `{0}`")]
    Namespace(Namespace),
    /// A record about a node was published by another one.
    #[error("a record about a node may be published by that node only")]
    Subject,
    /// The lifetime is zero or longer than its kind allows.
    #[error("the lifetime of {0:?} is not allowed for this kind")]
    Lifetime(Duration),
    /// By its signed time it has expired, or was signed in the future.
    #[error("signed at {signed} (unix ms), which is out of bounds now at {now}")]
    Replayed {
        /// The signed time.
        signed: u64,
        /// The reader's clock.
        now: u64,
    },
}

/// A record before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who may see it.
    pub namespace: Namespace,
    /// What it says.
    pub body: Body,
}

impl Record {
    /// Where it is kept.
    pub fn key(&self) -> Key {
        self.body.key(&self.namespace)
    }

    /// What tells it from the other records of its publisher: its key, except that a publisher may
    /// have an entry for each class in a directory.
    pub fn place(&self) -> Key {
        match &self.body {
            Body::Directory(entry) => {
                let class = [entry.class.gpu, entry.class.memory, entry.class.cpu];
                Key::hash("mutual place v1", &[self.key().as_bytes(), &class])
            }
            _ => self.key(),
        }
    }

    /// Checks that it can be signed and published.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] names the field that exceeds its bound, `record` if the whole does.
    pub fn check_len(&self) -> Result<(), CodecError> {
        let stamp = Stamp {
            version: Version {
                incarnation: Incarnation(Uuid::nil()),
                sequence: 0,
            },
            lifetime: Duration::ZERO,
            signed_at: UnixMillis(0),
            tombstone: false,
        };
        let bytes = encode(&PublicKey([0; 32]), &[0; 32], self, &stamp)?;
        check_record_len(bytes.len() + SIGNATURE_LEN)
    }
}

/// Orders the records of one publisher: later runs first, then later numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The publisher's run.
    pub incarnation: Incarnation,
    /// Counts within the run.
    pub sequence: u64,
}

/// What the publisher adds when it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Orders it among the publisher's records.
    pub version: Version,
    /// How long it means anything, from now.
    pub lifetime: Duration,
    /// The publisher's wall clock.
    pub signed_at: UnixMillis,
    /// Whether it takes back what stood there.
    pub tombstone: bool,
}

/// A record with its publisher's signature, kept with the exact bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    bytes: Arc<[u8]>,
    publisher: PublicKey,
    certificate: [u8; 32],
    stamp: Stamp,
    record: Record,
}

impl SignedRecord {
    /// Signs `record` with the key of the node that `certificate` (a hash) was issued for.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] names the field that exceeds its bound, `record` if the whole does.
    pub fn sign(
        key: &NodeKey,
        certificate: [u8; 32],
        record: Record,
        stamp: Stamp,
    ) -> Result<Self, CodecError> {
        let publisher = key.public();
        let mut bytes = encode(&publisher, &certificate, &record, &stamp)?;
        let signature = key.sign(CONTEXT, &bytes);
        bytes.extend_from_slice(signature.as_bytes());
        check_record_len(bytes.len())?;
        Ok(Self {
            bytes: bytes.into(),
            publisher,
            certificate,
            // What readers will see: the encoded time and lifetime are coarser.
            stamp: Stamp {
                lifetime: Duration::from_millis(millis(stamp.lifetime)),
                signed_at: UnixMillis(stamp.signed_at.0 / 1000 * 1000),
                ..stamp
            },
            record,
        })
    }

    /// Reads a signed record. Nothing in it is to be believed before [`SignedRecord::check`].
    ///
    /// # Errors
    /// [`CodecError`] for anything else, longer forms and trailing bytes included.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        check_record_len(bytes.len())?;
        let (signed, _) = split_signature(bytes)?;
        let mut input = Reader::new(signed);
        if input.u8("format")? != FORMAT {
            return Err(CodecError::Invalid { field: "format" });
        }
        let kind = Kind::from_code(input.u8("kind")?)?;
        let tombstone = input.flag("tombstone")?;
        let namespace = input.name("namespace")?;
        let publisher = PublicKey(input.array("publisher")?);
        let certificate = input.array("certificate")?;
        let stamp = Stamp {
            version: Version {
                incarnation: Incarnation(Uuid::from_bytes(input.array("incarnation")?)),
                sequence: input.u64("sequence")?,
            },
            lifetime: Duration::from_millis(u64::from(input.u32("lifetime")?)),
            signed_at: UnixMillis(u64::from(input.u32("signed_at")?) * 1000),
            tombstone,
        };
        let body = Body::read(kind, input.bytes("body", RECORD_LEN_MAX)?)?;
        input.end()?;
        Ok(Self {
            bytes: bytes.into(),
            publisher,
            certificate,
            stamp,
            record: Record { namespace, body },
        })
    }

    /// The encoded form.
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Who signed it, if the signature is genuine.
    pub const fn publisher(&self) -> &PublicKey {
        &self.publisher
    }

    /// The hash of the publisher's certificate.
    pub const fn certificate(&self) -> &[u8; 32] {
        &self.certificate
    }

    /// What the publisher added when it signed.
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// What it says.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Where it is kept.
    pub fn key(&self) -> Key {
        self.record.key()
    }

    /// Which entry of the dictionary at [`SignedRecord::key`] it is: the publisher, except in a
    /// directory, where one entry for each class is enough whoever wrote it.
    pub fn subkey(&self) -> Key {
        match &self.record.body {
            Body::Directory(entry) => {
                let class = [entry.class.gpu, entry.class.memory, entry.class.cpu];
                Key::hash("mutual class v1", &[&class])
            }
            _ => Key::new(self.publisher.node_id().0),
        }
    }

    /// Whether this replaces `other` in the same dictionary entry.
    ///
    /// Two publishers share only a directory's entries; there the one that lasts longer stays.
    pub fn supersedes(&self, other: &Self) -> bool {
        if self.publisher == other.publisher {
            return self.stamp.version > other.stamp.version;
        }
        !self.stamp.tombstone && self.ends_at() > other.ends_at()
    }

    /// When it expires by the publisher's wall clock.
    pub fn ends_at(&self) -> UnixMillis {
        self.stamp.signed_at.after(self.stamp.lifetime)
    }

    /// How long it may still be kept, if its sender says that `claimed` remains.
    pub fn remaining(&self, claimed: Duration, now: UnixMillis) -> Duration {
        let by_clock = self.ends_at().after(CLOCK_TOLERANCE).since(now);
        claimed.min(self.stamp.lifetime).min(by_clock)
    }

    /// Checks everything that must hold before a record is kept and before it is believed.
    ///
    /// `certificate` must already be one that `trust` accepts; see [`Trust::accepts`].
    ///
    /// # Errors
    /// The first thing that does not hold; the costly signature check comes last.
    pub fn check(
        &self,
        certificate: &Certificate,
        trust: &Trust,
        now: UnixMillis,
    ) -> Result<(), RecordError> {
        self.check_claims(now)?;
        if certificate.membership().node != self.publisher {
            return Err(RecordError::Certificate);
        }
        if !trust.admits(certificate, &self.record.namespace) {
            return Err(RecordError::Namespace(self.record.namespace.clone()));
        }
        let (signed, signature) = split_signature(&self.bytes)?;
        self.publisher
            .verify(CONTEXT, signed, &signature)
            .map_err(|_| RecordError::Signature)
    }

    fn check_claims(&self, now: UnixMillis) -> Result<(), RecordError> {
        let Stamp {
            lifetime,
            signed_at,
            ..
        } = self.stamp;
        if lifetime.is_zero() || lifetime > self.record.body.kind().lifetime_max() {
            return Err(RecordError::Lifetime(lifetime));
        }
        let replayed =
            signed_at > now.after(CLOCK_TOLERANCE) || self.ends_at().after(CLOCK_TOLERANCE) <= now;
        if replayed {
            return Err(RecordError::Replayed {
                signed: signed_at.0,
                now: now.0,
            });
        }
        match self.record.body.subject() {
            Some(subject) if *subject != self.publisher => Err(RecordError::Subject),
            _ => Ok(()),
        }
    }
}

/// A record whose every claim was checked on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    /// The record.
    pub signed: SignedRecord,
    /// How long it still stands, counted from when it was received.
    pub remaining: Duration,
}

impl VerifiedRecord {
    /// What it says.
    pub const fn body(&self) -> &Body {
        &self.signed.record.body
    }
}

fn check_record_len(len: usize) -> Result<(), CodecError> {
    if len > RECORD_LEN_MAX {
        return Err(CodecError::TooLong {
            field: "record",
            len,
            max: RECORD_LEN_MAX,
        });
    }
    Ok(())
}

fn encode(
    publisher: &PublicKey,
    certificate: &[u8; 32],
    record: &Record,
    stamp: &Stamp,
) -> Result<Vec<u8>, CodecError> {
    let mut body = Writer::default();
    record.body.write(&mut body)?;
    let lifetime = u32::try_from(millis(stamp.lifetime));
    let signed_at = u32::try_from(stamp.signed_at.0 / 1000);
    let mut out = Writer::with_capacity(RECORD_LEN_MAX);
    out.u8(FORMAT);
    out.u8(record.body.kind().code());
    out.flag(stamp.tombstone);
    out.text("namespace", record.namespace.as_str(), usize::from(u8::MAX))?;
    out.put(publisher.as_bytes());
    out.put(certificate);
    out.put(stamp.version.incarnation.0.as_bytes());
    out.u64(stamp.version.sequence);
    out.u32(lifetime.map_err(|_| CodecError::Invalid { field: "lifetime" })?);
    out.u32(signed_at.map_err(|_| CodecError::Invalid { field: "signed_at" })?);
    out.bytes("record", &body.into_bytes(), RECORD_LEN_MAX)?;
    Ok(out.into_bytes())
}

fn split_signature(bytes: &[u8]) -> Result<(&[u8], Signature), CodecError> {
    bytes
        .split_last_chunk::<SIGNATURE_LEN>()
        .map(|(signed, signature)| (signed, Signature(*signature)))
        .ok_or(CodecError::Truncated { field: "signature" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Membership, NodeId, Role};
    use crate::ids::JobId;
    use crate::job::{IsolationClass, JobState};
    use crate::lease::Fence;
    use crate::record::{
        Ad, Bulletin, DirectoryEntry, IdleEntry, Index, NodeRecord, ProviderRecord, StatusMirror,
    };
    use crate::resources::{ResourceClass, Resources};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed(&[seed; 32])
    }

    fn certificate(node: &NodeKey) -> Certificate {
        let organisation = key(99);
        let membership = Membership {
            organisation: organisation.public(),
            node: node.public(),
            sealing: node.sealing_public(),
            name: "node".into(),
            namespaces: vec!["lab".parse().unwrap()],
            roles: vec![Role::Agent],
            not_before: UnixMillis(0),
            not_after: NOW.after(MINUTE * 60),
        };
        Certificate::issue(&organisation, membership).unwrap()
    }

    fn node_record(node: &NodeKey) -> NodeRecord {
        let amount = Resources {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            gpus: 1,
            scratch_bytes: 1 << 40,
        };
        NodeRecord {
            node: node.public(),
            udp: vec![
                "10.0.0.1:7400".parse().unwrap(),
                "[2001:db8::1]:7400".parse().unwrap(),
            ],
            http: vec!["http://10.0.0.1:7070".into()],
            p2p: vec!["/ip4/10.0.0.1/udp/4001/quic-v1".into()],
            total: amount,
            free: amount,
            slots: 4,
            slots_free: 3,
            isolation: vec![IsolationClass::Process, IsolationClass::Sandbox],
            labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
        }
    }

    fn every_body(node: &NodeKey) -> Vec<Body> {
        let job = JobId::new(NOW, [3; 10]);
        let class = ResourceClass {
            gpu: 1,
            memory: 6,
            cpu: 3,
        };
        let ads = (0..16)
            .map(|number| Ad {
                job: JobId::new(NOW, [number; 10]),
                demand_url: format!("http://demand-{}.example:9000", number % 4),
                expires: NOW.after(MINUTE),
            })
            .collect();
        vec![
            Body::Node(node_record(node)),
            Body::Roster(node_record(node)),
            Body::Idle(IdleEntry {
                class,
                shard: 0,
                node: node_record(node),
            }),
            Body::Bulletin(Bulletin {
                class,
                open: 300,
                ads,
            }),
            Body::Provider(ProviderRecord {
                job,
                manifest: "bafymanifest".parse().unwrap(),
                seeders: vec!["/ip4/10.0.0.1/tcp/1".into()],
            }),
            Body::Mirror(StatusMirror {
                job,
                state: JobState::Succeeded,
                holder: Some(NodeId([4; 32])),
                fence: Some(Fence {
                    epoch: 5,
                    sequence: 6,
                }),
                result: Some("bafyresult".parse().unwrap()),
                sealed_key: vec![7; 80],
                providers: vec!["/ip4/10.0.0.2/tcp/1".into()],
            }),
            Body::Directory(DirectoryEntry {
                index: Index::Topics,
                class,
                depth: 0,
            }),
        ]
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            version: Version {
                incarnation: Incarnation::new(NOW, [0; 10]),
                sequence,
            },
            lifetime: MINUTE,
            signed_at: NOW,
            tombstone: false,
        }
    }

    fn sign(node: &NodeKey, body: Body, stamp: Stamp) -> SignedRecord {
        let namespace = "lab".parse().unwrap();
        let record = Record { namespace, body };
        SignedRecord::sign(node, certificate(node).hash(), record, stamp).unwrap()
    }

    fn check(signed: &SignedRecord, node: &NodeKey) -> Result<(), RecordError> {
        let trust = Trust::in_organisation(key(99).public());
        signed.check(&certificate(node), &trust, NOW)
    }

    #[test]
    fn every_kind_reads_back_and_is_believed() {
        let node = key(1);
        for body in every_body(&node) {
            let signed = sign(&node, body, stamp(1));
            assert_eq!(SignedRecord::decode(signed.bytes()).unwrap(), signed);
            assert_eq!(check(&signed, &node), Ok(()));
        }
    }

    #[test]
    fn no_byte_can_be_changed() {
        let node = key(1);
        for body in every_body(&node) {
            let signed = sign(&node, body, stamp(1));
            for place in (0..signed.bytes().len()).step_by(7) {
                let mut changed = signed.bytes().to_vec();
                changed[place] ^= 4;
                let passed =
                    SignedRecord::decode(&changed).is_ok_and(|read| check(&read, &node).is_ok());
                assert!(!passed, "byte {place} of {:?}", signed.record().body.kind());
            }
        }
    }

    #[test]
    fn nobody_publishes_about_another_node() {
        let (node, other) = (key(1), key(2));
        let signed = sign(&other, Body::Node(node_record(&node)), stamp(1));
        assert_eq!(check(&signed, &other), Err(RecordError::Subject));
        assert_eq!(check(&signed, &node), Err(RecordError::Subject));
    }

    #[test]
    fn bounds_on_lifetime_and_time_hold() {
        let node = key(1);
        let body = || every_body(&node).remove(3);
        let with = |lifetime, signed_at| {
            sign(
                &node,
                body(),
                Stamp {
                    lifetime,
                    signed_at,
                    ..stamp(1)
                },
            )
        };
        let late = UnixMillis(NOW.0 - 361_000);
        assert!(check(&with(MINUTE, NOW), &node).is_ok());
        assert!(check(&with(MINUTE, late.after(MINUTE)), &node).is_ok());
        let refused = |signed| check(&signed, &node).unwrap_err();
        assert!(matches!(
            refused(with(Duration::ZERO, NOW)),
            RecordError::Lifetime(_)
        ));
        assert!(matches!(
            refused(with(MINUTE * 11, NOW)),
            RecordError::Lifetime(_)
        ));
        assert!(matches!(
            refused(with(MINUTE, late)),
            RecordError::Replayed { .. }
        ));
        assert!(matches!(
            refused(with(MINUTE, NOW.after(MINUTE * 6))),
            RecordError::Replayed { .. }
        ));
    }

    #[test]
    fn what_remains_is_never_more_than_was_granted() {
        let signed = sign(&key(1), every_body(&key(1)).remove(3), stamp(1));
        assert_eq!(signed.remaining(MINUTE * 9, NOW), MINUTE);
        assert_eq!(signed.remaining(MINUTE / 2, NOW), MINUTE / 2);
        assert_eq!(
            signed.remaining(MINUTE, NOW.after(MINUTE * 7)),
            Duration::ZERO
        );
    }

    #[test]
    fn later_versions_supersede_and_directories_take_what_lasts_longer() {
        let (one, two) = (key(1), key(2));
        let body = |kind: usize| every_body(&one).remove(kind);
        let (first, second) = (sign(&one, body(3), stamp(1)), sign(&one, body(3), stamp(2)));
        assert!(second.supersedes(&first) && !first.supersedes(&second));
        let longer = Stamp {
            lifetime: MINUTE * 2,
            ..stamp(1)
        };
        let (short, long) = (sign(&one, body(6), stamp(9)), sign(&two, body(6), longer));
        assert_eq!(short.subkey(), long.subkey());
        assert!(long.supersedes(&short) && !short.supersedes(&long));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut node = node_record(&key(1));
        node.http = vec!["x".repeat(200); 4];
        node.p2p = vec!["x".repeat(200); 4];
        let record = |node| Record {
            namespace: "lab".parse().unwrap(),
            body: Body::Node(node),
        };
        let error = record(node.clone()).check_len().unwrap_err();
        assert!(matches!(
            error,
            CodecError::TooLong {
                field: "record",
                ..
            }
        ));
        node.http = vec!["x".repeat(201)];
        let error = record(node).check_len().unwrap_err();
        assert!(matches!(
            error,
            CodecError::TooLong {
                field: "http",
                len: 201,
                max: 200
            }
        ));
    }

    #[test]
    fn fuzz_record() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(signed) = SignedRecord::decode(bytes) {
                assert_eq!(&**signed.bytes(), bytes);
                let _ = (signed.key(), signed.subkey());
            }
        });
    }

    #[test]
    fn fuzz_body() {
        bolero::check!().for_each(|bytes: &[u8]| {
            for kind in Kind::ALL {
                if let Ok(body) = Body::read(kind, bytes) {
                    let mut out = Writer::default();
                    body.write(&mut out).unwrap();
                    assert_eq!(Body::read(kind, &out.into_bytes()).unwrap(), body);
                }
            }
        });
    }
}
