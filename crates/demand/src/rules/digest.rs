//! Digests that tell a repeated request from a contradicting one (DESIGN §3.7, 3.8).

use serde::Serialize;

use crate::{FinishRequest, StoreError, StoreResult, Submission};

/// BLAKE3-256 of a document's canonical JSON: fields in declaration order, maps sorted.
pub(crate) type Digest = [u8; 32];

pub(crate) fn submission(task: &Submission) -> StoreResult<Digest> {
    of(task)
}

pub(crate) fn finish(request: &FinishRequest) -> StoreResult<Digest> {
    of(&(&request.outcome, &request.result))
}

/// Of a result alone.
pub(crate) fn result(result: &crate::ResultView) -> StoreResult<Digest> {
    of(result)
}

fn of(document: &impl Serialize) -> StoreResult<Digest> {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, document)
        .map_err(|error| StoreError::Internal(format!("cannot digest a request: {error}")))?;
    Ok(*hasher.finalize().as_bytes())
}
