//! What the service answers: JSON always, refusals with a word for programs and a sentence for people.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mutual_model::job::FieldError;
use serde::Serialize;

use super::Refusal;
use super::wire::{ErrorBody, ErrorDetail, status};
use crate::error::StoreError;

pub(super) type Reply = Result<Response, Answer>;

pub(super) fn ok(body: &impl Serialize) -> Reply {
    Ok(json(StatusCode::OK, body))
}

/// An answer other than the one asked for.
#[derive(Debug)]
pub(super) enum Answer {
    Store(StoreError),
    Refused(Refusal),
    Plain(StatusCode, &'static str, FieldError),
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<FieldError> for Answer {
    fn from(error: FieldError) -> Self {
        Self::Store(error.into())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Store(error) => store_answer(error),
            Self::Refused(refusal) => refusal_answer(refusal),
            Self::Plain(status, code, error) => {
                let mut body = ErrorBody::from(StoreError::Invalid(error));
                code.clone_into(&mut body.error.code);
                json(status, &body)
            }
        }
    }
}

fn store_answer(error: StoreError) -> Response {
    let retry_after_ms = match error {
        StoreError::Overloaded { retry_after_ms } => Some(retry_after_ms),
        _ => None,
    };
    let mut response = json(status(&error), &ErrorBody::from(error));
    if let Some(ms) = retry_after_ms {
        let seconds = HeaderValue::from(ms.div_ceil(1_000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn refusal_answer(refusal: Refusal) -> Response {
    let body = ErrorBody {
        error: ErrorDetail {
            store: Some(StoreError::Forbidden(refusal.message.clone())),
            code: refusal.code,
            message: refusal.message,
            field: None,
            fix: None,
        },
    };
    json(StatusCode::UNAUTHORIZED, &body)
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = match serde_json::to_vec(body) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "cannot encode an answer");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, Body::from(bytes)).into_response()
}
