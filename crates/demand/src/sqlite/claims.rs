//! Claiming and renewing.

use std::collections::BTreeMap;

use mutual_model::guardian::StateHash;
use mutual_model::identity::NodeId;
use mutual_model::ids::{Incarnation, JobId};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::resources::Resources;
use rusqlite::{OptionalExtension as _, Row, named_params};

use super::jobs::namespaces;
use super::rows::{self, document, number, time};
use super::statements as sql;
use super::writer::Work;
use super::{failed, verdicts};
use crate::rules::queue::{self, Packing};
use crate::rules::{SWEEP_BY_CLAIM_MAX, UNLISTED_MAX, UNLISTED_REASON, bounds, rights};
use crate::{
    AttemptEnd, ClaimGrant, ClaimReply, ClaimRequest, ClaimScope, HeldJob, Lost, LostReason, Offer,
    Phase, Principal, RenewReply, RenewRequest, StoreError, StoreResult,
};

pub(super) fn try_claim(
    work: &Work<'_>,
    who: &Principal,
    request: &ClaimRequest,
) -> StoreResult<ClaimReply> {
    let agent = rights::worker(who)?;
    let holder = living(work, agent, request.incarnation)?;
    let grants = if claimed_before(work, holder, request)? {
        granted_before(work, holder, request)?
    } else {
        claim_new(work, who, holder, request)?
    };
    if !grants.is_empty() {
        extend_lease(work, holder)?;
    }
    Ok(ClaimReply {
        grants,
        lease_ms: work.lease_ms(),
        now: work.now,
    })
}

/// The incarnation, unless it was declared dead or superseded.
fn living(work: &Work<'_>, agent: NodeId, incarnation: Incarnation) -> StoreResult<Holder> {
    let holder = Holder { agent, incarnation };
    let params = named_params! {":agent": agent.0, ":incarnation": incarnation.0.as_bytes()};
    let look = || {
        let mut lease = work.db.prepare_cached(sql::LEASE)?;
        let revoked = lease.query_row(params, |row| row.get(0)).optional()?;
        let mut superseded = work.db.prepare_cached(sql::SUPERSEDED)?;
        Ok(revoked.unwrap_or(false) || superseded.exists(params)?)
    };
    if look().map_err(failed)? {
        return Err(StoreError::IncarnationRevoked);
    }
    Ok(holder)
}

fn extend_lease(work: &Work<'_>, holder: Holder) -> StoreResult<()> {
    let params = named_params! {
        ":agent": holder.agent.0,
        ":incarnation": holder.incarnation.0.as_bytes(),
        ":expires_at": time(work.lease_end()),
        ":now": time(work.now),
    };
    let extended = work
        .db
        .prepare_cached(sql::LEASE_EXTEND)
        .and_then(|mut lease| lease.execute(params));
    match extended.map_err(failed)? {
        0 => Err(StoreError::IncarnationRevoked),
        _ => Ok(()),
    }
}

fn claimed_before(work: &Work<'_>, holder: Holder, request: &ClaimRequest) -> StoreResult<bool> {
    let params = named_params! {
        ":nonce": request.nonce.0,
        ":agent": holder.agent.0,
        ":incarnation": holder.incarnation.0.as_bytes(),
    };
    work.db
        .prepare_cached(sql::CLAIMED_BEFORE)
        .and_then(|mut statement| statement.exists(params))
        .map_err(failed)
}

fn granted_before(
    work: &Work<'_>,
    holder: Holder,
    request: &ClaimRequest,
) -> StoreResult<Vec<ClaimGrant>> {
    let params = named_params! {
        ":nonce": request.nonce.0,
        ":agent": holder.agent.0,
        ":incarnation": holder.incarnation.0.as_bytes(),
    };
    let look = || {
        let mut statement = work.db.prepare_cached(sql::GRANTED_BEFORE)?;
        let grants = statement.query_map(params, |row| rows::grant(row, request.nonce))?;
        grants.collect::<rusqlite::Result<Vec<_>>>()
    };
    look().map_err(failed)
}

fn claim_new(
    work: &Work<'_>,
    who: &Principal,
    holder: Holder,
    request: &ClaimRequest,
) -> StoreResult<Vec<ClaimGrant>> {
    let mut chosen = choose(work, who, request)?;
    if chosen.is_empty() && !verdicts::sweep(work, SWEEP_BY_CLAIM_MAX)?.is_empty() {
        // Whoever polls and finds an expired lease may reclaim it (DESIGN §7).
        chosen = choose(work, who, request)?;
    }
    let grants = chosen
        .into_iter()
        .map(|job| assign(work, job, holder, request));
    grants.filter_map(Result::transpose).collect()
}

struct Candidate {
    job: JobId,
    rank: i64,
    need: Resources,
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate {
        job: rows::job_id(row, 0)?,
        rank: row.get(1)?,
        need: Resources {
            cpu_millis: row.get(2)?,
            memory_bytes: rows::unsigned(row, 3)?,
            gpus: row.get(4)?,
            scratch_bytes: rows::unsigned(row, 5)?,
        },
    })
}

/// What fits together into the offer, best rank first.
fn choose(work: &Work<'_>, who: &Principal, request: &ClaimRequest) -> StoreResult<Vec<JobId>> {
    let offer = &request.offer;
    let labels = document(&offer.labels)?;
    let candidates = match &request.scope {
        ClaimScope::Jobs(jobs) => {
            let seen = namespaces(&who.namespaces)?;
            let named = jobs
                .iter()
                .map(|job| named(work, *job, &seen, offer, &labels));
            named
                .filter_map(Result::transpose)
                .collect::<rusqlite::Result<Vec<_>>>()
        }
        ClaimScope::Any => best(work, who, offer, &labels),
    };
    let mut packing = Packing::new(offer);
    let mut taken = Vec::new();
    for candidate in candidates.map_err(failed)? {
        if packing.is_full() {
            break;
        }
        if !taken.contains(&candidate.job) && packing.take(&candidate.need) {
            taken.push(candidate.job);
        }
    }
    Ok(taken)
}

fn named(
    work: &Work<'_>,
    job: JobId,
    seen: &str,
    offer: &Offer,
    labels: &str,
) -> rusqlite::Result<Option<Candidate>> {
    let free = &offer.free;
    let mut statement = work.db.prepare_cached(sql::CANDIDATE)?;
    let params = named_params! {
        ":id": job.0.as_bytes(),
        ":namespaces": seen,
        ":cpu_millis": free.cpu_millis,
        ":memory_bytes": number(free.memory_bytes),
        ":gpus": free.gpus,
        ":scratch_bytes": number(free.scratch_bytes),
        ":classes": queue::class_bits(&offer.classes),
        ":now": time(work.now),
        ":grace": work.is_grace(),
        ":labels": labels,
    };
    statement.query_row(params, candidate).optional()
}

fn best(
    work: &Work<'_>,
    who: &Principal,
    offer: &Offer,
    labels: &str,
) -> rusqlite::Result<Vec<Candidate>> {
    let free = &offer.free;
    let most = queue::candidates(offer.slots);
    let mut statement = work.db.prepare_cached(sql::CANDIDATES)?;
    let mut found = Vec::new();
    for namespace in &who.namespaces {
        let params = named_params! {
            ":namespace": namespace.as_str(),
            ":cpu_millis": free.cpu_millis,
            ":memory_bytes": number(free.memory_bytes),
            ":gpus": free.gpus,
            ":scratch_bytes": number(free.scratch_bytes),
            ":classes": queue::class_bits(&offer.classes),
            ":now": time(work.now),
            ":grace": work.is_grace(),
            ":labels": labels,
            ":limit": most,
        };
        for row in statement.query_map(params, candidate)? {
            found.push(row?);
        }
    }
    found.sort_by_key(|candidate| (candidate.rank, candidate.job));
    Ok(found)
}

fn assign(
    work: &Work<'_>,
    job: JobId,
    holder: Holder,
    request: &ClaimRequest,
) -> StoreResult<Option<ClaimGrant>> {
    let params = named_params! {
        ":epoch": number(work.epoch),
        ":nonce": request.nonce.0,
        ":agent": holder.agent.0,
        ":incarnation": holder.incarnation.0.as_bytes(),
        ":now": time(work.now),
        ":id": job.0.as_bytes(),
    };
    let claim = || {
        let mut statement = work.db.prepare_cached(sql::CLAIM)?;
        let granted = statement
            .query_row(params, |row| rows::grant(row, request.nonce))
            .optional()?;
        let Some(grant) = granted else {
            return Ok(None);
        };
        let fence = grant.claim.fence;
        work.db
            .prepare_cached(sql::ATTEMPT_BEGIN)?
            .execute(named_params! {
                ":job": job.0.as_bytes(),
                ":fence_sequence": number(fence.sequence),
                ":fence_epoch": number(fence.epoch),
                ":nonce": request.nonce.0,
                ":agent": holder.agent.0,
                ":incarnation": holder.incarnation.0.as_bytes(),
                ":agent_url": request.agent_url,
                ":now": time(work.now),
            })?;
        Ok(Some(grant))
    };
    claim().map_err(failed)
}

/// A held job as its row has it.
struct HeldRow {
    claim: Claim,
    state: JobState,
    unlisted: u32,
    checkpoint_wanted: bool,
}

fn held_row(row: &Row<'_>) -> rusqlite::Result<HeldRow> {
    Ok(HeldRow {
        claim: Claim {
            job: rows::job_id(row, 0)?,
            fence: rows::fence(row, 1)?,
            nonce: mutual_model::ids::Nonce(row.get(3)?),
        },
        state: rows::text(row, 4)?,
        unlisted: row.get(5)?,
        checkpoint_wanted: row.get(6)?,
    })
}

pub(super) fn renew(
    work: &Work<'_>,
    agent: NodeId,
    request: &RenewRequest,
) -> StoreResult<RenewReply> {
    let holder = living(work, agent, request.incarnation)?;
    extend_lease(work, holder)?;
    let standing = standing(work, holder).map_err(failed)?;
    let mut reply = RenewReply {
        held: Vec::new(),
        lost: Vec::new(),
        checkpoint_wanted: Vec::new(),
        state: StateHash::of_claims(standing.values().map(|row| &row.claim)),
        lease_ms: work.lease_ms(),
        now: work.now,
    };
    let listed = bounds::listed(request);
    for (claim, held) in &listed {
        match standing.get(&claim.job).filter(|row| row.claim == *claim) {
            Some(row) => keep(work, held, row, &mut reply)?,
            None => reply.lost.push(lost(work, *claim)?),
        }
    }
    if request.complete {
        for row in standing
            .into_values()
            .filter(|row| !listed.contains_key(&row.claim))
        {
            note_unlisted(work, &row)?;
        }
    }
    Ok(reply)
}

fn standing(work: &Work<'_>, holder: Holder) -> rusqlite::Result<BTreeMap<JobId, HeldRow>> {
    let mut statement = work.db.prepare_cached(sql::HELD)?;
    let params = named_params! {
        ":agent": holder.agent.0,
        ":incarnation": holder.incarnation.0.as_bytes(),
    };
    let rows = statement.query_map(params, held_row)?;
    rows.map(|row| row.map(|row| (row.claim.job, row)))
        .collect()
}

fn state_of(phase: Phase) -> JobState {
    match phase {
        Phase::Assigned => JobState::Assigned,
        Phase::Preparing => JobState::Preparing,
        Phase::Running => JobState::Running,
    }
}

fn keep(work: &Work<'_>, held: &HeldJob, row: &HeldRow, reply: &mut RenewReply) -> StoreResult<()> {
    let state = state_of(held.phase).max(row.state);
    if state != row.state || row.unlisted > 0 {
        on_claim(
            work,
            sql::ADVANCE,
            &held.claim,
            &[(":state", &state.name()), (":now", &time(work.now))],
        )?;
    }
    if state == JobState::Running && row.state != JobState::Running {
        work.db
            .prepare_cached(sql::ATTEMPT_START)
            .and_then(|mut statement| {
                statement.execute(named_params! {
                    ":now": time(work.now),
                    ":job": held.claim.job.0.as_bytes(),
                    ":fence_sequence": number(held.claim.fence.sequence),
                })
            })
            .map_err(failed)?;
    }
    reply.held.push(held.claim.job);
    if row.checkpoint_wanted {
        reply.checkpoint_wanted.push(held.claim.job);
    }
    Ok(())
}

/// Runs a statement that holds only while the claim is in force; how many rows it changed.
pub(super) fn on_claim(
    work: &Work<'_>,
    statement: &str,
    claim: &Claim,
    others: &[(&str, &dyn rusqlite::ToSql)],
) -> StoreResult<usize> {
    let (epoch, sequence) = (number(claim.fence.epoch), number(claim.fence.sequence));
    let mut params: Vec<(&str, &dyn rusqlite::ToSql)> = vec![
        (":id", claim.job.0.as_bytes()),
        (":fence_epoch", &epoch),
        (":fence_sequence", &sequence),
        (":nonce", &claim.nonce.0),
    ];
    params.extend_from_slice(others);
    work.db
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(params.as_slice()))
        .map_err(failed)
}

fn lost(work: &Work<'_>, claim: Claim) -> StoreResult<Lost> {
    let Fence { epoch, sequence } = claim.fence;
    let params = named_params! {
        ":job": claim.job.0.as_bytes(),
        ":fence_sequence": number(sequence),
        ":fence_epoch": number(epoch),
        ":nonce": claim.nonce.0,
    };
    let found: Option<(Option<String>, bool)> = work
        .db
        .prepare_cached(sql::LOST_ATTEMPT)
        .and_then(|mut statement| {
            statement
                .query_row(params, |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(failed)?;
    let reason = match found {
        Some((_, true)) => LostReason::Finished,
        Some((Some(ending), false)) if ending == "cancelled" => LostReason::Cancelled,
        _ => LostReason::Fenced,
    };
    Ok(Lost { claim, reason })
}

/// A claim missing from a complete list: its reply may have been lost, or it is on its way.
fn note_unlisted(work: &Work<'_>, row: &HeldRow) -> StoreResult<()> {
    if row.unlisted + 1 < UNLISTED_MAX {
        on_claim(work, sql::UNLIST, &row.claim, &[])?;
        return Ok(());
    }
    super::ends::give_back(work, &row.claim, None, UNLISTED_REASON)?;
    Ok(())
}

/// Ends the record of an attempt.
pub(super) fn end_attempt(
    work: &Work<'_>,
    job: JobId,
    sequence: i64,
    ending: AttemptEnd,
) -> StoreResult<()> {
    let params = named_params! {
        ":now": time(work.now),
        ":ending": rows::name_of(&ending)?,
        ":job": job.0.as_bytes(),
        ":fence_sequence": sequence,
    };
    work.db
        .prepare_cached(sql::ATTEMPT_END)
        .and_then(|mut statement| statement.execute(params))
        .map(drop)
        .map_err(failed)
}
