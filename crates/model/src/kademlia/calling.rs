//! Short questions between applications over the network's own sealed datagrams.
//!
//! An offer of a task must not wait for a connection to be set up. A call is one datagram each way.
//! It is sent again until it is answered or its deadline passes, each time as a new request, so the
//! application may see the same question twice and must not mind.

use std::sync::Arc;

use super::core::{Action, Core};
use super::message::{Content, Message, Refusal, Reply, Request, SENDERS_OWN, reply_len_max};
use super::requests::Aim;
use super::{Contact, PAYLOAD_LEN_MAX};
use crate::identity::Certificate;
use crate::time::Timestamp;

/// Why a call brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer came before the deadline. The other side may or may not have acted.
    #[error("no answer before the deadline")]
    TimedOut,
    /// The question is longer than a datagram allows. Nothing was sent.
    #[error("the payload is longer than {PAYLOAD_LEN_MAX} bytes")]
    TooLong,
    /// The other side does not accept this node's certificate. It did not act.
    #[error("the other side does not accept this node's certificate")]
    Refused,
    /// The other side is overloaded. It did not act.
    #[error("the other side is overloaded")]
    Busy,
    /// The other side serves no such kind. It did not act.
    #[error("the other side does not serve this kind of call")]
    Unserved,
    /// The answer was not one to a call.
    #[error("the answer makes no sense")]
    Malformed,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NeedCertificate(_) | Refusal::Stranger => Self::Refused,
            Refusal::Busy => Self::Busy,
            Refusal::Unserved => Self::Unserved,
        }
    }
}

/// Who asks: needed to answer.
#[derive(Debug, Clone)]
pub struct Caller {
    contact: Contact,
    certificate: Arc<Certificate>,
    request: u64,
    room: usize,
}

impl Caller {
    /// The node that asks.
    pub const fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Its certificate, verified: what it is and may do.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl Core {
    pub(super) fn call(
        &mut self,
        now: Timestamp,
        call: u64,
        to: Contact,
        kind: u8,
        payload: Vec<u8>,
        deadline: Timestamp,
    ) {
        if payload.len() > PAYLOAD_LEN_MAX {
            let result = Err(CallError::TooLong);
            self.actions.push(Action::Answered { call, result });
            return;
        }
        let aim = Aim::Call { call, deadline };
        self.ask(now, to, aim, Request::Call { kind, payload });
    }

    /// A question came in: only members are heard.
    pub(super) fn called(
        &mut self,
        now: Timestamp,
        from: Contact,
        (request, len): (u64, usize),
        (kind, payload): (u8, Vec<u8>),
    ) -> Option<Reply> {
        let wall = self.wall(now);
        let Some(certificate) = self.certificates.of_node(from.public(), wall) else {
            return Some(Reply::Refused(Refusal::NeedCertificate(SENDERS_OWN)));
        };
        let caller = Caller {
            contact: from,
            certificate,
            request,
            room: reply_len_max(len),
        };
        self.actions.push(Action::Serve {
            caller,
            kind,
            payload,
        });
        None
    }

    pub(super) fn answer(&mut self, caller: Caller, payload: Option<Vec<u8>>) {
        let reply = match payload {
            Some(payload) if payload.len() <= PAYLOAD_LEN_MAX => Reply::Answer { payload },
            _ => Reply::Refused(Refusal::Unserved),
        };
        let message = Message {
            id: caller.request,
            client: self.config.client,
            wants_certificate: false,
            certificate: None,
            content: Content::Reply(reply),
        };
        if let Ok(bytes) = message.encode(caller.room) {
            self.send(caller.contact, bytes);
        }
    }
}
