//! The gate in front of every API: a request in, the principal behind it out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, Method, header};
use mutual_demand::Principal;
use mutual_demand::http::{Authenticate, Refusal, RequestHead};
use mutual_model::identity::{Certificate, PublicKey};
use mutual_model::time::UnixMillis;

use super::node_header::{NODE_SCHEME, NodeHeader, REQUEST_SKEW};
use super::replay::ReplayCache;
use super::user_token::{UserToken, VerifiedUser};
use super::{AuthError, rights_of, unix_now};

const BEARER_SCHEME: &str = "Bearer";
/// Verified credentials kept; all are forgotten together when there are more.
const REMEMBERED_MAX: usize = 4_096;

/// A certificate that was verified once, as the principal it makes.
#[derive(Debug, Clone)]
struct KnownNode {
    key: PublicKey,
    not_before: UnixMillis,
    not_after: UnixMillis,
    principal: Principal,
}

/// Checks credentials against the organisations that this node trusts.
///
/// Clones share what they remember: verified credentials and the requests seen.
#[derive(Debug, Clone)]
pub struct Gate {
    trusted: Arc<[PublicKey]>,
    replay: Arc<Mutex<ReplayCache>>,
    nodes: Arc<Mutex<HashMap<[u8; 32], KnownNode>>>,
    users: Arc<Mutex<HashMap<[u8; 32], VerifiedUser>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left in a cache is at worst incomplete.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember<T>(memory: &Mutex<HashMap<[u8; 32], T>>, key: [u8; 32], value: T) {
    let mut memory = locked(memory);
    if memory.len() >= REMEMBERED_MAX {
        memory.clear();
    }
    memory.insert(key, value);
}

impl Gate {
    /// A gate that believes these organisations.
    pub fn new(trusted: impl Into<Arc<[PublicKey]>>) -> Self {
        Self {
            trusted: trusted.into(),
            replay: Arc::default(),
            nodes: Arc::default(),
            users: Arc::default(),
        }
    }

    /// The organisations believed here.
    pub fn trusted(&self) -> &[PublicKey] {
        &self.trusted
    }

    /// Who sends this request, by this machine's clock.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check(
        &self,
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Principal, AuthError> {
        self.check_at(method, path_and_query, headers, body, unix_now())
    }

    /// As [`Gate::check`], by the caller's clock.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check_at(
        &self,
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<Principal, AuthError> {
        let (scheme, credential) = credential_in(headers)?;
        if scheme.eq_ignore_ascii_case(BEARER_SCHEME) {
            return Ok(self.check_user(credential, now)?.principal);
        }
        if !scheme.eq_ignore_ascii_case(NODE_SCHEME) {
            return Err(AuthError::Malformed(format!(
                "use the scheme {BEARER_SCHEME} or {NODE_SCHEME}"
            )));
        }
        let header = NodeHeader::parse(credential)?;
        header.check_skew(now)?;
        let node = self.check_certificate(&header.certificate, now)?;
        header.check_signature(&node.key, method, path_and_query, body)?;
        let id = node.key.node_id();
        let is_new = locked(&self.replay).admit(id, header.at, header.nonce, now, REQUEST_SKEW);
        if is_new {
            Ok(node.principal)
        } else {
            Err(AuthError::Replayed)
        }
    }

    /// Who a user's token stands for.
    ///
    /// # Errors
    /// [`AuthError::Token`].
    pub fn check_user(&self, token: &str, now: UnixMillis) -> Result<VerifiedUser, AuthError> {
        let token = UserToken::from_text(token)?;
        let name = *blake3::hash(token.as_str().as_bytes()).as_bytes();
        let known = locked(&self.users).get(&name).cloned();
        if let Some(user) = known.filter(|user| now < user.expires) {
            return Ok(user);
        }
        let user = token.verify(&self.trusted, now)?;
        remember(&self.users, name, user.clone());
        Ok(user)
    }

    fn check_certificate(&self, bytes: &[u8], now: UnixMillis) -> Result<KnownNode, AuthError> {
        let name = *blake3::hash(bytes).as_bytes();
        let known = locked(&self.nodes).get(&name).cloned();
        let in_time = |node: &KnownNode| node.not_before <= now && now < node.not_after;
        if let Some(node) = known.filter(in_time) {
            return Ok(node);
        }
        let certificate = Certificate::from_bytes(bytes)?;
        certificate.verify(&self.trusted, now)?;
        let node = known_node(&certificate);
        remember(&self.nodes, name, node.clone());
        Ok(node)
    }
}

impl Authenticate for Gate {
    fn authenticate(&self, head: &RequestHead<'_>) -> Result<Principal, Refusal> {
        self.check(head.method, head.path_and_query, head.headers, head.body)
            .map_err(|error| Refusal {
                code: error.code().to_owned(),
                message: error.to_string(),
            })
    }
}

fn known_node(certificate: &Certificate) -> KnownNode {
    let member = certificate.membership();
    KnownNode {
        key: member.node,
        not_before: member.not_before,
        not_after: member.not_after,
        principal: principal_of(certificate),
    }
}

/// The principal that a certified node is to stores. The certificate must be verified.
pub fn principal_of(certificate: &Certificate) -> Principal {
    let member = certificate.membership();
    Principal {
        subject: member.name.clone(),
        node: Some(member.node.node_id()),
        sealing: member.sealing,
        namespaces: member.namespaces.clone(),
        rights: rights_of(&member.roles),
    }
}

fn credential_in(headers: &HeaderMap) -> Result<(&str, &str), AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed("more than one header".into()));
    }
    let text = value
        .to_str()
        .map_err(|_| AuthError::Malformed("not ASCII".into()))?;
    text.split_once(' ')
        .map(|(scheme, credential)| (scheme, credential.trim()))
        .ok_or_else(|| AuthError::Malformed("a scheme and a credential are needed".into()))
}
