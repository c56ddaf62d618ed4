//! Signed offers of queued jobs to idle agents, and the agents' signed answers.
//!
//! An offer decides nothing: the agent that likes it claims the job from the demand store, where
//! it is checked in earnest. The signature only keeps strangers from wasting agents' time. Nodes
//! sign with their key and certificate. A user's own program, when no server is left, shows its
//! token instead, stripped of every right and ending within a minute, so that an agent that keeps
//! it has gained nothing.

use std::time::Duration;

use mutual_demand::Right;
use mutual_model::identity::{NodeId, PublicKey, Role};
use mutual_model::ids::{JobId, Namespace, Nonce};
use mutual_model::matching::Need;
use mutual_model::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::envelope::{self, EnvelopeError};
use super::{Attenuation, NodeSigner, TokenError, UserToken, unix_now};

const OFFER: &str = "job offer v1";
const REPLY: &str = "job offer reply v1";
/// How long an offer stands.
const LIFETIME: Duration = Duration::from_secs(30);
/// Most jobs in one offer (DESIGN §5: a bulletin holds at most 16).
const JOBS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 512;
/// Roles whose nodes may offer jobs.
pub const OFFERING_ROLES: [Role; 2] = [Role::Control, Role::Demand];

/// Queued jobs of like need, offered to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOffer {
    /// The agent asked.
    pub to: NodeId,
    /// The jobs, 1 to 16.
    pub jobs: Vec<JobId>,
    /// Where to claim them, at most 256 bytes.
    pub demand_url: String,
    /// Their namespace.
    pub namespace: Namespace,
    /// What each needs.
    pub need: Need,
    /// Whether they may be held before there is room to run them: their holder died, and nobody is
    /// known to have room.
    pub ahead: bool,
    /// When the offer ends.
    pub expires: UnixMillis,
    /// Names the offer in its answer.
    pub nonce: Nonce,
}

/// Who stands behind an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferVoucher {
    /// A member node.
    Node(NodeId),
    /// A user of the namespace.
    User(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByUser {
    offer: JobOffer,
    token: String,
}

const BY_NODE: u8 = 0;
const BY_USER: u8 = 1;

impl JobOffer {
    /// An offer of `jobs` to one agent, good for half a minute.
    pub fn new(
        to: NodeId,
        jobs: Vec<JobId>,
        demand_url: String,
        namespace: Namespace,
        need: Need,
    ) -> Self {
        Self {
            to,
            jobs,
            demand_url,
            namespace,
            need,
            ahead: false,
            expires: unix_now().after(LIFETIME),
            nonce: Nonce(rand::random()),
        }
    }

    /// The encoded offer, signed by a node.
    pub fn sign(&self, signer: &NodeSigner) -> Vec<u8> {
        let mut bytes = vec![BY_NODE];
        bytes.extend(envelope::sign(signer, OFFER, self));
        bytes
    }

    /// The encoded offer, vouched for by a user's token from [`JobOffer::voucher`].
    pub fn vouch(&self, voucher: &UserToken) -> Vec<u8> {
        let mut bytes = vec![BY_USER];
        bytes.extend(envelope::encode(&ByUser {
            offer: self.clone(),
            token: voucher.as_str().to_owned(),
        }));
        bytes
    }

    /// A token that proves its bearer's namespace and permits nothing, for a minute.
    ///
    /// # Errors
    /// As [`UserToken::attenuate`].
    pub fn voucher(token: &UserToken, namespace: &Namespace) -> Result<UserToken, TokenError> {
        token.attenuate(&Attenuation {
            namespaces: Some(vec![namespace.clone()]),
            rights: Some(Vec::<Right>::new()),
            expires: Some(unix_now().after(2 * LIFETIME)),
        })
    }

    /// Reads and checks an offer as the agent `here`.
    ///
    /// # Errors
    /// [`EnvelopeError`]; `NotAllowed` if it is for another agent, or if who stands behind it has
    /// no business in the namespace.
    pub fn verify(
        bytes: &[u8],
        here: &NodeId,
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<(Self, OfferVoucher), EnvelopeError> {
        const WHAT: &str = "offer";
        let (offer, voucher) = match bytes.split_first() {
            Some((&BY_NODE, rest)) => Self::by_node(rest, trusted, now)?,
            Some((&BY_USER, rest)) => Self::by_user(rest, trusted, now)?,
            _ => return Err(EnvelopeError::Malformed(WHAT)),
        };
        let is_bounded =
            (1..=JOBS_MAX).contains(&offer.jobs.len()) && offer.demand_url.len() <= URL_BYTES_MAX;
        if !is_bounded || offer.need.resources.check_need().is_err() {
            return Err(EnvelopeError::Malformed(WHAT));
        }
        if offer.to != *here {
            return Err(EnvelopeError::NotAllowed("the offer is for another agent"));
        }
        envelope::check_end(offer.expires, now)?;
        Ok((offer, voucher))
    }

    fn by_node(
        bytes: &[u8],
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<(Self, OfferVoucher), EnvelopeError> {
        let (offer, signer): (Self, _) = envelope::open(bytes, OFFER, "offer", trusted, now)?;
        let may_offer = |role| signer.roles.contains(role);
        if !OFFERING_ROLES.iter().any(may_offer) {
            return Err(EnvelopeError::NotAllowed(
                "signer is neither control nor demand",
            ));
        }
        if !signer.namespaces.contains(&offer.namespace) {
            return Err(EnvelopeError::NotAllowed("signer serves other namespaces"));
        }
        Ok((offer, OfferVoucher::Node(signer.node.node_id())))
    }

    fn by_user(
        bytes: &[u8],
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<(Self, OfferVoucher), EnvelopeError> {
        let ByUser { offer, token } = envelope::decode(bytes, "offer")?;
        let user = UserToken::from_text(&token)?.verify(trusted, now)?;
        if !user.principal.namespaces.contains(&offer.namespace) {
            return Err(EnvelopeError::NotAllowed(
                "user belongs to other namespaces",
            ));
        }
        Ok((offer, OfferVoucher::User(user.principal.subject)))
    }
}

/// An agent's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOfferReply {
    /// The offer answered.
    pub nonce: Nonce,
    /// The jobs it goes to claim now; the claim itself may still lose a race.
    pub accepted: Vec<JobId>,
    /// Why it leaves the others, for people, at most 512 bytes.
    pub declined: Option<String>,
}

impl JobOfferReply {
    /// The encoded, signed answer.
    pub fn sign(&self, signer: &NodeSigner) -> Vec<u8> {
        envelope::sign(signer, REPLY, self)
    }

    /// Reads and checks the answer of the agent asked in `offer`.
    ///
    /// # Errors
    /// [`EnvelopeError`]; `NotAllowed` if another node signed it or it answers another offer.
    pub fn verify(
        bytes: &[u8],
        offer: &JobOffer,
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<Self, EnvelopeError> {
        const WHAT: &str = "answer to an offer";
        let (reply, signer): (Self, _) = envelope::open(bytes, REPLY, WHAT, trusted, now)?;
        if signer.node.node_id() != offer.to || reply.nonce != offer.nonce {
            return Err(EnvelopeError::NotAllowed("not the answer to this offer"));
        }
        let too_long = reply
            .declined
            .as_ref()
            .is_some_and(|text| text.len() > REASON_BYTES_MAX);
        if too_long || reply.accepted.len() > JOBS_MAX {
            return Err(EnvelopeError::Malformed(WHAT));
        }
        Ok(reply)
    }
}
