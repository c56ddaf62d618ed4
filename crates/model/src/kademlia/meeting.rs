//! Datagrams from others: who is let in, and what each one is about.

use std::sync::Arc;

use super::core::Core;
use super::message::{Content, Message};
use super::requests::Aim;
use super::table::Seen;
use super::{Contact, message};
use crate::identity::Certificate;
use crate::time::Timestamp;

/// Contacts whose wish for this node's certificate is remembered.
const CURIOUS_MAX: usize = 1_024;
/// How recently the stalest contact of a full bucket must have been heard of to be left in peace.
const LATELY_PROBES: u32 = 12;

impl Core {
    pub(super) fn received(&mut self, now: Timestamp, from: Contact, bytes: &[u8]) {
        if *from.id() == self.me {
            return;
        }
        let Ok(message) = Message::decode(bytes) else {
            self.stats.refused += 1;
            return;
        };
        self.stats.received += 1;
        match message.content {
            Content::Reply(_) => self.received_reply(now, from, message),
            Content::Request { .. } => self.received_request(now, from, message, bytes.len()),
        }
    }

    fn received_reply(&mut self, now: Timestamp, from: Contact, message: Message) {
        let Some(pending) = self.take_pending(message.id, &from) else {
            return;
        };
        if message.wants_certificate && self.curious.len() < CURIOUS_MAX {
            self.curious.insert(*from.id());
        }
        // The answer came from where the question went, whatever address it shows.
        self.meet(now, pending.to, &message, true);
        if let Content::Reply(reply) = message.content {
            self.replied(now, pending, reply);
        }
    }

    fn received_request(&mut self, now: Timestamp, from: Contact, message: Message, len: usize) {
        let Content::Request { sent_at, .. } = message.content else {
            return;
        };
        let wall = self.wall(now);
        let welcome = self.rates.allow(now, from.id())
            && self
                .replay
                .is_new(now, wall, from.id(), message.id, sent_at);
        if !welcome {
            self.stats.refused += 1;
            return;
        }
        self.meet(now, from, &message, false);
        if let Content::Request { request, .. } = message.content {
            let head = (message.id, len, message.wants_certificate);
            self.serve(now, from, head, request);
        }
    }

    /// Takes note of a node that spoke; lets it into the routing table if it is a member.
    fn meet(&mut self, now: Timestamp, from: Contact, message: &Message, is_reply: bool) {
        if self.table.get(from.id()).is_some() {
            if let Seen::Known { moved: true } = self.table.seen(now, from)
                && !is_reply
            {
                self.ask(now, from, Aim::Move, message::Request::Ping);
            }
            return;
        }
        let Some(certificate) = self.certificate_of(now, &from, message) else {
            return;
        };
        drop(certificate);
        if !message.client {
            self.enter(now, from);
        }
    }

    fn certificate_of(
        &mut self,
        now: Timestamp,
        from: &Contact,
        message: &Message,
    ) -> Option<Arc<Certificate>> {
        if let Some(bytes) = &message.certificate
            && let Some(certificate) = self.learn_certificate(now, bytes)
            && certificate.membership().node == *from.public()
        {
            return Some(certificate);
        }
        let wall = self.wall(now);
        self.certificates.of_node(from.public(), wall)
    }

    pub(super) fn learn_certificate(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
    ) -> Option<Arc<Certificate>> {
        let wall = self.wall(now);
        let learnt = self.certificates.learn(bytes, &self.identity.trust, wall);
        if learnt.is_none() {
            self.stats.refused += 1;
        }
        learnt
    }

    fn enter(&mut self, now: Timestamp, contact: Contact) {
        match self.table.seen(now, contact) {
            Seen::Added => self.arrived(now, contact),
            Seen::Full { stalest, seen } => {
                if now.since(seen) > self.config.probe_interval * LATELY_PROBES {
                    self.ask(now, stalest, Aim::Probe, message::Request::Ping);
                }
            }
            Seen::Known { .. } | Seen::Myself => {}
        }
    }
}
