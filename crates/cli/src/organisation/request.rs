//! Joining without a wire: a request file to the organisation, a certificate file back.

use mutual_node::model::identity::{NodeKey, PublicKey, SealingPublic, Signature};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

const CONTEXT: &str = "join request v1";
/// Longest request that is read.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// A node's keys, with the proof that the sender holds their secret half and means this
/// organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinRequest {
    pub(crate) organisation: PublicKey,
    pub(crate) node: PublicKey,
    pub(crate) sealing: SealingPublic,
    signature: Signature,
}

fn signed_bytes(organisation: &PublicKey, sealing: &SealingPublic) -> Vec<u8> {
    [organisation.as_bytes().as_slice(), sealing.as_bytes()].concat()
}

impl JoinRequest {
    /// Asks `organisation` for a certificate for `key`.
    pub(crate) fn new(organisation: PublicKey, key: &NodeKey) -> Self {
        let sealing = key.sealing_public();
        Self {
            organisation,
            node: key.public(),
            sealing,
            signature: key.sign(CONTEXT, &signed_bytes(&organisation, &sealing)),
        }
    }

    /// Reads a request and checks its proof.
    pub(crate) fn verified(bytes: &[u8], organisation: &PublicKey) -> Outcome<Self> {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::user(format!("no valid join request: {why}"))
                .hint("the newcomer makes one with `mutual org join --request FILE`")
        };
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(refused(&"too long"));
        }
        let request: Self = serde_json::from_slice(bytes).map_err(|error| refused(&error))?;
        if request.organisation != *organisation {
            return Err(refused(&"it is meant for another organisation"));
        }
        let message = signed_bytes(organisation, &request.sealing);
        match request.node.verify(CONTEXT, &message, &request.signature) {
            Ok(()) => Ok(request),
            Err(error) => Err(refused(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_holder_of_the_key_can_ask_and_only_the_one_meant_will_do() {
        let organisation = NodeKey::from_seed(&[1; 32]).public();
        let key = NodeKey::from_seed(&[2; 32]);
        let request = JoinRequest::new(organisation, &key);
        let bytes = serde_json::to_vec(&request).unwrap();
        assert_eq!(
            JoinRequest::verified(&bytes, &organisation).unwrap(),
            request
        );
        let stranger = NodeKey::from_seed(&[3; 32]);
        assert!(JoinRequest::verified(&bytes, &stranger.public()).is_err());
        let forged = JoinRequest {
            sealing: stranger.sealing_public(),
            ..request
        };
        let bytes = serde_json::to_vec(&forged).unwrap();
        assert!(JoinRequest::verified(&bytes, &organisation).is_err());
        assert!(JoinRequest::verified(b"{}", &organisation).is_err());
    }
}
