//! Claiming and renewing.

use std::collections::BTreeMap;

use mutual_model::identity::NodeId;
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Holder};
use mutual_model::resources::Resources;
use tokio_postgres::Row;

use super::ends;
use super::jobs::namespaces;
use super::rows::{self, document, name_of, number};
use super::session::Param;
use super::statements as sql;
use super::verdicts;
use super::work::{Done, Fault, Work};
use crate::rules::queue::{self, Packing};
use crate::rules::{SWEEP_BY_CLAIM_MAX, UNLISTED_MAX, UNLISTED_REASON, rights};
use crate::{
    AttemptEnd, ClaimGrant, ClaimReply, ClaimRequest, ClaimScope, HeldJob, Lost, LostReason, Phase,
    Principal, RenewReply, RenewRequest, StoreError,
};

pub(super) async fn try_claim(
    work: &Work,
    who: &Principal,
    request: &ClaimRequest,
) -> Done<ClaimReply> {
    let agent = rights::worker(who)?;
    let holder = living(work, agent, request.incarnation).await?;
    let grants = if claimed_before(work, holder, request).await? {
        granted_before(work, holder, request).await?
    } else {
        claim_new(work, who, holder, request).await?
    };
    if !grants.is_empty() {
        // Last: it refuses, and undoes the claims, if a verdict came in between.
        extend_lease(work, holder).await?;
    }
    Ok(ClaimReply {
        grants,
        lease_ms: work.lease_ms(),
        now: work.now,
    })
}

/// The incarnation, unless it was declared dead or superseded.
async fn living(work: &Work, agent: NodeId, incarnation: Incarnation) -> Done<Holder> {
    let named: &[(&str, Param<'_>)] = &[
        ("agent", &agent.0.as_slice()),
        ("incarnation", &incarnation.0.as_bytes().as_slice()),
    ];
    let lease = work.first(sql::LEASE, named).await?;
    let is_revoked = lease
        .map(|row| row.try_get(0))
        .transpose()?
        .unwrap_or(false);
    if is_revoked || work.first(sql::SUPERSEDED, named).await?.is_some() {
        return Err(StoreError::IncarnationRevoked.into());
    }
    Ok(Holder { agent, incarnation })
}

async fn extend_lease(work: &Work, holder: Holder) -> Done<()> {
    let extended = work
        .execute(
            sql::LEASE_EXTEND,
            &[
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
                ("expires_at", &work.lease_end()),
                ("now", &work.time()),
            ],
        )
        .await?;
    match extended {
        0 => Err(StoreError::IncarnationRevoked.into()),
        _ => Ok(()),
    }
}

async fn claimed_before(work: &Work, holder: Holder, request: &ClaimRequest) -> Done<bool> {
    let found = work
        .first(
            sql::CLAIMED_BEFORE,
            &[
                ("nonce", &request.nonce.0.as_slice()),
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
            ],
        )
        .await?;
    Ok(found.is_some())
}

async fn granted_before(
    work: &Work,
    holder: Holder,
    request: &ClaimRequest,
) -> Done<Vec<ClaimGrant>> {
    let granted = work
        .query(
            sql::GRANTED_BEFORE,
            &[
                ("nonce", &request.nonce.0.as_slice()),
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
            ],
        )
        .await?;
    granted
        .iter()
        .map(|row| rows::grant(row, request.nonce))
        .collect()
}

async fn claim_new(
    work: &Work,
    who: &Principal,
    holder: Holder,
    request: &ClaimRequest,
) -> Done<Vec<ClaimGrant>> {
    let mut chosen = choose(work, who, request).await?;
    if chosen.is_empty() && !verdicts::sweep(work, SWEEP_BY_CLAIM_MAX).await?.is_empty() {
        // Whoever polls and finds an expired lease may reclaim it (DESIGN §7).
        chosen = choose(work, who, request).await?;
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    assign(work, &chosen, holder, request).await
}

struct Candidate {
    job: JobId,
    rank: i64,
    need: Resources,
}

fn candidate(row: &Row) -> Done<Candidate> {
    Ok(Candidate {
        job: rows::job_id(row, 0)?,
        rank: row.try_get(1)?,
        need: Resources {
            cpu_millis: rows::count(row, 2)?,
            memory_bytes: rows::unsigned(row, 3)?,
            gpus: rows::count(row, 4)?,
            scratch_bytes: rows::unsigned(row, 5)?,
        },
    })
}

/// Locks what fits together into the offer, best rank first, and what was looked at for it.
async fn choose(work: &Work, who: &Principal, request: &ClaimRequest) -> Done<Vec<JobId>> {
    let mut packing = Packing::new(&request.offer);
    let mut taken = Vec::new();
    for candidate in candidates(work, who, request).await? {
        if packing.is_full() {
            break;
        }
        if packing.take(&candidate.need) {
            taken.push(candidate.job);
        }
    }
    Ok(taken)
}

async fn candidates(work: &Work, who: &Principal, request: &ClaimRequest) -> Done<Vec<Candidate>> {
    let offer = &request.offer;
    let labels = document(&offer.labels)?;
    let free = &offer.free;
    let (cpu_millis, memory_bytes) = (i64::from(free.cpu_millis), number(free.memory_bytes));
    let (gpus, scratch_bytes) = (i64::from(free.gpus), number(free.scratch_bytes));
    let classes = i64::from(queue::class_bits(&offer.classes));
    let (now, grace) = (work.time(), work.is_grace());
    let mut named: Vec<(&'static str, Param<'_>)> = vec![
        ("cpu_millis", &cpu_millis),
        ("memory_bytes", &memory_bytes),
        ("gpus", &gpus),
        ("scratch_bytes", &scratch_bytes),
        ("classes", &classes),
        ("now", &now),
        ("grace", &grace),
        ("labels", &labels),
    ];
    let seen = namespaces(&who.namespaces);
    let found = match &request.scope {
        ClaimScope::Jobs(jobs) => {
            let ids: Vec<&[u8]> = jobs.iter().map(|job| job.0.as_bytes().as_slice()).collect();
            named.extend::<[(&'static str, Param<'_>); 2]>([("ids", &ids), ("namespaces", &seen)]);
            work.query(sql::CANDIDATE, &named).await?
        }
        ClaimScope::Any => {
            let limit = i64::from(queue::candidates(offer.slots));
            let mut found = Vec::new();
            for namespace in &seen {
                let mut named = named.clone();
                named.extend::<[(&'static str, Param<'_>); 2]>([
                    ("namespace", namespace),
                    ("limit", &limit),
                ]);
                found.extend(work.query(sql::CANDIDATES, &named).await?);
            }
            found
        }
    };
    let mut found = found.iter().map(candidate).collect::<Done<Vec<_>>>()?;
    found.sort_by_key(|candidate| (candidate.rank, candidate.job));
    Ok(found)
}

async fn assign(
    work: &Work,
    chosen: &[JobId],
    holder: Holder,
    request: &ClaimRequest,
) -> Done<Vec<ClaimGrant>> {
    let ids: Vec<&[u8]> = chosen
        .iter()
        .map(|job| job.0.as_bytes().as_slice())
        .collect();
    let claimed = work
        .query(
            sql::CLAIM,
            &[
                ("ids", &ids),
                ("epoch", &number(work.epoch)),
                ("nonce", &request.nonce.0.as_slice()),
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
                ("now", &work.time()),
            ],
        )
        .await?;
    let grants = claimed.iter().map(|row| rows::grant(row, request.nonce));
    let mut grants = grants.collect::<Done<Vec<_>>>()?;
    grants.sort_by_key(|grant| chosen.iter().position(|job| *job == grant.claim.job));
    begin_attempts(work, &grants, holder, request).await?;
    Ok(grants)
}

async fn begin_attempts(
    work: &Work,
    grants: &[ClaimGrant],
    holder: Holder,
    request: &ClaimRequest,
) -> Done<()> {
    let jobs: Vec<&[u8]> = grants
        .iter()
        .map(|grant| grant.claim.job.0.as_bytes().as_slice())
        .collect();
    let sequences: Vec<i64> = grants
        .iter()
        .map(|grant| number(grant.claim.fence.sequence))
        .collect();
    work.execute(
        sql::ATTEMPT_BEGIN,
        &[
            ("jobs", &jobs),
            ("fence_sequences", &sequences),
            ("fence_epoch", &number(work.epoch)),
            ("nonce", &request.nonce.0.as_slice()),
            ("agent", &holder.agent.0.as_slice()),
            ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
            ("agent_url", &request.agent_url),
            ("now", &work.time()),
        ],
    )
    .await?;
    Ok(())
}

/// A held job as its row has it.
struct HeldRow {
    claim: Claim,
    state: JobState,
    unlisted: u32,
    checkpoint_wanted: bool,
}

fn held_row(row: &Row) -> Done<HeldRow> {
    Ok(HeldRow {
        claim: Claim {
            job: rows::job_id(row, 0)?,
            fence: rows::fence(row, 1)?,
            nonce: Nonce(rows::bytes(row, 3)?),
        },
        state: rows::text(row, 4)?,
        unlisted: rows::count(row, 5)?,
        checkpoint_wanted: row.try_get(6)?,
    })
}

pub(super) async fn renew(work: &Work, agent: NodeId, request: &RenewRequest) -> Done<RenewReply> {
    let holder = living(work, agent, request.incarnation).await?;
    // The lease before its jobs: from here on nobody else ends this incarnation's claims.
    extend_lease(work, holder).await?;
    let mut standing = standing(work, holder).await?;
    let mut reply = RenewReply {
        held: Vec::new(),
        lost: Vec::new(),
        checkpoint_wanted: Vec::new(),
        lease_ms: work.lease_ms(),
        now: work.now,
    };
    let listed: BTreeMap<JobId, HeldJob> = request
        .held
        .iter()
        .map(|held| (held.claim.job, *held))
        .collect();
    for (job, held) in &listed {
        let stands = match standing.remove(job).filter(|row| row.claim == held.claim) {
            Some(row) => keep(work, held, &row, &mut reply).await?,
            None => false,
        };
        if !stands {
            reply.lost.push(lost(work, held.claim).await?);
        }
    }
    if request.complete {
        for row in standing
            .into_values()
            .filter(|row| !listed.contains_key(&row.claim.job))
        {
            note_unlisted(work, &row).await?;
        }
    }
    Ok(reply)
}

async fn standing(work: &Work, holder: Holder) -> Done<BTreeMap<JobId, HeldRow>> {
    let held = work
        .query(
            sql::HELD,
            &[
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
            ],
        )
        .await?;
    held.iter()
        .map(|row| held_row(row).map(|row| (row.claim.job, row)))
        .collect()
}

const fn state_of(phase: Phase) -> JobState {
    match phase {
        Phase::Assigned => JobState::Assigned,
        Phase::Preparing => JobState::Preparing,
        Phase::Running => JobState::Running,
    }
}

/// Moves a job forward; whether its claim still was in force when it came to that.
async fn keep(work: &Work, held: &HeldJob, row: &HeldRow, reply: &mut RenewReply) -> Done<bool> {
    let state = state_of(held.phase).max(row.state);
    if state != row.state || row.unlisted > 0 {
        let name = state.name();
        let changed = on_claim(
            work,
            sql::ADVANCE,
            &held.claim,
            &[("state", &name), ("now", &work.time())],
        )
        .await?;
        if changed == 0 {
            return Ok(false);
        }
    }
    if state == JobState::Running && row.state != JobState::Running {
        work.execute(
            sql::ATTEMPT_START,
            &[
                ("now", &work.time()),
                ("job", &held.claim.job.0.as_bytes().as_slice()),
                ("fence_sequence", &number(held.claim.fence.sequence)),
            ],
        )
        .await?;
    }
    reply.held.push(held.claim.job);
    if row.checkpoint_wanted {
        reply.checkpoint_wanted.push(held.claim.job);
    }
    Ok(true)
}

/// Runs a statement that holds only while the claim is in force; how many rows it changed.
pub(super) async fn on_claim(
    work: &Work,
    statement: &'static str,
    claim: &Claim,
    others: &[(&'static str, Param<'_>)],
) -> Done<u64> {
    let (epoch, sequence) = (number(claim.fence.epoch), number(claim.fence.sequence));
    let (id, nonce) = (claim.job.0.as_bytes().as_slice(), claim.nonce.0.as_slice());
    let mut named: Vec<(&'static str, Param<'_>)> = vec![
        ("id", &id),
        ("fence_epoch", &epoch),
        ("fence_sequence", &sequence),
        ("nonce", &nonce),
    ];
    named.extend_from_slice(others);
    work.execute(statement, &named).await
}

async fn lost(work: &Work, claim: Claim) -> Done<Lost> {
    let found = work
        .first(
            sql::LOST_ATTEMPT,
            &[
                ("job", &claim.job.0.as_bytes().as_slice()),
                ("fence_sequence", &number(claim.fence.sequence)),
                ("fence_epoch", &number(claim.fence.epoch)),
                ("nonce", &claim.nonce.0.as_slice()),
            ],
        )
        .await?;
    let reason = match found {
        Some(row) if row.try_get(1)? => LostReason::Finished,
        Some(row) if row.try_get::<_, Option<&str>>(0)? == Some("cancelled") => {
            LostReason::Cancelled
        }
        _ => LostReason::Fenced,
    };
    Ok(Lost { claim, reason })
}

/// A claim missing from a complete list: its reply may have been lost, or it is on its way.
async fn note_unlisted(work: &Work, row: &HeldRow) -> Done<()> {
    if row.unlisted + 1 < UNLISTED_MAX {
        on_claim(work, sql::UNLIST, &row.claim, &[]).await?;
        return Ok(());
    }
    ends::give_back(work, &row.claim, UNLISTED_REASON).await
}

/// Ends the records of attempts, given with their fences' sequences.
pub(super) async fn end_attempts(
    work: &Work,
    ended: &[(JobId, i64)],
    ending: AttemptEnd,
) -> Result<(), Fault> {
    let jobs: Vec<&[u8]> = ended
        .iter()
        .map(|(job, _)| job.0.as_bytes().as_slice())
        .collect();
    let sequences: Vec<i64> = ended.iter().map(|(_, sequence)| *sequence).collect();
    work.execute(
        sql::ATTEMPTS_END,
        &[
            ("now", &work.time()),
            ("ending", &name_of(&ending)?),
            ("jobs", &jobs),
            ("fence_sequences", &sequences),
        ],
    )
    .await?;
    Ok(())
}
