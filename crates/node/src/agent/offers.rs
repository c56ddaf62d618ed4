//! Where offers arrive, by datagram or HTTP: checked, put to the core, answered and signed.

use std::sync::Arc;
use std::time::Duration;

use mutual_model::agent::StoreUrl;
use mutual_model::identity::PublicKey;
use mutual_model::ids::Namespace;
use tokio::sync::{mpsc, oneshot};

use super::mind::{Input, OfferAnswer};
use super::start::Recruiter;
use super::stores::Stores;
use crate::auth::{EnvelopeError, JobOffer, JobOfferReply, NodeSigner, unix_now};

/// How long the loop may take to answer; it takes microseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why an offer got no signed answer.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It is malformed, expired, for another agent, or from nobody trusted.
    #[error("offer: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

/// Takes offers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OfferDesk {
    signer: NodeSigner,
    trusted: Arc<[PublicKey]>,
    namespaces: Arc<[Namespace]>,
    stores: Stores,
    recruiter: Recruiter,
    inputs: mpsc::Sender<Input>,
}

impl OfferDesk {
    pub(super) fn new(
        signer: NodeSigner,
        trusted: Arc<[PublicKey]>,
        stores: Stores,
        recruiter: Recruiter,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let namespaces = signer.certificate().membership().namespaces.clone();
        Self {
            signer,
            trusted,
            namespaces: namespaces.into(),
            stores,
            recruiter,
            inputs,
        }
    }

    /// Answers an encoded, signed offer with an encoded, signed answer. The claim itself is under
    /// way when this returns.
    ///
    /// # Errors
    /// [`OfferError`]; nobody is told who has no business here.
    pub async fn answer(&self, offer: &[u8]) -> Result<Vec<u8>, OfferError> {
        let here = self.signer.key().id();
        let (offer, voucher) = JobOffer::verify(offer, &here, &self.trusted, unix_now())?;
        tracing::debug!(?voucher, jobs = offer.jobs.len(), "offered");
        let (accepted, declined) = match self.namespaces.contains(&offer.namespace) {
            true => {
                let answer = self.ask(&offer).await?;
                (answer.accepted, answer.declined.map(|why| why.to_string()))
            }
            false => {
                let why = "the agent does not serve that namespace";
                (Vec::new(), Some(why.to_owned()))
            }
        };
        let reply = JobOfferReply {
            nonce: offer.nonce,
            accepted,
            declined,
        };
        Ok(reply.sign(&self.signer))
    }

    async fn ask(&self, offer: &JobOffer) -> Result<OfferAnswer, OfferError> {
        let store = StoreUrl::from(offer.demand_url.as_str());
        if self.stores.get(&store).is_none() {
            // Once it is known its jobs are polled for, this one among them.
            self.recruiter.meet(&store);
        }
        let (answer, answered) = oneshot::channel();
        let input = Input::Offer {
            store,
            jobs: offer.jobs.clone(),
            need: offer.need.clone(),
            ahead: offer.ahead,
            answer,
        };
        let sent = self.inputs.send(input).await;
        sent.map_err(|_| OfferError::Stopping)?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        answer
            .map_err(|_| OfferError::Stopping)?
            .map_err(|_| OfferError::Stopping)
    }
}
