//! Answers to the requests of others.

use std::time::Duration;

use super::core::Core;
use super::message::{Content, Message, Refusal, Reply, Request, Stored, reply_len_max};
use super::{Contact, Key};
use crate::record::SignedRecord;
use crate::time::Timestamp;

/// Bytes of a reply besides its entries: head, page flag and two counts.
const VALUES_HEAD_LEN: usize = 13;
/// Bytes of one contact with an IPv6 address.
const CONTACT_LEN_MAX: usize = 51;

impl Core {
    pub(super) fn serve(
        &mut self,
        now: Timestamp,
        from: Contact,
        (id, len, wants_certificate): (u64, usize, bool),
        request: Request,
    ) {
        let room = reply_len_max(len);
        let reply = match request {
            Request::Ping => Some(Reply::Pong),
            Request::FindNode { .. } | Request::FindValue { .. } if self.config.client => {
                Some(Reply::Refused(Refusal::Unserved))
            }
            Request::FindNode { target } => Some(Reply::Nodes {
                contacts: self.nearest_for(&target, &from, room - VALUES_HEAD_LEN),
            }),
            Request::FindValue { key, after } => Some(self.values(now, &from, (key, after), room)),
            Request::Store { remaining, record } => Some(self.keep(now, remaining, &record)),
            Request::GetCertificate { hash } => Some(self.certificate_for(now, &hash)),
            Request::PutCertificate { certificate } => Some(Reply::Stored(
                match self.learn_certificate(now, &certificate) {
                    Some(_) => Stored::Kept,
                    None => Stored::Invalid,
                },
            )),
            Request::Call { kind, payload } => self.called(now, from, (id, len), (kind, payload)),
        };
        if let Some(reply) = reply {
            self.reply(now, from, (id, room, wants_certificate), reply);
        }
    }

    fn reply(
        &mut self,
        now: Timestamp,
        to: Contact,
        (id, room, wants_certificate): (u64, usize, bool),
        reply: Reply,
    ) {
        let wall = self.wall(now);
        let stranger = self.table.get(to.id()).is_none()
            && self.certificates.of_node(to.public(), wall).is_none();
        let message = Message {
            id,
            client: self.config.client,
            wants_certificate: stranger,
            certificate: wants_certificate.then(|| self.certificate.clone()),
            content: Content::Reply(reply),
        };
        if let Ok(bytes) = message.encode(room) {
            self.send(to, bytes);
        }
    }

    /// As many of the nearest contacts as fit, without whoever asks.
    fn nearest_for(&self, target: &Key, asker: &Contact, room: usize) -> Vec<Contact> {
        let count = self.config.bucket_len.min(room / CONTACT_LEN_MAX);
        let mut contacts = self.table.closest(target, count + 1);
        contacts.retain(|contact| contact.id() != asker.id());
        contacts.truncate(count);
        contacts
    }

    fn values(
        &self,
        now: Timestamp,
        from: &Contact,
        (key, after): (Key, Option<Key>),
        room: usize,
    ) -> Reply {
        let mut left = room - VALUES_HEAD_LEN;
        let mut more = false;
        let mut entries = Vec::new();
        for (_, entry) in self.store.entries(now, &key, after) {
            if entry.encoded_len() > left || entries.len() == usize::from(u8::MAX) {
                more = true;
                break;
            }
            left -= entry.encoded_len();
            entries.push(entry);
        }
        let contacts = match entries.is_empty() {
            true => self.nearest_for(&key, from, left),
            false => Vec::new(),
        };
        Reply::Values {
            entries,
            more,
            contacts,
        }
    }

    /// Keeps a record that passes all checks, whoever brings it.
    fn keep(&mut self, now: Timestamp, remaining: Duration, record: &[u8]) -> Reply {
        if self.config.client {
            return Reply::Refused(Refusal::Unserved);
        }
        let Ok(signed) = SignedRecord::decode(record) else {
            self.stats.refused += 1;
            return Reply::Stored(Stored::Invalid);
        };
        let wall = self.wall(now);
        let Some(certificate) = self.certificates.get(signed.certificate(), wall) else {
            return Reply::Refused(Refusal::NeedCertificate(*signed.certificate()));
        };
        if signed
            .check(&certificate, &self.identity.trust, wall)
            .is_err()
        {
            self.stats.refused += 1;
            return Reply::Stored(Stored::Invalid);
        }
        let remaining = signed.remaining(remaining, wall);
        if remaining.is_zero() {
            return Reply::Stored(Stored::Invalid);
        }
        Reply::Stored(self.store.keep(now, &signed, certificate, remaining))
    }

    fn certificate_for(&mut self, now: Timestamp, hash: &[u8; 32]) -> Reply {
        let wall = self.wall(now);
        let certificate = match *hash == self.certificate_hash {
            true => Some(self.certificate.to_vec()),
            false => self
                .certificates
                .get(hash, wall)
                .map(|known| known.to_bytes()),
        };
        Reply::Certificate { certificate }
    }
}
