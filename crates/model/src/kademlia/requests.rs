//! Requests of this node: sent, repeated, answered or given up.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Action, Core, Timer};
use super::message::{
    Content, MESSAGE_LEN_MAX, Message, Refusal, Reply, Request, SENDERS_OWN, Stored,
};
use super::{CallError, Contact, Key};
use crate::time::Timestamp;

/// Attempts at one node: first, after its certificate, after a loss.
const ATTEMPTS_MAX: u8 = 3;

/// What a request is for.
#[derive(Debug, Clone)]
pub(super) enum Aim {
    /// To see whether a node lives.
    Probe,
    /// To see whether a node really moved to this address.
    Move,
    /// A step of a look-up.
    Lookup(u64),
    /// The same question again, because the answer is late and nobody else can be asked.
    Repeated(u64),
    /// A certificate that a look-up needs.
    Certificate { lookup: u64, hash: [u8; 32] },
    /// A copy of this node's own publication.
    Publication(Key),
    /// A copy of what another node published.
    HandOver,
    /// An application's call.
    Call { call: u64, deadline: Timestamp },
    /// A certificate that the receiver needs before it serves the request behind it.
    Introduction(Box<Pending>),
}

/// A request that awaits its answer.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) to: Contact,
    pub(super) aim: Aim,
    /// Kept if it may have to be sent again.
    pub(super) request: Option<Request>,
    pub(super) attempts: u8,
    patience_at: Option<Timestamp>,
    timeout_at: Timestamp,
}

impl Core {
    /// Sends a request and remembers what for.
    pub(super) fn ask(&mut self, now: Timestamp, to: Contact, aim: Aim, request: Request) {
        let keep = !matches!(
            aim,
            Aim::Probe | Aim::Move | Aim::Lookup(_) | Aim::Repeated(_) | Aim::Introduction(_)
        );
        let pending = Pending {
            to,
            aim,
            request: keep.then(|| request.clone()),
            attempts: 0,
            patience_at: None,
            timeout_at: now,
        };
        self.send_request(now, pending, request);
    }

    fn send_request(&mut self, now: Timestamp, mut pending: Pending, request: Request) {
        if self.pending.len() >= self.config.limits.requests {
            self.give_up(now, pending);
            return;
        }
        let id = self.random.next_u64();
        let known = self.table.get(pending.to.id()).is_some();
        let introduce = !known || self.curious.remove(pending.to.id());
        let message = Message {
            id,
            client: self.config.client,
            wants_certificate: !known,
            certificate: introduce.then(|| self.certificate.clone()),
            content: Content::Request {
                sent_at: self.wall(now),
                request,
            },
        };
        let Ok(bytes) = message.encode(MESSAGE_LEN_MAX) else {
            self.give_up(now, pending);
            return;
        };
        pending.attempts += 1;
        self.set_request_timers(now, id, &mut pending);
        self.send(pending.to, bytes);
        self.pending.insert(id, pending);
    }

    fn set_request_timers(&mut self, now: Timestamp, id: u64, pending: &mut Pending) {
        let timeout = match pending.aim {
            Aim::Call { deadline, .. } => self.call_timeout(now, deadline, pending.attempts),
            Aim::Certificate { .. } => self.config.patience * 2,
            _ => self.config.request_timeout,
        };
        pending.timeout_at = now.after(timeout);
        self.set_timer(pending.timeout_at, Timer::Timeout(id));
        pending.patience_at =
            matches!(pending.aim, Aim::Lookup(_)).then(|| now.after(self.config.patience));
        if let Some(at) = pending.patience_at {
            self.set_timer(at, Timer::Patience(id));
        }
    }

    fn call_timeout(&self, now: Timestamp, deadline: Timestamp, attempts: u8) -> Duration {
        let left = deadline.since(now);
        let first = self.config.patience * 2;
        left.min(first * 2_u32.saturating_pow(u32::from(attempts.saturating_sub(1))))
    }

    pub(super) fn send(&mut self, to: Contact, message: Vec<u8>) {
        self.stats.sent += 1;
        self.actions.push(Action::Send { to, message });
    }

    /// The request that `id` answers, if `from` was asked. Each is taken once, so a repeated answer
    /// finds nothing.
    pub(super) fn take_pending(&mut self, id: u64, from: &Contact) -> Option<Pending> {
        if self.pending.get(&id)?.to.public() != from.public() {
            return None;
        }
        let pending = self.pending.remove(&id)?;
        self.clear_timer(pending.timeout_at, Timer::Timeout(id));
        if let Some(at) = pending.patience_at {
            self.clear_timer(at, Timer::Patience(id));
        }
        Some(pending)
    }

    pub(super) fn request_late(&mut self, now: Timestamp, id: u64) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        pending.patience_at = None;
        if let Aim::Lookup(lookup) = pending.aim {
            let late = pending.to;
            self.candidate_late(now, lookup, late);
        }
    }

    pub(super) fn request_lost(&mut self, now: Timestamp, id: u64) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        self.stats.timeouts += 1;
        let id = *pending.to.id();
        if !matches!(pending.aim, Aim::Move | Aim::Call { .. }) && self.table.failed(now, &id) {
            self.departed(now, &id);
        }
        self.try_again_or_give_up(now, pending);
    }

    fn try_again_or_give_up(&mut self, now: Timestamp, mut pending: Pending) {
        let again = match pending.aim {
            Aim::Publication(_) | Aim::HandOver | Aim::Certificate { .. } => {
                pending.attempts < ATTEMPTS_MAX
            }
            Aim::Call { deadline, .. } => now < deadline,
            _ => false,
        };
        match pending.request.take().filter(|_| again) {
            Some(request) => {
                pending.request = Some(request.clone());
                self.send_request(now, pending, request);
            }
            None => self.give_up(now, pending),
        }
    }

    /// The request will not be answered.
    pub(super) fn give_up(&mut self, now: Timestamp, pending: Pending) {
        match pending.aim {
            Aim::Probe | Aim::Move | Aim::HandOver => {}
            Aim::Lookup(lookup) | Aim::Repeated(lookup) => {
                self.candidate_failed(now, lookup, pending.to.id());
            }
            Aim::Certificate { lookup, hash } => {
                self.certificate_missing(now, lookup, &hash, pending.to.id());
            }
            Aim::Publication(key) => self.copy_settled(now, key, pending.to.id(), None),
            Aim::Call { call, .. } => self.call_failed(call, CallError::TimedOut),
            Aim::Introduction(behind) => self.try_again_or_give_up(now, *behind),
        }
    }

    /// An answer came for a request of this node.
    pub(super) fn replied(&mut self, now: Timestamp, pending: Pending, reply: Reply) {
        if let Reply::Refused(refusal) = reply {
            self.request_refused(now, pending, refusal);
            return;
        }
        match (pending.aim, reply) {
            (Aim::Move, Reply::Pong) => self.table.moved(pending.to),
            (Aim::Lookup(lookup) | Aim::Repeated(lookup), Reply::Nodes { contacts }) => {
                self.heard_nodes(now, lookup, pending.to.id(), contacts);
            }
            (
                Aim::Lookup(lookup) | Aim::Repeated(lookup),
                Reply::Values {
                    entries,
                    more,
                    contacts,
                },
            ) => {
                self.heard_values(now, lookup, pending.to, (entries, more, contacts));
            }
            (Aim::Lookup(lookup) | Aim::Repeated(lookup), _) => {
                self.candidate_failed(now, lookup, pending.to.id())
            }
            (Aim::Certificate { lookup, hash }, reply) => {
                if let Reply::Certificate {
                    certificate: Some(bytes),
                } = reply
                {
                    self.learn_certificate(now, &bytes);
                }
                self.certificate_arrived(now, lookup, &hash, pending.to.id());
            }
            (Aim::Publication(key), reply) => {
                let stored = match reply {
                    Reply::Stored(stored) => Some(stored),
                    _ => None,
                };
                self.copy_settled(now, key, pending.to.id(), stored);
            }
            (Aim::Call { call, .. }, Reply::Answer { payload }) => {
                let result = Ok(payload);
                self.actions.push(Action::Answered { call, result });
            }
            (Aim::Call { call, .. }, _) => self.call_failed(call, CallError::Malformed),
            (Aim::Introduction(behind), reply) => self.introduced(now, *behind, &reply),
            (Aim::Probe | Aim::Move | Aim::HandOver, _) => {}
        }
    }

    fn introduced(&mut self, now: Timestamp, mut behind: Pending, reply: &Reply) {
        match (reply, behind.request.clone()) {
            (Reply::Stored(Stored::Kept), Some(request)) => {
                behind.request = Some(request.clone());
                self.send_request(now, behind, request);
            }
            _ => match behind.aim {
                Aim::Call { call, .. } => self.call_failed(call, CallError::Refused),
                _ => self.give_up(now, behind),
            },
        }
    }

    fn request_refused(&mut self, now: Timestamp, pending: Pending, refusal: Refusal) {
        let needed = match refusal {
            Refusal::NeedCertificate(hash) => self.certificate_bytes(now, &hash),
            _ => None,
        };
        let may_repeat = pending.request.is_some() && pending.attempts < ATTEMPTS_MAX;
        match (needed, pending.aim) {
            (Some(certificate), aim) if may_repeat => {
                let to = pending.to;
                let behind = Box::new(Pending { aim, ..pending });
                let certificate = certificate.to_vec();
                let request = Request::PutCertificate { certificate };
                self.ask(now, to, Aim::Introduction(behind), request);
            }
            (_, Aim::Call { call, .. }) => self.call_failed(call, refusal.into()),
            (_, aim) => self.give_up(now, Pending { aim, ..pending }),
        }
    }

    fn certificate_bytes(&mut self, now: Timestamp, hash: &[u8; 32]) -> Option<Arc<[u8]>> {
        if *hash == self.certificate_hash || *hash == SENDERS_OWN {
            return Some(self.certificate.clone());
        }
        let wall = self.wall(now);
        let known = self.certificates.get(hash, wall)?;
        Some(known.to_bytes().into())
    }

    fn call_failed(&mut self, call: u64, error: CallError) {
        let result = Err(error);
        self.actions.push(Action::Answered { call, result });
    }
}
