//! Who may do what (DESIGN §3.13): every method asks here before it touches a row.

use mutual_model::identity::NodeId;
use mutual_model::ids::Namespace;

use crate::{Principal, Revocation, Right, StoreError, StoreResult, Verdict};

pub(crate) fn has(who: &Principal, right: Right) -> bool {
    who.rights.contains(&right)
}

pub(crate) fn require(who: &Principal, right: Right) -> StoreResult<()> {
    require_any(who, &[right])
}

pub(crate) fn require_any(who: &Principal, rights: &[Right]) -> StoreResult<()> {
    if rights.iter().any(|right| has(who, *right)) {
        return Ok(());
    }
    Err(StoreError::Forbidden(format!(
        "{} lacks the right {:?}",
        who.subject, rights
    )))
}

pub(crate) fn sees(who: &Principal, namespace: &Namespace) -> bool {
    who.namespaces.contains(namespace)
}

/// The node that asks for or reports on work.
pub(crate) fn worker(who: &Principal) -> StoreResult<NodeId> {
    require(who, Right::Work)?;
    who.node
        .ok_or_else(|| StoreError::Forbidden(format!("{} is no node", who.subject)))
}

/// Namespaces whose changes `who` may see; `None` is all of them.
pub(crate) fn readable(who: &Principal) -> StoreResult<Option<&[Namespace]>> {
    require_any(who, &[Right::Read, Right::Operate])?;
    Ok((!has(who, Right::Operate)).then_some(&who.namespaces))
}

/// Whether `who` may pass this verdict at all.
pub(crate) fn judge(who: &Principal, revocation: &Revocation) -> StoreResult<()> {
    if revocation.verdict != Verdict::Superseded {
        return require_any(who, &[Right::Guard, Right::Operate]);
    }
    if worker(who)? == revocation.agent {
        return Ok(());
    }
    Err(StoreError::Forbidden(
        "only a node itself can supersede its earlier runs".into(),
    ))
}

/// Whether `who`'s word alone is enough.
pub(crate) fn judges_alone(who: &Principal, revocation: &Revocation) -> bool {
    has(who, Right::Operate) || revocation.verdict == Verdict::Superseded
}

/// The name under which a guardian's vote counts, so that one guardian votes once.
pub(crate) fn voter(who: &Principal) -> String {
    who.node
        .map_or_else(|| who.subject.clone(), |node| node.to_string())
}
