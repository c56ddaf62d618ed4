//! Claiming and renewing.

use std::collections::BTreeMap;

use mutual_model::guardian::StateHash;
use mutual_model::identity::NodeId;
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Holder};
use mutual_model::resources::Resources;
use mutual_model::time::{UnixMillis, millis};
use tokio_postgres::Row;

use super::ends;
use super::jobs::namespaces;
use super::pool::Pool;
use super::rows::{self, document, name_of, number};
use super::session::Param;
use super::statements as sql;
use super::verdicts;
use super::work::{self, Done, Fault, Work};
use crate::rules::queue::{self, Packing};
use crate::rules::{SWEEP_BY_CLAIM_MAX, UNLISTED_MAX, UNLISTED_REASON, bounds, rights};
use crate::{
    AttemptEnd, ClaimGrant, ClaimReply, ClaimRequest, ClaimScope, HeldJob, Lost, LostReason, Phase,
    Principal, RenewReply, RenewRequest, StoreError, StoreResult,
};

/// Claims what fits into the offer.
pub(super) async fn claim(
    pool: &Pool,
    who: Principal,
    request: ClaimRequest,
) -> StoreResult<ClaimReply> {
    if let Some(reply) = claim_one(pool, &who, &request).await? {
        return Ok(reply);
    }
    work::transact(pool, &(who, request), |work, (who, request)| {
        Box::pin(try_claim(work, who, request))
    })
    .await
}

/// Claims in a single round trip where at most one job is wanted, of one namespace or by name. `None` if none was found,
/// or if something has to be looked into: a repeated request, an incarnation that was declared dead.
async fn claim_one(
    pool: &Pool,
    who: &Principal,
    request: &ClaimRequest,
) -> StoreResult<Option<ClaimReply>> {
    let agent = rights::worker(who)?;
    let offered = Offered::new(who, request)?;
    let (statement, mut named) = match (&request.scope, offered.seen.as_slice()) {
        (ClaimScope::Jobs(jobs), _) if jobs.len() == 1 || request.offer.slots == 1 => {
            (sql::CLAIM_BEST_OF_THESE, offered.among_these())
        }
        (ClaimScope::Any, [namespace]) if request.offer.slots == 1 => {
            (sql::CLAIM_BEST, offered.of_namespace(namespace))
        }
        _ => return Ok(None),
    };
    let lease_ms = millis(pool.config.terms.lease());
    let (agent, nonce) = (agent.0.as_slice(), request.nonce.0.as_slice());
    let (incarnation, lease) = (
        request.incarnation.0.as_bytes().as_slice(),
        number(lease_ms),
    );
    named.extend::<[(&'static str, Param<'_>); 5]>([
        ("nonce", &nonce),
        ("agent", &agent),
        ("incarnation", &incarnation),
        ("agent_url", &request.agent_url),
        ("lease_ms", &lease),
    ]);
    let rows = work::alone(pool, statement, &named).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let read = |row| Ok((rows::grant(row, request.nonce)?, rows::unsigned(row, 9)?));
    let (grant, now) = read(row).map_err(Fault::refusal)?;
    Ok(Some(ClaimReply {
        grants: vec![grant],
        lease_ms,
        now: UnixMillis(now),
    }))
}

async fn try_claim(work: &Work, who: &Principal, request: &ClaimRequest) -> Done<ClaimReply> {
    let agent = rights::worker(who)?;
    // All are sent before any is answered: one round trip.
    let (holder, was_claimed, chosen) = futures::join!(
        living(work, agent, request.incarnation),
        claimed_before(work, agent, request),
        choose(work, who, request),
    );
    let holder = holder?;
    let grants = if was_claimed? {
        granted_before(work, holder, request).await?
    } else {
        claim_new(work, who, holder, request, chosen?).await?
    };
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
    if work.one(sql::LIVING, named).await?.try_get(0)? {
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

async fn claimed_before(work: &Work, agent: NodeId, request: &ClaimRequest) -> Done<bool> {
    let found = work
        .first(
            sql::CLAIMED_BEFORE,
            &[
                ("nonce", &request.nonce.0.as_slice()),
                ("agent", &agent.0.as_slice()),
                ("incarnation", &request.incarnation.0.as_bytes().as_slice()),
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
    let grants = granted.iter().map(|row| rows::grant(row, request.nonce));
    let grants = grants.collect::<Done<Vec<_>>>()?;
    if !grants.is_empty() {
        extend_lease(work, holder).await?;
    }
    Ok(grants)
}

async fn claim_new(
    work: &Work,
    who: &Principal,
    holder: Holder,
    request: &ClaimRequest,
    mut chosen: Vec<JobId>,
) -> Done<Vec<ClaimGrant>> {
    if chosen.is_empty() && !verdicts::sweep(work, SWEEP_BY_CLAIM_MAX).await?.is_empty() {
        // Whoever polls and finds an expired lease may reclaim it (DESIGN §7).
        chosen = choose(work, who, request).await?;
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    // The lease refuses, and undoes the claims, if a verdict came in between.
    let (grants, extended) = futures::join!(
        assign(work, &chosen, holder, request),
        extend_lease(work, holder)
    );
    let grants = grants?;
    extended?;
    Ok(grants)
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

/// Locks what fits together into the offer, best rank first. Looks at no more than there are slots
/// unless those do not fit together: what is locked, nobody else can take meanwhile.
async fn choose(work: &Work, who: &Principal, request: &ClaimRequest) -> Done<Vec<JobId>> {
    let slots = request.offer.slots;
    let found = candidates(work, who, request, slots).await?;
    let (taken, is_full) = packed(request, &found);
    if is_full || found.len() < slots as usize {
        return Ok(taken);
    }
    let found = candidates(work, who, request, queue::candidates(slots)).await?;
    Ok(packed(request, &found).0)
}

/// What fits together into the offer, and whether that fills it.
fn packed(request: &ClaimRequest, candidates: &[Candidate]) -> (Vec<JobId>, bool) {
    let mut packing = Packing::new(&request.offer);
    let fitting = candidates
        .iter()
        .filter(|candidate| packing.take(&candidate.need));
    let taken = fitting.map(|candidate| candidate.job).collect();
    (taken, packing.is_full())
}

/// What is offered, and to whom jobs may belong, as statements take them.
struct Offered<'a> {
    labels: String,
    cpu_millis: i64,
    memory_bytes: i64,
    gpus: i64,
    scratch_bytes: i64,
    classes: i64,
    /// Jobs that are asked for by name.
    ids: Vec<&'a [u8]>,
    seen: Vec<&'a str>,
}

impl<'a> Offered<'a> {
    fn new(who: &'a Principal, request: &'a ClaimRequest) -> StoreResult<Self> {
        let (offer, free) = (&request.offer, &request.offer.free);
        let ids = match &request.scope {
            ClaimScope::Jobs(jobs) => jobs.iter().map(|job| &job.0.as_bytes()[..]).collect(),
            ClaimScope::Any => Vec::new(),
        };
        Ok(Self {
            labels: document(&offer.labels)?,
            cpu_millis: free.cpu_millis.into(),
            memory_bytes: number(free.memory_bytes),
            gpus: free.gpus.into(),
            scratch_bytes: number(free.scratch_bytes),
            classes: queue::class_bits(&offer.classes).into(),
            ids,
            seen: namespaces(&who.namespaces),
        })
    }

    fn named(&self) -> Vec<(&'static str, Param<'_>)> {
        vec![
            ("cpu_millis", &self.cpu_millis),
            ("memory_bytes", &self.memory_bytes),
            ("gpus", &self.gpus),
            ("scratch_bytes", &self.scratch_bytes),
            ("classes", &self.classes),
            ("labels", &self.labels),
        ]
    }

    fn among_these(&self) -> Vec<(&'static str, Param<'_>)> {
        let mut named = self.named();
        named.push(("ids", &self.ids));
        named.push(("namespaces", &self.seen));
        named
    }

    fn of_namespace<'b>(&'b self, namespace: &'b &str) -> Vec<(&'static str, Param<'b>)> {
        let mut named = self.named();
        named.push(("namespace", namespace));
        named
    }
}

/// The best jobs that each would fit into the offer, at most so many of a namespace; locked.
async fn candidates(
    work: &Work,
    who: &Principal,
    request: &ClaimRequest,
    most: u32,
) -> Done<Vec<Candidate>> {
    let offered = Offered::new(who, request)?;
    let (now, grace, limit) = (work.time(), work.is_grace(), i64::from(most));
    let at: [(&'static str, Param<'_>); 2] = [("now", &now), ("grace", &grace)];
    let mut found = Vec::new();
    if let ClaimScope::Jobs(_) = &request.scope {
        let mut named = offered.among_these();
        named.extend(at);
        found.extend(work.query(sql::CANDIDATE, &named).await?);
    } else {
        for namespace in &offered.seen {
            let mut named = offered.of_namespace(namespace);
            named.extend(at);
            named.push(("limit", &limit));
            found.extend(work.query(sql::CANDIDATES, &named).await?);
        }
    }
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
                ("agent_url", &request.agent_url),
                ("now", &work.time()),
            ],
        )
        .await?;
    let grants = claimed.iter().map(|row| rows::grant(row, request.nonce));
    let mut grants = grants.collect::<Done<Vec<_>>>()?;
    let place: BTreeMap<_, _> = chosen.iter().zip(0_usize..).collect();
    grants.sort_by_key(|grant| place.get(&grant.claim.job).copied());
    Ok(grants)
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
    let standing = standing(work, holder).await?;
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
        let stands = match standing.get(&claim.job).filter(|row| row.claim == *claim) {
            Some(row) => keep(work, held, row, &mut reply).await?,
            None => false,
        };
        if !stands {
            reply.lost.push(lost(work, *claim).await?);
        }
    }
    if request.complete {
        for row in standing
            .into_values()
            .filter(|row| !listed.contains_key(&row.claim))
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
