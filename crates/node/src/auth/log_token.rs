//! A pass to the log of one job on one agent, good for a minute.
//!
//! Whoever serves a demand store, or REST in front of it, has checked that the asker may read the
//! job and signs this. The agent checks it without asking anyone, so logs flow while every server
//! is down. It never stands in a URL: those end up in other people's logs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mutual_model::identity::{NodeId, PublicKey, Role};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::envelope::{self, EnvelopeError};
use super::{NodeSigner, unix_now};

/// How long a log token opens new streams; a stream that is open stays open.
pub const LOG_TOKEN_LIFETIME: Duration = Duration::from_secs(60);

const CONTEXT: &str = "log token v1";
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The right to read one job's log on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogToken {
    /// The job.
    pub job: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The agent that is asked.
    pub agent: NodeId,
    /// First instant at which it opens nothing more.
    pub expires: UnixMillis,
}

impl LogToken {
    /// A token for `job` on `agent` that lasts [`LOG_TOKEN_LIFETIME`] from now.
    pub fn new(job: JobId, namespace: Namespace, agent: NodeId) -> Self {
        Self {
            job,
            namespace,
            agent,
            expires: unix_now().after(LOG_TOKEN_LIFETIME),
        }
    }

    /// Signs it; the text goes into an `authorization: Bearer …` header or a WebSocket message.
    pub fn sign(&self, signer: &NodeSigner) -> String {
        URL_SAFE_NO_PAD.encode(envelope::sign(signer, CONTEXT, self))
    }

    /// Reads and checks a token as the agent `here`.
    ///
    /// # Errors
    /// [`EnvelopeError`]; `NotAllowed` if it is for another agent, or if its signer serves neither
    /// control nor demand for the job's namespace.
    pub fn verify(
        text: &str,
        here: &NodeId,
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<Self, EnvelopeError> {
        const WHAT: &str = "log token";
        if text.len() > TEXT_BYTES_MAX {
            return Err(EnvelopeError::Malformed(WHAT));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| EnvelopeError::Malformed(WHAT))?;
        let (token, signer): (Self, _) = envelope::open(&bytes, CONTEXT, WHAT, trusted, now)?;
        envelope::check_end(token.expires, now)?;
        if token.agent != *here {
            return Err(EnvelopeError::NotAllowed("the token is for another agent"));
        }
        let serves = |role| signer.roles.contains(&role);
        if !serves(Role::Control) && !serves(Role::Demand) {
            return Err(EnvelopeError::NotAllowed(
                "signer is neither control nor demand",
            ));
        }
        if !signer.namespaces.contains(&token.namespace) {
            return Err(EnvelopeError::NotAllowed("signer serves other namespaces"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_log_token() {
        let organisation = mutual_model::identity::NodeKey::from_seed(&[1; 32]);
        let trusted = [organisation.public()];
        bolero::check!().for_each(move |bytes: &[u8]| {
            let text = URL_SAFE_NO_PAD.encode(bytes);
            let here = trusted[0].node_id();
            assert!(LogToken::verify(&text, &here, &trusted, UnixMillis(1)).is_err());
        });
    }
}
