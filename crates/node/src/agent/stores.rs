//! The demand stores an agent works for, and its requests to them in the core's words.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mutual_demand::{
    ClaimReply, ClaimRequest, ClaimScope, DemandStore, FinishReply, FinishRequest, Principal,
    ReleaseRequest, RenewReply, RenewRequest, Revocation, StoreError, StoreResult, Verdict,
};
use mutual_model::agent::{Claimed, Grant, Renewed, Scope, StoreUrl, Trouble};
use mutual_model::identity::{NodeId, SealingPublic};
use mutual_model::ids::{Incarnation, Nonce};
use mutual_model::job::IsolationClass;
use mutual_model::lease::{Claim, HeldJob};
use mutual_model::matching::Offer;

use super::finishes::Finishes;

/// How long one request may take before its outcome counts as unknown.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Stores an agent works for at once; each costs a session and polls.
pub(super) const STORES_MAX: usize = 64;

/// A demand store that the agent may work for.
#[derive(Debug, Clone)]
pub struct KnownStore {
    /// Its address, as ads and offers name it.
    pub url: StoreUrl,
    /// The store, over HTTP in all but tests of one process.
    pub store: Arc<dyn DemandStore>,
    /// Isolation classes its users may use here; class `process` only for the owner's own.
    pub classes: Vec<IsolationClass>,
}

/// The way to one store.
#[derive(Debug)]
pub(super) struct StoreLink {
    pub(super) known: KnownStore,
    principal: Principal,
    finishes: Finishes,
    /// Where checkpoint keys are sealed to, once the store has told.
    sealing: tokio::sync::OnceCell<Option<SealingPublic>>,
}

/// Every store the agent knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Stores {
    links: Arc<RwLock<BTreeMap<StoreUrl, Arc<StoreLink>>>>,
}

impl Stores {
    /// Adds a store; false if it is known already or there are too many.
    pub(super) fn add(&self, known: KnownStore, principal: Principal) -> bool {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= STORES_MAX || links.contains_key(&known.url) {
            return false;
        }
        let link = StoreLink {
            principal,
            finishes: Finishes::default(),
            sealing: tokio::sync::OnceCell::new(),
            known,
        };
        links.insert(link.known.url.clone(), Arc::new(link));
        true
    }

    pub(super) fn get(&self, url: &StoreUrl) -> Option<Arc<StoreLink>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(url).cloned()
    }
}

impl StoreLink {
    pub(super) fn store(&self) -> &dyn DemandStore {
        &*self.known.store
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) async fn claim(
        &self,
        incarnation: Incarnation,
        nonce: Nonce,
        scope: Scope,
        offer: Offer,
        agent_url: String,
    ) -> StoreResult<ClaimReply> {
        let scope = match scope {
            Scope::Any => ClaimScope::Any,
            Scope::Jobs(jobs) => ClaimScope::Jobs(jobs),
        };
        let request = ClaimRequest {
            incarnation,
            nonce,
            scope,
            offer,
            agent_url,
        };
        in_time(self.store().try_claim(&self.principal, request)).await
    }

    pub(super) async fn renew(
        &self,
        incarnation: Incarnation,
        held: Vec<HeldJob>,
        complete: bool,
    ) -> StoreResult<RenewReply> {
        let request = RenewRequest {
            incarnation,
            held,
            complete,
        };
        in_time(self.store().renew(&self.principal, request)).await
    }

    pub(super) async fn release(&self, claim: Claim, reason: String) -> StoreResult<()> {
        let request = ReleaseRequest { claim, reason };
        in_time(self.store().release(&self.principal, request)).await
    }

    /// Ends an attempt, together with others that end while an earlier batch is under way.
    pub(super) async fn finish(&self, finish: FinishRequest) -> StoreResult<FinishReply> {
        self.finishes.deliver(finish, self).await
    }

    pub(super) async fn finish_many(
        &self,
        finishes: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let count = finishes.len();
        let asked = self.store().finish_many(&self.principal, finishes);
        let replies = in_time(async { Ok(asked.await) }).await;
        replies.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Ends all earlier runs of this agent.
    pub(super) async fn supersede(
        &self,
        agent: NodeId,
        incarnation: Incarnation,
        nonce: Nonce,
    ) -> StoreResult<()> {
        let revocation = Revocation {
            agent,
            incarnation,
            verdict: Verdict::Superseded,
            silent_ms: 0,
            nonce,
        };
        let revoke = in_time(self.store().revoke(&self.principal, revocation));
        revoke.await.map(drop)
    }

    /// Where keys that the store hands on are sealed to.
    pub(super) async fn sealing(&self) -> StoreResult<Option<SealingPublic>> {
        let ask = || async { Ok(in_time(self.store().info()).await?.sealing) };
        self.sealing.get_or_try_init(ask).await.copied()
    }
}

/// Bounds a request. What was cut off may have taken effect (DESIGN §3.12).
pub(super) async fn in_time<T>(request: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    match tokio::time::timeout(REQUEST_TIME_MAX, request).await {
        Ok(reply) => reply,
        Err(_) => Err(StoreError::Unknown("no answer in time".to_owned())),
    }
}

/// The core's view of a claim's answer.
pub(super) fn claimed(
    reply: &StoreResult<ClaimReply>,
    fresh: impl FnOnce() -> Incarnation,
) -> Result<Claimed, Trouble> {
    let reply = reply.as_ref().map_err(|error| trouble(error, fresh))?;
    let grants = reply.grants.iter().map(|grant| Grant {
        claim: grant.claim,
        namespace: grant.namespace.clone(),
        spec: grant.spec.clone(),
    });
    Ok(Claimed {
        grants: grants.collect(),
        lease: Duration::from_millis(reply.lease_ms),
    })
}

/// The core's view of a renewal's answer.
pub(super) fn renewed(
    reply: StoreResult<RenewReply>,
    fresh: impl FnOnce() -> Incarnation,
) -> Result<Renewed, Trouble> {
    let reply = reply.map_err(|error| trouble(&error, fresh))?;
    Ok(Renewed {
        held: reply.held,
        lost: reply.lost,
        checkpoint_wanted: reply.checkpoint_wanted,
        state: reply.state,
        lease: Duration::from_millis(reply.lease_ms),
    })
}

fn trouble(error: &StoreError, fresh: impl FnOnce() -> Incarnation) -> Trouble {
    match error {
        StoreError::IncarnationRevoked => Trouble::Revoked { fresh: fresh() },
        StoreError::Unknown(_) => Trouble::Unknown,
        StoreError::Unavailable(_) => Trouble::Unavailable { after: None },
        StoreError::Overloaded { retry_after_ms } => Trouble::Unavailable {
            after: Some(Duration::from_millis(*retry_after_ms)),
        },
        StoreError::NotFound
        | StoreError::Conflict(_)
        | StoreError::Fenced { .. }
        | StoreError::HeardFrom { .. }
        | StoreError::Forbidden(_)
        | StoreError::Invalid(_)
        | StoreError::Internal(_) => Trouble::Refused,
    }
}
