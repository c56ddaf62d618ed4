//! A demand store over HTTP: a service in front of any store, and a client that is itself a store.
//!
//! The two ends share the wire types of `wire`. Who asks is settled outside: the service takes an
//! [`Authenticate`], the client [`Credentials`], so that neither knows a key or a token format.
//! The service also re-seals data keys to whoever holds a live claim ([`Reseal`], DESIGN §5.2).

mod answers;
mod client;
mod keys;
mod server;
mod servers;
mod wire;

use std::fmt::Debug;

use axum::http::{HeaderMap, HeaderValue, Method};
use mutual_model::identity::{IdentityError, SealingPublic};

use crate::store::Principal;

pub use client::{HttpStore, HttpStoreConfig, HttpStoreError};
pub use keys::{CHECKPOINT_KEY_PURPOSE, INPUT_KEY_PURPOSE, RESULT_KEY_PURPOSE, StoreKey};
pub use server::{Limits, Service};

/// A request as far as credentials are concerned.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Path and query as sent.
    pub path_and_query: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its whole body.
    pub body: &'a [u8],
}

/// Why a credential was refused, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A short, stable word for programs.
    pub code: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Finds out who sends a request.
pub trait Authenticate: Send + Sync + Debug {
    /// The principal behind a request.
    ///
    /// # Errors
    /// [`Refusal`] if there is no valid credential; the service answers 401.
    fn authenticate(&self, head: &RequestHead<'_>) -> Result<Principal, Refusal>;
}

/// Proves who sends a request.
pub trait Credentials: Send + Sync + Debug {
    /// The value of the `authorization` header for one request. Called anew for every try, since
    /// a signed request is accepted only once.
    fn authorize(&self, method: &Method, path_and_query: &str, body: &[u8]) -> HeaderValue;
}

/// A header that somebody else made, such as a user's own token, forwarded as it is.
impl Credentials for HeaderValue {
    fn authorize(&self, _: &Method, _: &str, _: &[u8]) -> HeaderValue {
        self.clone()
    }
}

/// Opens data keys that were sealed to a store and seals them to others.
pub trait Reseal: Send + Sync + Debug {
    /// The key that submitters seal data keys to.
    fn sealing(&self) -> SealingPublic;

    /// Whether this store can open a sealed key for `purpose`.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if not.
    fn check(&self, purpose: &str, sealed: &[u8]) -> Result<(), IdentityError>;

    /// Opens a key sealed to the store and seals it to `to`, for the same purpose.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if it cannot be opened or `to` is no key.
    fn reseal(
        &self,
        purpose: &str,
        sealed: &[u8],
        to: &SealingPublic,
    ) -> Result<Vec<u8>, IdentityError>;
}
