//! What a store answers when it does not do what it was asked.

use mutual_model::job::FieldError;
use mutual_model::lease::Fence;
use serde::{Deserialize, Serialize};

/// The result of every store operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// Why an operation was not done, or may not have been done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "error", content = "detail")]
pub enum StoreError {
    /// No such job in the caller's namespaces. Nothing was changed.
    #[error("no such job in your namespaces")]
    NotFound,
    /// The request contradicts what is already recorded: another payload under the same client
    /// key, a second, different finish, a state that does not allow it. Nothing was changed.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Fence and nonce are not those of the current claim. Nothing was changed; stop working on it.
    #[error("fenced: the claim is not current{}", .current.map(|f| format!(" (now {f})")).unwrap_or_default())]
    Fenced {
        /// The job's last fence, if the caller may know it.
        current: Option<Fence>,
    },
    /// This incarnation was declared dead; take a new one. Nothing was changed.
    #[error("this incarnation was revoked: take a new one")]
    IncarnationRevoked,
    /// The store heard from the incarnation more recently than the verdict claims. Nothing was
    /// changed.
    #[error("verdict refused: heard from it {heard_ms_ago} ms ago")]
    HeardFrom {
        /// How long ago.
        heard_ms_ago: u64,
    },
    /// The caller lacks the right or the namespace. Nothing was changed.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// A field is out of bounds. Nothing was changed.
    #[error("{0}")]
    Invalid(FieldError),
    /// The store cannot be reached or is not able to serve. Nothing was changed; try again.
    #[error("demand store unavailable: {0}")]
    Unavailable(String),
    /// More work than the store takes at once. Nothing was changed; try again later.
    #[error("demand store overloaded: try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The connection failed at a moment when the change may or may not have become durable.
    /// Repeat the same request: it is settled by idempotence (DESIGN §3.12).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The store's own data or code is at fault. Nothing is known to be changed.
    #[error("demand store fault: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Overloaded { .. } | Self::Unknown(_)
        )
    }
}

impl From<FieldError> for StoreError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error)
    }
}
