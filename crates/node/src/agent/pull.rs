//! Images from registries, in the words of an agent.

use std::path::Path;

use async_trait::async_trait;

use super::images::{PullError, Puller};
use crate::sources::registry::{self, Access};

/// Pulls images with the registry client of this crate.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryPuller;

#[async_trait]
impl Puller for RegistryPuller {
    async fn pull(&self, reference: &str, layout: &Path) -> Result<(), PullError> {
        let pulled = registry::pull(reference, layout, &Access::default()).await;
        pulled.map(drop).map_err(|error| PullError {
            retryable: is_retryable(&error),
            reason: error.to_string(),
        })
    }
}

/// A bad reference or image is bad everywhere; a registry or disk may be bad only here and now.
const fn is_retryable(error: &registry::PullError) -> bool {
    use registry::PullError as E;
    match error {
        E::Reference { .. } | E::Image { .. } => false,
        E::Registry { .. } | E::Digest { .. } | E::Io { .. } => true,
    }
}
