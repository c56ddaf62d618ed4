//! What travels: bodies, queries and errors of version 1.

use axum::http::StatusCode;
use mutual_model::identity::NodeId;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::{FieldError, JobState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{StoreError, StoreResult};
use crate::rules::bounds;
use crate::store::{FinishReply, FinishRequest, Submission, Submitted};
use crate::view::JobFilter;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitBody {
    pub(super) tasks: Vec<Submission>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SubmitReply {
    pub(super) submitted: Vec<Submitted>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelBody {
    pub(super) reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequeueBody {
    pub(super) limit: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EpochReply {
    pub(super) epoch: u64,
}

/// `FinishRequest`s, or their JSON as long as it is not known whether each can be read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinishBody<T> {
    finishes: Vec<T>,
}

/// Reads a batch of finishes; one that cannot be read is refused alone.
pub(super) fn read_finishes(bytes: &[u8]) -> StoreResult<Vec<StoreResult<FinishRequest>>> {
    if let Ok(FinishBody { finishes }) = serde_json::from_slice::<FinishBody<FinishRequest>>(bytes)
    {
        bounds::finishes(finishes.len())?;
        return Ok(finishes.into_iter().map(Ok).collect());
    }
    let FinishBody { finishes } = read_json::<FinishBody<serde_json::Value>>(bytes)?;
    bounds::finishes(finishes.len())?;
    let read = |(place, entry)| {
        serde_path_to_error::deserialize(entry).map_err(|error| {
            let field = match error.path().to_string().as_str() {
                "." => format!("finishes[{place}]"),
                path => format!("finishes[{place}].{path}"),
            };
            unreadable(field, error.inner()).into()
        })
    };
    Ok(finishes.into_iter().enumerate().map(read).collect())
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FinishManyReply {
    /// In the order asked.
    pub(super) replies: Vec<FinishAnswer>,
}

/// What became of one finish of many.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishAnswer {
    Finished(FinishReply),
    Refused(Box<ErrorDetail>),
}

impl From<StoreResult<FinishReply>> for FinishAnswer {
    fn from(outcome: StoreResult<FinishReply>) -> Self {
        match outcome {
            Ok(reply) => Self::Finished(reply),
            Err(error) => Self::Refused(Box::new(ErrorBody::from(error).error)),
        }
    }
}

impl From<FinishAnswer> for StoreResult<FinishReply> {
    fn from(answer: FinishAnswer) -> Self {
        match answer {
            FinishAnswer::Finished(reply) => Ok(reply),
            FinishAnswer::Refused(detail) => Err(detail.stated()),
        }
    }
}

/// The empty object, so that every answer is JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default)]
    pub(super) after: u64,
    #[serde(default = "events_default")]
    pub(super) limit: u32,
    /// How long to wait for a first event, in milliseconds.
    #[serde(default)]
    pub(super) wait_ms: u64,
}

const fn events_default() -> u32 {
    1_000
}

/// [`JobFilter`] as a query string: states are separated by commas.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Namespace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<JobId>,
    #[serde(default)]
    limit: u32,
}

impl From<&JobFilter> for JobsQuery {
    fn from(filter: &JobFilter) -> Self {
        let states: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        Self {
            namespace: filter.namespace.clone(),
            state: (!states.is_empty()).then(|| states.join(",")),
            name_prefix: filter.name_prefix.clone(),
            holder: filter.holder,
            before: filter.before,
            limit: filter.limit,
        }
    }
}

impl TryFrom<JobsQuery> for JobFilter {
    type Error = FieldError;

    fn try_from(query: JobsQuery) -> Result<Self, FieldError> {
        let names = query.state.as_deref().unwrap_or_default();
        let states = names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::parse::<JobState>);
        Ok(Self {
            namespace: query.namespace,
            states: states.collect::<Result<_, _>>()?,
            name_prefix: query.name_prefix,
            holder: query.holder,
            before: query.before,
            limit: query.limit,
        })
    }
}

/// `{"error": {"code", "message", "field"?, "fix"?, "store"?}}`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorDetail,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorDetail {
    /// A short, stable word.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
    /// The store's own error, for clients that are stores themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<StoreError>,
}

impl ErrorDetail {
    /// The store's own error; a server that states none is not able to serve.
    pub(super) fn stated(self) -> StoreError {
        self.store.unwrap_or(StoreError::Unavailable(self.message))
    }
}

impl From<StoreError> for ErrorBody {
    fn from(error: StoreError) -> Self {
        let (field, fix) = match &error {
            StoreError::Invalid(FieldError { field, fix, .. }) => {
                (Some(field.clone()), Some(fix.clone()))
            }
            _ => (None, None),
        };
        Self {
            error: ErrorDetail {
                code: code(&error).to_owned(),
                message: error.to_string(),
                field,
                fix,
                store: Some(error),
            },
        }
    }
}

const fn code(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound => "not_found",
        StoreError::Conflict(_) => "conflict",
        StoreError::Fenced { .. } => "fenced",
        StoreError::IncarnationRevoked => "incarnation_revoked",
        StoreError::HeardFrom { .. } => "heard_from",
        StoreError::Forbidden(_) => "forbidden",
        StoreError::Invalid(_) => "invalid",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Overloaded { .. } => "overloaded",
        StoreError::Unknown(_) => "unknown_outcome",
        StoreError::Internal(_) => "internal",
    }
}

pub(super) const fn status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::NotFound => StatusCode::NOT_FOUND,
        StoreError::Conflict(_) | StoreError::HeardFrom { .. } => StatusCode::CONFLICT,
        StoreError::Fenced { .. } => StatusCode::PRECONDITION_FAILED,
        StoreError::IncarnationRevoked => StatusCode::GONE,
        StoreError::Forbidden(_) => StatusCode::FORBIDDEN,
        StoreError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        StoreError::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
        StoreError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn unreadable(field: String, error: &serde_json::Error) -> FieldError {
    FieldError::new(field, error.to_string(), "see the API's description")
}

/// Reads a JSON body; an error names the field by its path.
pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FieldError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        FieldError::new(
            "body",
            format!("not UTF-8 at byte {}", error.valid_up_to()),
            "send JSON in UTF-8",
        )
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // Before the first field, and where the text breaks off, there is no path.
        let has_path = !matches!(path.as_str(), "." | "?");
        let field = if has_path { path } else { "body".to_owned() };
        unreadable(field, error.inner())
    })?;
    json.end().map_err(|error| {
        FieldError::new(
            "body",
            error.to_string(),
            "send one JSON value and nothing after it",
        )
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_survive_the_query_string() {
        let filter = JobFilter {
            namespace: Some("lab".parse().unwrap()),
            states: vec![JobState::Queued, JobState::TimedOut],
            name_prefix: Some("sweep".into()),
            limit: 7,
            ..JobFilter::default()
        };
        let read = JobFilter::try_from(JobsQuery::from(&filter)).unwrap();
        assert_eq!(read, filter);
        let bad = JobsQuery {
            state: Some("queued,done".into()),
            ..JobsQuery::default()
        };
        assert_eq!(JobFilter::try_from(bad).unwrap_err().field, "state");
    }

    #[test]
    fn bad_bodies_name_the_field() {
        let cases: [(&[u8], &str); 4] = [
            (b"\xff", "body"),
            (b"{", "body"),
            (b"{\"reason\": 3}", "reason"),
            (b"{\"reason\": \"x\"} {}", "body"),
        ];
        for (bytes, field) in cases {
            assert_eq!(read_json::<CancelBody>(bytes).unwrap_err().field, field);
        }
        let unknown = read_json::<CancelBody>(b"{\"reason\": \"x\", \"colour\": 1}").unwrap_err();
        assert!(unknown.problem.contains("colour"), "{unknown}");
    }

    /// Whatever arrives is read or refused with a field and a fix.
    fn read_or_refuse<T: DeserializeOwned>(bytes: &[u8]) {
        if let Err(error) = read_json::<T>(bytes) {
            assert!(!error.field.is_empty() && !error.fix.is_empty(), "{error}");
        }
    }

    #[test]
    fn fuzz_bodies() {
        use crate::store::{
            CheckpointReport, ClaimRequest, ReleaseRequest, RenewRequest, Revocation,
        };
        bolero::check!().for_each(|bytes: &[u8]| {
            read_or_refuse::<SubmitBody>(bytes);
            read_or_refuse::<crate::view::Manifest>(bytes);
            read_or_refuse::<ClaimRequest>(bytes);
            read_or_refuse::<RenewRequest>(bytes);
            read_or_refuse::<CheckpointReport>(bytes);
            read_or_refuse::<ReleaseRequest>(bytes);
            read_or_refuse::<FinishRequest>(bytes);
            read_or_refuse::<Revocation>(bytes);
            let read = read_finishes(bytes);
            assert!(
                matches!(read, Ok(_) | Err(StoreError::Invalid(_))),
                "{read:?}"
            );
        });
    }
}
