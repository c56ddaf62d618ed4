//! The certificates that this node has verified.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::{Certificate, PublicKey};
use crate::record::Trust;
use crate::time::UnixMillis;

#[derive(Debug, Clone)]
struct Known {
    certificate: Arc<Certificate>,
    /// The value of `uses` when it was last needed.
    used: u64,
}

/// Verified certificates by hash. Those of records in the store stay; of the others, the ones that
/// were needed last.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    loose_max: usize,
    uses: u64,
    known: BTreeMap<[u8; 32], Known>,
    nodes: BTreeMap<PublicKey, [u8; 32]>,
}

impl Certificates {
    pub(super) fn new(loose_max: usize) -> Self {
        Self {
            loose_max,
            uses: 0,
            known: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Verifies and remembers a certificate; `None` if it is not to be believed.
    pub(super) fn learn(
        &mut self,
        bytes: &[u8],
        trust: &Trust,
        now: UnixMillis,
    ) -> Option<Arc<Certificate>> {
        let hash = *blake3::hash(bytes).as_bytes();
        if self.known.contains_key(&hash) {
            return self.get(&hash, now);
        }
        let certificate = Certificate::from_bytes(bytes).ok()?;
        trust.accepts(&certificate, now).ok()?;
        self.evict();
        let certificate = Arc::new(certificate);
        self.uses += 1;
        self.nodes.insert(certificate.membership().node, hash);
        let known = Known {
            certificate: certificate.clone(),
            used: self.uses,
        };
        self.known.insert(hash, known);
        Some(certificate)
    }

    /// A verified certificate that is valid now.
    pub(super) fn get(&mut self, hash: &[u8; 32], now: UnixMillis) -> Option<Arc<Certificate>> {
        let known = self.known.get_mut(hash)?;
        let said = known.certificate.membership();
        if now < said.not_before || now >= said.not_after {
            return None;
        }
        self.uses += 1;
        known.used = self.uses;
        Some(known.certificate.clone())
    }

    /// The certificate of the node with this key.
    pub(super) fn of_node(
        &mut self,
        node: &PublicKey,
        now: UnixMillis,
    ) -> Option<Arc<Certificate>> {
        let hash = *self.nodes.get(node)?;
        self.get(&hash, now)
    }

    /// Makes room for one more.
    fn evict(&mut self) {
        let loose = self
            .known
            .iter()
            .filter(|(_, known)| Arc::strong_count(&known.certificate) == 1);
        if loose.clone().count() < self.loose_max {
            return;
        }
        let oldest = loose.min_by_key(|(_, known)| known.used);
        let Some(hash) = oldest.map(|(hash, _)| *hash) else {
            return;
        };
        if let Some(known) = self.known.remove(&hash) {
            let node = known.certificate.membership().node;
            if self.nodes.get(&node) == Some(&hash) {
                self.nodes.remove(&node);
            }
        }
    }
}
