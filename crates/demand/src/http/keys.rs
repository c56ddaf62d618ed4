//! The store's own key, which data keys of inputs and checkpoints are sealed to.

use mutual_model::identity::{IdentityError, NodeKey, SealingPublic};

use super::Reseal;

/// Purpose of a sealed input key.
pub const INPUT_KEY_PURPOSE: &str = "input key v1";
/// Purpose of a sealed checkpoint key.
pub const CHECKPOINT_KEY_PURPOSE: &str = "checkpoint key v1";
/// Purpose of a sealed result or log key.
pub const RESULT_KEY_PURPOSE: &str = "result key v1";

/// [`Reseal`] over a secret key. Several servers of one store share one such key.
#[derive(Debug, Clone)]
pub struct StoreKey(NodeKey);

impl StoreKey {
    /// A store key over a secret.
    pub const fn new(key: NodeKey) -> Self {
        Self(key)
    }
}

impl Reseal for StoreKey {
    fn sealing(&self) -> SealingPublic {
        self.0.sealing_public()
    }

    fn check(&self, purpose: &str, sealed: &[u8]) -> Result<(), IdentityError> {
        self.0.open(purpose, sealed).map(drop)
    }

    fn reseal(
        &self,
        purpose: &str,
        sealed: &[u8],
        to: &SealingPublic,
    ) -> Result<Vec<u8>, IdentityError> {
        let secret = self.0.open(purpose, sealed)?;
        to.seal(purpose, &secret, &mut rand::rng())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_sealed_to_the_store_reaches_the_holder_and_nobody_else() {
        let (store, agent, other) = (
            NodeKey::from_seed(&[1; 32]),
            NodeKey::from_seed(&[2; 32]),
            NodeKey::from_seed(&[3; 32]),
        );
        let key = StoreKey::new(store);
        let sealed = key
            .sealing()
            .seal(INPUT_KEY_PURPOSE, b"data key", &mut rand::rng())
            .unwrap();
        let resealed = key
            .reseal(INPUT_KEY_PURPOSE, &sealed, &agent.sealing_public())
            .unwrap();
        let opened = agent.open(INPUT_KEY_PURPOSE, &resealed).unwrap();
        assert_eq!(opened.as_slice(), b"data key");
        assert!(other.open(INPUT_KEY_PURPOSE, &resealed).is_err());
        assert!(key.check(CHECKPOINT_KEY_PURPOSE, &sealed).is_err());
    }
}
