//! An organisation with one user and nodes of any role.

use mutual_demand::{Principal, Right};
use mutual_model::identity::{Certificate, Membership, NodeKey, Role};
use mutual_model::ids::Namespace;
use mutual_model::time::UnixMillis;
use mutual_node::auth::{Gate, NodeSigner, UserGrant, UserToken, principal_of};

/// The fixed instant at which these tests take place.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR_MS: u64 = 3_600_000;

pub(crate) fn names(names: &[&str]) -> Vec<Namespace> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[derive(Debug)]
pub(crate) struct Organisation {
    pub(crate) key: NodeKey,
    now: UnixMillis,
}

impl Organisation {
    pub(crate) fn new(seed: u8) -> Self {
        Self::at(seed, NOW)
    }

    /// An organisation whose documents are good for an hour around `now`.
    pub(crate) fn at(seed: u8, now: UnixMillis) -> Self {
        let key = NodeKey::from_seed(&[seed; 32]);
        Self { key, now }
    }

    pub(crate) fn gate(&self) -> Gate {
        Gate::new(vec![self.key.public()])
    }

    pub(crate) fn node(&self, seed: u8, namespaces: &[&str], roles: &[Role]) -> NodeSigner {
        let key = NodeKey::from_seed(&[seed; 32]);
        let membership = Membership {
            organisation: self.key.public(),
            node: key.public(),
            sealing: key.sealing_public(),
            name: format!("node-{seed}"),
            namespaces: names(namespaces),
            roles: roles.to_vec(),
            not_before: UnixMillis(self.now.0 - HOUR_MS),
            not_after: UnixMillis(self.now.0 + HOUR_MS),
        };
        let certificate = Certificate::issue(&self.key, membership).unwrap();
        NodeSigner::new(key, certificate).unwrap()
    }

    /// Somebody who may look at everything of the namespaces `lab` and `other`.
    pub(crate) fn principal(&self) -> Principal {
        principal_of(
            self.node(99, &["lab", "other"], &[Role::Control])
                .certificate(),
        )
    }

    pub(crate) fn grant(&self, namespaces: &[&str], rights: &[Right]) -> UserGrant {
        UserGrant {
            subject: "ada@lab".into(),
            sealing: NodeKey::from_seed(&[77; 32]).sealing_public(),
            namespaces: names(namespaces),
            rights: rights.to_vec(),
            expires: UnixMillis(self.now.0 + HOUR_MS),
        }
    }

    pub(crate) fn user(&self, namespaces: &[&str], rights: &[Right]) -> UserToken {
        UserToken::mint(&self.key, &self.grant(namespaces, rights)).unwrap()
    }
}
