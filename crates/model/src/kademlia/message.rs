//! The messages that nodes exchange, and their binary form.
//!
//! Every message fits one datagram. A request carries a coarse time against replay and is padded
//! with zeros, so that its answer is never more than three times as long; with its first request to
//! a stranger a node sends its certificate in that space, which costs nothing.

use std::sync::Arc;
use std::time::Duration;

use super::{Contact, Key};
use crate::record::codec::{Reader, Writer};
use crate::record::{CodecError, RECORD_LEN_MAX};
use crate::time::{UnixMillis, millis};

/// Longest datagram: below the smallest path MTU that IPv6 allows, tunnels included.
pub const DATAGRAM_LEN_MAX: usize = 1_200;
/// What sealing adds to a message: version 1, sender's key 32, nonce 12, tag 16 bytes.
pub const SEAL_LEN: usize = 61;
/// Longest message before it is sealed.
pub const MESSAGE_LEN_MAX: usize = DATAGRAM_LEN_MAX - SEAL_LEN;
/// Longest payload of an application's request or reply.
pub const PAYLOAD_LEN_MAX: usize = 1_024;
/// Longest certificate that can travel; see [`crate::identity::CERTIFICATE_BYTES_MAX`].
pub const CERTIFICATE_LEN_MAX: usize = 1_000;

/// A reply is at most this many times as long as its request.
const AMPLIFICATION_MAX: usize = 3;
/// Requests with a long answer are padded to this datagram length.
const REQUEST_LEN_MIN: usize = DATAGRAM_LEN_MAX / AMPLIFICATION_MAX;
/// Most contacts in an answer: a bucket.
const CONTACTS_MAX: usize = 20;

const FLAG_REPLY: u8 = 1;
const FLAG_CLIENT: u8 = 2;
const FLAG_WANTS_CERTIFICATE: u8 = 4;
const FLAG_HAS_CERTIFICATE: u8 = 8;
const FLAGS_ALL: u8 = 15;

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Are you there?
    Ping,
    /// Which contacts are nearest to `target`?
    FindNode { target: Key },
    /// Which entries stand at `key`, after `after` in the order of subkeys? Contacts if none.
    FindValue { key: Key, after: Option<Key> },
    /// Keep this record for as long as `remaining` says.
    Store {
        remaining: Duration,
        record: Arc<[u8]>,
    },
    /// Which certificate has this hash?
    GetCertificate { hash: [u8; 32] },
    /// Know this certificate.
    PutCertificate { certificate: Vec<u8> },
    /// Something for the application.
    Call { kind: u8, payload: Vec<u8> },
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// To [`Request::Ping`].
    Pong,
    /// To [`Request::FindNode`].
    Nodes { contacts: Vec<Contact> },
    /// To [`Request::FindValue`].
    Values {
        entries: Vec<Entry>,
        more: bool,
        contacts: Vec<Contact>,
    },
    /// To [`Request::Store`] and [`Request::PutCertificate`].
    Stored(Stored),
    /// To [`Request::GetCertificate`].
    Certificate { certificate: Option<Vec<u8>> },
    /// To [`Request::Call`].
    Answer { payload: Vec<u8> },
    /// To any request that will not be served.
    Refused(Refusal),
}

/// A record on its way, with what remains of its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) remaining: Duration,
    pub(super) record: Arc<[u8]>,
}

/// What became of something that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is kept, or was already.
    Kept,
    /// A newer one stands there.
    Superseded,
    /// There is no room.
    Full,
    /// It did not pass the checks.
    Invalid,
}

/// Stands for the hash of the certificate of whoever sent the request.
pub(super) const SENDERS_OWN: [u8; 32] = [0; 32];

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The certificate with this hash must be sent first.
    NeedCertificate([u8; 32]),
    /// The sender is no member here.
    Stranger,
    /// Too many requests.
    Busy,
    /// Nobody here serves this kind.
    Unserved,
}

/// What both directions carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Request {
        sent_at: UnixMillis,
        request: Request,
    },
    Reply(Reply),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Chosen by whoever asks, repeated in the answer.
    pub(super) id: u64,
    /// The sender routes for nobody.
    pub(super) client: bool,
    /// The sender would like to see the receiver's certificate.
    pub(super) wants_certificate: bool,
    /// The sender's certificate.
    pub(super) certificate: Option<Arc<[u8]>>,
    pub(super) content: Content,
}

/// The longest answer to a message of this length, both before sealing.
pub(super) fn reply_len_max(request_len: usize) -> usize {
    ((request_len + SEAL_LEN) * AMPLIFICATION_MAX).min(DATAGRAM_LEN_MAX) - SEAL_LEN
}

impl Message {
    /// The encoded form, at most [`MESSAGE_LEN_MAX`] bytes; leaves out the certificate if it would
    /// not fit into `room`.
    pub(super) fn encode(&self, room: usize) -> Result<Vec<u8>, CodecError> {
        let room = room.min(MESSAGE_LEN_MAX);
        let mut body = Writer::with_capacity(room);
        let kind = write_content(&mut body, &self.content)?;
        let body = body.into_bytes();
        let certificate = self
            .certificate
            .as_ref()
            .filter(|bytes| self.head_len() + 2 + bytes.len() + body.len() <= room);
        let mut out = Writer::with_capacity(room);
        out.u8(kind);
        out.u8(self.flags(certificate.is_some()));
        out.u64(self.id);
        if let Content::Request { sent_at, .. } = &self.content {
            out.u32(u32::try_from(sent_at.0 / 1000).unwrap_or(u32::MAX));
        }
        if let Some(bytes) = certificate {
            out.bytes("certificate", bytes, CERTIFICATE_LEN_MAX)?;
        }
        out.put(&body);
        let len = out.len();
        if len > room {
            return Err(CodecError::TooLong {
                field: "message",
                len,
                max: room,
            });
        }
        let mut bytes = out.into_bytes();
        if self.expects_long_answer() && len < REQUEST_LEN_MIN - SEAL_LEN {
            bytes.resize(REQUEST_LEN_MIN - SEAL_LEN, 0);
        }
        Ok(bytes)
    }

    /// Kind, flags, request id and, in a request, the coarse time.
    const fn head_len(&self) -> usize {
        match self.content {
            Content::Request { .. } => 14,
            Content::Reply(_) => 10,
        }
    }

    fn flags(&self, has_certificate: bool) -> u8 {
        let mut flags = 0;
        for (set, flag) in [
            (matches!(self.content, Content::Reply(_)), FLAG_REPLY),
            (self.client, FLAG_CLIENT),
            (self.wants_certificate, FLAG_WANTS_CERTIFICATE),
            (has_certificate, FLAG_HAS_CERTIFICATE),
        ] {
            flags |= if set { flag } else { 0 };
        }
        flags
    }

    fn expects_long_answer(&self) -> bool {
        match &self.content {
            Content::Reply(_) => false,
            Content::Request { request, .. } => {
                self.wants_certificate
                    || matches!(
                        request,
                        Request::FindNode { .. }
                            | Request::FindValue { .. }
                            | Request::GetCertificate { .. }
                            | Request::Call { .. }
                    )
            }
        }
    }

    /// Reads a message.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(CodecError::TooLong {
                field: "message",
                len: bytes.len(),
                max: MESSAGE_LEN_MAX,
            });
        }
        let mut input = Reader::new(bytes);
        let kind = input.u8("message kind")?;
        let flags = input.u8("flags")?;
        if flags & !FLAGS_ALL != 0 {
            return Err(CodecError::Invalid { field: "flags" });
        }
        let id = input.u64("request id")?;
        let is_reply = flags & FLAG_REPLY != 0;
        let sent_at = match is_reply {
            true => UnixMillis(0),
            false => UnixMillis(u64::from(input.u32("sent_at")?) * 1000),
        };
        let certificate = match flags & FLAG_HAS_CERTIFICATE != 0 {
            true => Some(input.bytes("certificate", CERTIFICATE_LEN_MAX)?.into()),
            false => None,
        };
        let content = if is_reply {
            let reply = read_reply(kind, &mut input)?;
            input.end()?;
            Content::Reply(reply)
        } else {
            let request = read_request(kind, &mut input)?;
            check_padding(input.rest())?;
            Content::Request { sent_at, request }
        };
        Ok(Self {
            id,
            client: flags & FLAG_CLIENT != 0,
            wants_certificate: flags & FLAG_WANTS_CERTIFICATE != 0,
            certificate,
            content,
        })
    }
}

fn check_padding(padding: &[u8]) -> Result<(), CodecError> {
    match padding.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(CodecError::Invalid { field: "padding" }),
    }
}

fn write_content(out: &mut Writer, content: &Content) -> Result<u8, CodecError> {
    match content {
        Content::Request { request, .. } => write_request(out, request),
        Content::Reply(reply) => write_reply(out, reply),
    }
}

fn write_request(out: &mut Writer, request: &Request) -> Result<u8, CodecError> {
    Ok(match request {
        Request::Ping => 1,
        Request::FindNode { target } => {
            out.put(target.as_bytes());
            2
        }
        Request::FindValue { key, after } => {
            out.put(key.as_bytes());
            out.flag(after.is_some());
            if let Some(after) = after {
                out.put(after.as_bytes());
            }
            3
        }
        Request::Store { remaining, record } => {
            write_entry(out, *remaining, record)?;
            4
        }
        Request::GetCertificate { hash } => {
            out.put(hash);
            5
        }
        Request::PutCertificate { certificate } => {
            out.bytes("certificate", certificate, CERTIFICATE_LEN_MAX)?;
            6
        }
        Request::Call { kind, payload } => {
            out.u8(*kind);
            out.bytes("payload", payload, PAYLOAD_LEN_MAX)?;
            7
        }
    })
}

fn read_request(kind: u8, input: &mut Reader<'_>) -> Result<Request, CodecError> {
    Ok(match kind {
        1 => Request::Ping,
        2 => Request::FindNode {
            target: Key::new(input.array("target")?),
        },
        3 => Request::FindValue {
            key: Key::new(input.array("key")?),
            after: match input.flag("after")? {
                true => Some(Key::new(input.array("after")?)),
                false => None,
            },
        },
        4 => {
            let Entry { remaining, record } = read_entry(input)?;
            Request::Store { remaining, record }
        }
        5 => Request::GetCertificate {
            hash: input.array("hash")?,
        },
        6 => Request::PutCertificate {
            certificate: input.bytes("certificate", CERTIFICATE_LEN_MAX)?.to_vec(),
        },
        7 => Request::Call {
            kind: input.u8("call kind")?,
            payload: input.bytes("payload", PAYLOAD_LEN_MAX)?.to_vec(),
        },
        _ => {
            return Err(CodecError::Invalid {
                field: "message kind",
            });
        }
    })
}

fn write_reply(out: &mut Writer, reply: &Reply) -> Result<u8, CodecError> {
    Ok(match reply {
        Reply::Pong => 1,
        Reply::Nodes { contacts } => {
            write_contacts(out, contacts)?;
            2
        }
        Reply::Values {
            entries,
            more,
            contacts,
        } => {
            out.flag(*more);
            out.count("entries", entries.len(), usize::from(u8::MAX))?;
            for entry in entries {
                write_entry(out, entry.remaining, &entry.record)?;
            }
            write_contacts(out, contacts)?;
            3
        }
        Reply::Stored(stored) => {
            out.u8(stored.code());
            4
        }
        Reply::Certificate { certificate } => {
            out.flag(certificate.is_some());
            if let Some(bytes) = certificate {
                out.bytes("certificate", bytes, CERTIFICATE_LEN_MAX)?;
            }
            5
        }
        Reply::Answer { payload } => {
            out.bytes("payload", payload, PAYLOAD_LEN_MAX)?;
            7
        }
        Reply::Refused(refusal) => {
            refusal.write(out);
            8
        }
    })
}

fn read_reply(kind: u8, input: &mut Reader<'_>) -> Result<Reply, CodecError> {
    Ok(match kind {
        1 => Reply::Pong,
        2 => Reply::Nodes {
            contacts: read_contacts(input)?,
        },
        3 => {
            let more = input.flag("more")?;
            let count = input.count("entries", usize::from(u8::MAX))?;
            Reply::Values {
                more,
                entries: (0..count)
                    .map(|_| read_entry(input))
                    .collect::<Result<_, _>>()?,
                contacts: read_contacts(input)?,
            }
        }
        4 => Reply::Stored(Stored::from_code(input.u8("stored")?)?),
        5 => Reply::Certificate {
            certificate: match input.flag("certificate")? {
                true => Some(input.bytes("certificate", CERTIFICATE_LEN_MAX)?.to_vec()),
                false => None,
            },
        },
        7 => Reply::Answer {
            payload: input.bytes("payload", PAYLOAD_LEN_MAX)?.to_vec(),
        },
        8 => Reply::Refused(Refusal::read(input)?),
        _ => {
            return Err(CodecError::Invalid {
                field: "message kind",
            });
        }
    })
}

impl Stored {
    const ALL: [Self; 4] = [Self::Kept, Self::Superseded, Self::Full, Self::Invalid];

    const fn code(self) -> u8 {
        match self {
            Self::Kept => 0,
            Self::Superseded => 1,
            Self::Full => 2,
            Self::Invalid => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, CodecError> {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .ok_or(CodecError::Invalid { field: "stored" })
    }
}

impl Refusal {
    fn write(self, out: &mut Writer) {
        match self {
            Self::NeedCertificate(hash) => {
                out.u8(0);
                out.put(&hash);
            }
            Self::Stranger => out.u8(1),
            Self::Busy => out.u8(2),
            Self::Unserved => out.u8(3),
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match input.u8("refusal")? {
            0 => Self::NeedCertificate(input.array("hash")?),
            1 => Self::Stranger,
            2 => Self::Busy,
            3 => Self::Unserved,
            _ => return Err(CodecError::Invalid { field: "refusal" }),
        })
    }
}

/// Bytes of an entry besides the record itself.
const ENTRY_HEAD_LEN: usize = 6;

impl Entry {
    /// Bytes that it takes in a [`Reply::Values`].
    pub(super) fn encoded_len(&self) -> usize {
        ENTRY_HEAD_LEN + self.record.len()
    }
}

fn write_entry(out: &mut Writer, remaining: Duration, record: &[u8]) -> Result<(), CodecError> {
    out.u32(u32::try_from(millis(remaining)).unwrap_or(u32::MAX));
    out.bytes("record", record, RECORD_LEN_MAX)
}

fn read_entry(input: &mut Reader<'_>) -> Result<Entry, CodecError> {
    Ok(Entry {
        remaining: Duration::from_millis(u64::from(input.u32("remaining")?)),
        record: input.bytes("record", RECORD_LEN_MAX)?.into(),
    })
}

fn write_contacts(out: &mut Writer, contacts: &[Contact]) -> Result<(), CodecError> {
    out.count("contacts", contacts.len(), CONTACTS_MAX)?;
    contacts.iter().for_each(|contact| contact.write(out));
    Ok(())
}

fn read_contacts(input: &mut Reader<'_>) -> Result<Vec<Contact>, CodecError> {
    let count = input.count("contacts", CONTACTS_MAX)?;
    (0..count).map(|_| Contact::read(input)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PublicKey;

    fn message(content: Content) -> Message {
        Message {
            id: 77,
            client: true,
            wants_certificate: false,
            certificate: Some(vec![9; 300].into()),
            content,
        }
    }

    fn request(request: Request) -> Content {
        Content::Request {
            sent_at: UnixMillis(1_700_000_000_000),
            request,
        }
    }

    fn every_content() -> Vec<Content> {
        let key = Key::hash("test", &[]);
        let contact = Contact::new(PublicKey([3; 32]), "10.1.2.3:4567".parse().unwrap());
        let six = Contact::new(PublicKey([4; 32]), "[2001:db8::1]:1".parse().unwrap());
        let record: Arc<[u8]> = vec![1; 500].into();
        let remaining = Duration::from_millis(1_234);
        vec![
            request(Request::Ping),
            request(Request::FindNode { target: key }),
            request(Request::FindValue {
                key,
                after: Some(key),
            }),
            request(Request::FindValue { key, after: None }),
            request(Request::Store {
                remaining,
                record: record.clone(),
            }),
            request(Request::GetCertificate { hash: [1; 32] }),
            request(Request::PutCertificate {
                certificate: vec![1; 400],
            }),
            request(Request::Call {
                kind: 5,
                payload: vec![6; 700],
            }),
            Content::Reply(Reply::Pong),
            Content::Reply(Reply::Nodes {
                contacts: vec![contact, six],
            }),
            Content::Reply(Reply::Values {
                entries: vec![Entry { remaining, record }],
                more: true,
                contacts: vec![contact],
            }),
            Content::Reply(Reply::Stored(Stored::Full)),
            Content::Reply(Reply::Certificate { certificate: None }),
            Content::Reply(Reply::Certificate {
                certificate: Some(vec![2; 10]),
            }),
            Content::Reply(Reply::Answer { payload: vec![] }),
            Content::Reply(Reply::Refused(Refusal::NeedCertificate([8; 32]))),
            Content::Reply(Reply::Refused(Refusal::Busy)),
        ]
    }

    #[test]
    fn every_message_reads_back() {
        for content in every_content() {
            let sent = message(content);
            let bytes = sent.encode(MESSAGE_LEN_MAX).unwrap();
            assert_eq!(Message::decode(&bytes).unwrap(), sent);
        }
    }

    #[test]
    fn a_certificate_without_room_is_left_out() {
        let sent = message(Content::Reply(Reply::Pong));
        let read = Message::decode(&sent.encode(100).unwrap()).unwrap();
        assert_eq!(read.certificate, None);
    }

    #[test]
    fn twenty_contacts_fit_an_answer() {
        let addr = "[2001:db8::1]:1".parse().unwrap();
        let contacts = vec![Contact::new(PublicKey([3; 32]), addr); CONTACTS_MAX];
        let reply = message(Content::Reply(Reply::Nodes { contacts }));
        let question = message(request(Request::FindNode {
            target: Key::new([0; 32]),
        }));
        let question = Message {
            certificate: None,
            ..question
        };
        let len = question.encode(MESSAGE_LEN_MAX).unwrap().len();
        assert!(reply.encode(reply_len_max(len)).is_ok());
    }

    #[test]
    fn answers_are_at_most_three_times_as_long() {
        assert_eq!(reply_len_max(0), SEAL_LEN * 2);
        assert_eq!(reply_len_max(MESSAGE_LEN_MAX), MESSAGE_LEN_MAX);
    }

    #[test]
    fn fuzz_message() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(message) = Message::decode(bytes) {
                let again = message.encode(MESSAGE_LEN_MAX).unwrap();
                assert_eq!(Message::decode(&again).unwrap(), message);
            }
        });
    }
}
