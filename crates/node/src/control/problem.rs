//! What callers are told when something is not done: `{"error": {code, message, field?, fix?}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mutual_demand::StoreError;
use mutual_model::job::FieldError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::auth::AuthError;

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// A short, stable word for programs.
    code: String,
    /// What went wrong, for people.
    message: String,
    /// The field at fault, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: ErrorDetail,
    retry_after_ms: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            detail: ErrorDetail {
                code: code.to_owned(),
                message: message.into(),
                field: None,
                fix: None,
            },
            retry_after_ms: None,
        }
    }

    pub(super) fn of_field(status: StatusCode, code: &str, error: FieldError) -> Self {
        let mut problem = Self::new(status, code, error.to_string());
        problem.detail.field = Some(error.field);
        problem.detail.fix = Some(error.fix);
        problem
    }

    pub(crate) fn invalid(field: &str, problem: impl Into<String>, fix: &str) -> Self {
        FieldError::new(field, problem, fix).into()
    }

    fn fix(mut self, fix: &str) -> Self {
        self.detail.fix = Some(fix.to_owned());
        self
    }

    /// A node's signature covers one request to one server, so it cannot be passed on.
    pub(super) fn nodes_go_to_the_store() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "users_only",
            "this interface acts under its caller's own token, and a node has none",
        )
        .fix("use a user's token here, or ask the demand store itself")
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::of_field(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error)
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let (status, code) = match &error {
            StoreError::Invalid(error) => return error.clone().into(),
            StoreError::NotFound => (S::NOT_FOUND, "not_found"),
            StoreError::Conflict(_) => (S::CONFLICT, "conflict"),
            StoreError::Fenced { .. } => (S::PRECONDITION_FAILED, "fenced"),
            StoreError::IncarnationRevoked => (S::GONE, "incarnation_revoked"),
            StoreError::HeardFrom { .. } => (S::CONFLICT, "heard_from"),
            StoreError::Forbidden(_) => (S::FORBIDDEN, "forbidden"),
            StoreError::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable"),
            StoreError::Overloaded { .. } => (S::TOO_MANY_REQUESTS, "overloaded"),
            StoreError::Unknown(_) => (S::GATEWAY_TIMEOUT, "unknown_outcome"),
            StoreError::Internal(_) => (S::BAD_GATEWAY, "store_fault"),
        };
        let problem = Self::new(status, code, message);
        match error {
            StoreError::Unknown(_) => problem.fix("repeat the same request: it is done once"),
            StoreError::Overloaded { retry_after_ms } => Self {
                retry_after_ms: Some(retry_after_ms),
                ..problem
            },
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: self.detail };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(ms) = self.retry_after_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Reads a JSON body; a problem names the field by its path.
pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bad = |field: String, problem: String, fix: &str| {
        let error = FieldError::new(field, problem, fix);
        Problem::of_field(StatusCode::BAD_REQUEST, "malformed", error)
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let problem = format!("not UTF-8 at byte {}", error.valid_up_to());
        bad("body".into(), problem, "send JSON in UTF-8")
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        if inner.is_syntax() || inner.is_eof() {
            return bad("body".into(), inner.to_string(), "send one JSON value");
        }
        let field = if path == "." { "body".to_owned() } else { path };
        Problem::from(FieldError::new(field, inner.to_string(), "see /docs"))
    })?;
    json.end().map_err(|error| {
        let fix = "send one JSON value and nothing after it";
        bad("body".into(), error.to_string(), fix)
    })?;
    Ok(value)
}
