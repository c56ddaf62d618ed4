//! Storage receipts: another peer's signed word that it holds a whole object.
//!
//! A finished task is `succeeded` only with such a word for its result (DESIGN §3.16), so that a
//! result outlives the machine that made it.

use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, NodeId, NodeKey, PublicKey, Signature};
use crate::ids::ContentId;
use crate::time::UnixMillis;

/// A holder's signed promise to keep and serve the object below `root` until `until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageReceipt {
    /// The object's root.
    pub root: ContentId,
    /// Bytes of all its blocks.
    pub bytes: u64,
    /// Who holds it.
    pub holder: PublicKey,
    /// Until when, by the holder's wall clock.
    pub until: UnixMillis,
    /// The holder's signature over all of the above.
    pub signature: Signature,
}

const CONTEXT: &str = "storage receipt v1";

fn signed_bytes(root: &ContentId, bytes: u64, until: UnixMillis) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + root.as_str().len());
    message.extend_from_slice(&bytes.to_be_bytes());
    message.extend_from_slice(&until.0.to_be_bytes());
    message.extend_from_slice(root.as_str().as_bytes());
    message
}

impl StorageReceipt {
    /// Signs a receipt. Call it only once every block is verified and durable.
    pub fn sign(holder: &NodeKey, root: ContentId, bytes: u64, until: UnixMillis) -> Self {
        let signature = holder.sign(CONTEXT, &signed_bytes(&root, bytes, until));
        Self {
            root,
            bytes,
            holder: holder.public(),
            until,
            signature,
        }
    }

    /// Checks the holder's signature.
    ///
    /// # Errors
    /// [`IdentityError::Signature`].
    pub fn verify(&self) -> Result<(), IdentityError> {
        let message = signed_bytes(&self.root, self.bytes, self.until);
        self.holder.verify(CONTEXT, &message, &self.signature)
    }
}

/// How many distinct peers other than `producer` vouch with valid receipts for `root`.
pub fn vouching(receipts: &[StorageReceipt], root: &ContentId, producer: &NodeId) -> usize {
    let holders: std::collections::BTreeSet<_> = receipts
        .iter()
        .filter(|receipt| receipt.root == *root && receipt.verify().is_ok())
        .map(|receipt| receipt.holder.node_id())
        .filter(|holder| holder != producer)
        .collect();
    holders.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_peers_count_and_each_once() {
        let producer = NodeKey::from_seed(&[1; 32]);
        let holder = NodeKey::from_seed(&[2; 32]);
        let root: ContentId = "bafytest".parse().unwrap();
        let receipt = |key| StorageReceipt::sign(key, root.clone(), 10, UnixMillis(5));
        let mut forged = receipt(&holder);
        forged.bytes = 11;
        let cases = [
            (vec![], 0),
            (vec![receipt(&producer)], 0),
            (vec![receipt(&holder), receipt(&holder)], 1),
            (vec![forged], 0),
            (vec![receipt(&holder), receipt(&producer)], 1),
        ];
        for (receipts, expected) in cases {
            assert_eq!(vouching(&receipts, &root, &producer.id()), expected);
        }
    }
}
