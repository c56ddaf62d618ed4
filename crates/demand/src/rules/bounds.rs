//! Bounds of foreign documents: everything is checked before anything is stored.

use std::collections::{BTreeMap, BTreeSet};

use mutual_model::identity::NodeId;
use mutual_model::job::FieldError;
use mutual_model::lease::{Claim, HeldJob};
use mutual_model::receipt::vouching;

use crate::{
    CheckpointReport, ClaimRequest, ClaimScope, FinishRequest, JobFilter, Manifest, Outcome,
    ReleaseRequest, RenewRequest, ResultView, StoreResult, Submission,
};

pub(crate) const SUBMISSIONS_MAX: usize = 1_000;
const SEEDERS_MAX: usize = 16;
const SEEDER_BYTES_MAX: usize = 512;
const RECEIPTS_MAX: usize = 16;
const SEALED_BYTES_MAX: usize = 1_024;
const SCHEME_BYTES_MAX: usize = 64;
const ARTIFACTS_MAX: usize = 1_000;
const PATH_BYTES_MAX: usize = 4_096;
const REASON_BYTES_MAX: usize = 1_024;
const URL_BYTES_MAX: usize = 256;
const SLOTS_MAX: u32 = 1_024;
const CLAIM_JOBS_MAX: usize = 256;
const LABELS_MAX: usize = 256;
const HELD_MAX: usize = 4_096;
/// Finishes in one batch.
#[cfg(feature = "http")]
pub(crate) const FINISHES_MAX: usize = 1_000;
const LIST_MAX: u32 = 1_000;
const LIST_DEFAULT: u32 = 100;
const EVENTS_MAX: u32 = 10_000;
const REQUEUE_MAX: u32 = 10_000;

fn within(field: &str, found: usize, most: usize, unit: &str) -> Result<(), FieldError> {
    if found <= most {
        return Ok(());
    }
    Err(FieldError::new(
        field,
        format!("{found} {unit}"),
        format!("give at most {most} {unit}"),
    ))
}

fn between(field: &str, found: u32, most: u32) -> Result<(), FieldError> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(FieldError::new(
        field,
        format!("{found} is out of range"),
        format!("give 1 to {most}"),
    ))
}

/// How many distinct peers other than `producer` vouch for an object.
fn copies(manifest: &Manifest, producer: Option<&NodeId>) -> usize {
    match producer {
        Some(node) => vouching(&manifest.receipts, &manifest.root, node),
        // A user is no peer, so every valid receipt is another's.
        None => {
            let valid = manifest
                .receipts
                .iter()
                .filter(|receipt| receipt.root == manifest.root && receipt.verify().is_ok());
            valid
                .map(|receipt| receipt.holder.node_id())
                .collect::<BTreeSet<_>>()
                .len()
        }
    }
}

fn manifest_sizes(field: &str, manifest: &Manifest) -> Result<(), FieldError> {
    let sub = |name: &str| format!("{field}.{name}");
    within(
        &sub("seeders"),
        manifest.seeders.len(),
        SEEDERS_MAX,
        "addresses",
    )?;
    for seeder in &manifest.seeders {
        within(&sub("seeders"), seeder.len(), SEEDER_BYTES_MAX, "bytes")?;
    }
    within(
        &sub("receipts"),
        manifest.receipts.len(),
        RECEIPTS_MAX,
        "receipts",
    )?;
    let meta = &manifest.enc_meta;
    within(
        &sub("enc_meta.scheme"),
        meta.scheme.len(),
        SCHEME_BYTES_MAX,
        "bytes",
    )?;
    within(
        &sub("enc_meta.sealed_key"),
        meta.sealed_key.len(),
        SEALED_BYTES_MAX,
        "bytes",
    )
}

fn vouched(
    field: &str,
    manifest: &Manifest,
    producer: Option<&NodeId>,
    needed: u32,
) -> Result<(), FieldError> {
    let found = copies(manifest, producer);
    if found >= needed as usize {
        return Ok(());
    }
    Err(FieldError::new(
        format!("{field}.receipts"),
        format!(
            "{found} other peers vouch for {}, {needed} must",
            manifest.root
        ),
        "let another peer store the object and add its storage receipt",
    ))
}

/// Inputs and checkpoints need one other peer, unless the task asks for no copies at all.
fn copies_of_input(result_copies: u32) -> u32 {
    result_copies.min(1)
}

/// Checks a manifest of an input against the task it is for.
pub(crate) fn input(
    manifest: &Manifest,
    submitter: Option<&NodeId>,
    result_copies: u32,
) -> StoreResult<()> {
    manifest_sizes("input", manifest)?;
    Ok(vouched(
        "input",
        manifest,
        submitter,
        copies_of_input(result_copies),
    )?)
}

pub(crate) fn submissions(tasks: &[Submission], submitter: Option<&NodeId>) -> StoreResult<()> {
    within("tasks", tasks.len(), SUBMISSIONS_MAX, "tasks")?;
    tasks
        .iter()
        .try_for_each(|task| submission(task, submitter))
}

fn submission(task: &Submission, submitter: Option<&NodeId>) -> StoreResult<()> {
    task.spec.check()?;
    match &task.input {
        Some(_) if !task.spec.has_input => Err(FieldError::new(
            "input",
            "given for a task that has none",
            "set has_input = true, or leave the input out",
        )
        .into()),
        Some(manifest) => input(manifest, submitter, task.spec.result_copies),
        None => Ok(()),
    }
}

pub(crate) fn claim(request: &ClaimRequest) -> StoreResult<()> {
    between("offer.slots", request.offer.slots, SLOTS_MAX)?;
    within(
        "offer.labels",
        request.offer.labels.len(),
        LABELS_MAX,
        "labels",
    )?;
    within("agent_url", request.agent_url.len(), URL_BYTES_MAX, "bytes")?;
    if let ClaimScope::Jobs(jobs) = &request.scope {
        within("scope.jobs", jobs.len(), CLAIM_JOBS_MAX, "jobs")?;
    }
    Ok(())
}

pub(crate) fn renewal(request: &RenewRequest) -> StoreResult<()> {
    Ok(within("held", request.held.len(), HELD_MAX, "claims")?)
}

/// What a renewal lists, each claim once. A holder that was cut off may list two of one job: its old
/// one and the one it was granted since.
pub(crate) fn listed(request: &RenewRequest) -> BTreeMap<Claim, HeldJob> {
    let held = request.held.iter();
    held.map(|held| (held.claim, *held)).collect()
}

/// Sizes and receipts of a checkpoint; `result_copies` is the task's.
pub(crate) fn checkpoint_sizes(report: &CheckpointReport) -> StoreResult<()> {
    if report.sequence == 0 {
        return Err(FieldError::new("sequence", "0", "count checkpoints from 1").into());
    }
    Ok(manifest_sizes("manifest", &report.manifest)?)
}

/// How many copies of a checkpoint other peers hold.
pub(crate) fn checkpoint_copies(report: &CheckpointReport, holder: &NodeId) -> u32 {
    saturate(copies(&report.manifest, Some(holder)))
}

/// The refusal of a checkpoint that no other peer holds.
pub(crate) fn checkpoint_unvouched(report: &CheckpointReport) -> FieldError {
    FieldError::new(
        "manifest.receipts",
        format!("no other peer vouches for {}", report.manifest.root),
        "let another peer store the checkpoint and add its storage receipt",
    )
}

pub(crate) fn reason(text: &str) -> StoreResult<()> {
    Ok(within("reason", text.len(), REASON_BYTES_MAX, "bytes")?)
}

pub(crate) fn release(request: &ReleaseRequest) -> StoreResult<()> {
    reason(&request.reason)
}

fn failure_text(outcome: &Outcome) -> Option<&str> {
    use mutual_model::job::Failure;
    match outcome {
        Outcome::Failure(
            Failure::NotStarted { reason, .. } | Failure::ResultNotStored { reason },
        ) => Some(reason),
        _ => None,
    }
}

/// How many finishes a batch has.
#[cfg(feature = "http")]
pub(crate) fn finishes(count: usize) -> StoreResult<()> {
    Ok(within("finishes", count, FINISHES_MAX, "entries")?)
}

/// Sizes of a finish; receipts are counted by [`result_copies`].
pub(crate) fn finish(request: &FinishRequest) -> StoreResult<()> {
    if let Some(text) = failure_text(&request.outcome) {
        within("outcome.reason", text.len(), REASON_BYTES_MAX, "bytes")?;
    }
    result_sizes(&request.result)
}

fn result_sizes(result: &ResultView) -> StoreResult<()> {
    if let Some(output) = &result.output {
        manifest_sizes("result.output", output)?;
    }
    if let Some(log) = &result.log {
        manifest_sizes("result.log", log)?;
    }
    within(
        "result.artifacts",
        result.artifacts.len(),
        ARTIFACTS_MAX,
        "files",
    )?;
    for artifact in &result.artifacts {
        within(
            "result.artifacts.path",
            artifact.path.len(),
            PATH_BYTES_MAX,
            "bytes",
        )?;
    }
    if !result.metrics.cpu_avg.is_finite() {
        return Err(FieldError::new("result.metrics.cpu_avg", "not a number", "give cores").into());
    }
    Ok(())
}

/// Copies of the output at peers other than its producer; a failure needs none.
pub(crate) fn result_copies(request: &FinishRequest, producer: &NodeId) -> u32 {
    match (&request.outcome, &request.result.output) {
        (Outcome::Failure(_), _) => u32::MAX,
        (Outcome::Success, Some(output)) => saturate(copies(output, Some(producer))),
        (Outcome::Success, None) => 0,
    }
}

/// The refusal of a success whose result too few peers hold (DESIGN §3.16).
pub(crate) fn result_unvouched(found: u32, needed: u32) -> FieldError {
    FieldError::new(
        "result.output.receipts",
        format!("{found} other peers vouch for the output, {needed} must"),
        "let other peers store the output and add their storage receipts, then finish again",
    )
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many jobs a page of a list holds.
pub(crate) fn page(filter: &JobFilter) -> StoreResult<u32> {
    if filter.limit == 0 {
        return Ok(LIST_DEFAULT);
    }
    between("limit", filter.limit, LIST_MAX)?;
    Ok(filter.limit)
}

pub(crate) fn events(limit: u32) -> StoreResult<()> {
    Ok(between("limit", limit, EVENTS_MAX)?)
}

pub(crate) fn requeue(limit: u32) -> StoreResult<()> {
    Ok(between("limit", limit, REQUEUE_MAX)?)
}
