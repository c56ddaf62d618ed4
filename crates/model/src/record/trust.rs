//! Which organisations' members are let in, and into which namespaces.

use std::collections::BTreeMap;

use crate::identity::{Certificate, IdentityError, PublicKey};
use crate::ids::Namespace;
use crate::time::UnixMillis;

/// The organisations that a node trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys of the organisations whose members may take part in the network at all.
    pub organisations: Vec<PublicKey>,
    /// For a namespace listed here, the organisations that may publish in it; a namespace that is
    /// not listed is open to every trusted organisation whose certificate names it.
    pub namespaces: BTreeMap<Namespace, Vec<PublicKey>>,
}

impl Trust {
    /// Trust in one organisation, in every namespace that it names.
    pub fn in_organisation(organisation: PublicKey) -> Self {
        Self {
            organisations: vec![organisation],
            namespaces: BTreeMap::new(),
        }
    }

    /// Whether the certificate's holder may take part in the network: be routed to, and asked.
    ///
    /// # Errors
    /// What [`Certificate::verify`] finds.
    pub fn accepts(&self, certificate: &Certificate, now: UnixMillis) -> Result<(), IdentityError> {
        certificate.verify(&self.organisations, now)
    }

    /// Whether the holder of an accepted certificate may publish in `namespace`.
    pub fn admits(&self, certificate: &Certificate, namespace: &Namespace) -> bool {
        let said = certificate.membership();
        let open = self
            .namespaces
            .get(namespace)
            .is_none_or(|organisations| organisations.contains(&said.organisation));
        open && said.namespaces.contains(namespace)
    }
}
