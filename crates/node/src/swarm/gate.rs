//! Who may in, and what they may do: decided from the certificate that opens each stream.

use crate::auth::unix_now;
use std::time::Duration;

use mutual_data::Cid;
use mutual_data::transfer::{Authorise, KeepRequest, KeepTerms};
use mutual_model::identity::{Certificate, NodeId, PublicKey};
use std::sync::Arc;

/// Judges members. Called for every stream; must not block.
pub trait Gatekeeper: Send + Sync {
    /// Whether the certificate itself is accepted: signature, validity, organisation. That the peer at the other end
    /// is the one it names was checked before.
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    fn admit(&self, certificate: &Certificate) -> Result<(), String>;

    /// Whether an admitted member may read the object below `root` of `namespace` (none = public to all members).
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    fn may_read(
        &self,
        member: &Certificate,
        root: &Cid,
        namespace: Option<&str>,
    ) -> Result<(), String>;

    /// Whether and on what terms an object is kept for an admitted member.
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    fn may_keep(&self, member: &Certificate, request: &KeepRequest) -> Result<KeepTerms, String>;
}

/// The usual gatekeeper: members of trusted organisations read and keep what belongs to their namespaces.
#[derive(Debug, Clone)]
pub struct Members {
    /// Keys of the organisations whose certificates count.
    pub trusted: Vec<PublicKey>,
    /// Largest object kept for others, in bytes; 0 keeps nothing.
    pub keep_bytes_max: u64,
    /// Longest time anything is kept for others; longer wishes are shortened to it.
    pub keep_max: Duration,
}

impl Members {
    /// Keeps objects of up to 64 GiB for up to 30 days for members of `trusted` organisations.
    pub fn of(trusted: Vec<PublicKey>) -> Self {
        Self {
            trusted,
            keep_bytes_max: 64 << 30,
            keep_max: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

fn is_member(certificate: &Certificate, namespace: Option<&str>) -> Result<(), String> {
    let namespaces = &certificate.membership().namespaces;
    match namespace {
        None => Ok(()),
        Some(wanted) if namespaces.iter().any(|own| own.as_str() == wanted) => Ok(()),
        Some(wanted) => Err(format!("your certificate does not name namespace {wanted}")),
    }
}

impl Gatekeeper for Members {
    fn admit(&self, certificate: &Certificate) -> Result<(), String> {
        certificate
            .verify(&self.trusted, unix_now())
            .map_err(|e| e.to_string())
    }

    fn may_read(
        &self,
        member: &Certificate,
        _root: &Cid,
        namespace: Option<&str>,
    ) -> Result<(), String> {
        is_member(member, namespace)
    }

    fn may_keep(&self, member: &Certificate, request: &KeepRequest) -> Result<KeepTerms, String> {
        is_member(member, request.namespace.as_deref())?;
        if request.bytes > self.keep_bytes_max {
            return Err(format!(
                "objects of at most {} bytes are kept here",
                self.keep_bytes_max
            ));
        }
        Ok(KeepTerms {
            until: unix_now().after(request.duration.min(self.keep_max)),
        })
    }
}

/// A gatekeeper's word on one admitted member, in the form that the block server asks for.
pub(super) struct Guest {
    pub(super) certificate: Certificate,
    pub(super) gate: Arc<dyn Gatekeeper>,
}

impl Authorise for Guest {
    fn may_read(&self, _: &NodeId, root: &Cid, namespace: Option<&str>) -> Result<(), String> {
        self.gate.may_read(&self.certificate, root, namespace)
    }

    fn may_keep(&self, _: &NodeId, request: &KeepRequest) -> Result<KeepTerms, String> {
        self.gate.may_keep(&self.certificate, request)
    }
}
