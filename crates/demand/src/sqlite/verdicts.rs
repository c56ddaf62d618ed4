//! Ending other people's claims: verdicts of death and the sweep of what expired.

use mutual_model::ids::{Incarnation, JobId, Namespace};
use mutual_model::job::JobState;
use mutual_model::lease::Holder;
use mutual_model::time::{UnixMillis, millis};
use rusqlite::{OptionalExtension as _, named_params};
use uuid::Uuid;

use super::claims::end_attempt;
use super::failed;
use super::jobs::namespaces;
use super::rows::{self, document, name_of, time};
use super::statements as sql;
use super::writer::Work;
use crate::rules::swept::Swept;
use crate::rules::{EVENT_MEMORY_MS, LEASE_MEMORY_MS, rights};
use crate::{
    AttemptEnd, Principal, Reason, RequeueReport, Revocation, RevocationReply, Right, StoreError,
    StoreResult, Verdict,
};

pub(super) fn revoke(
    work: &Work<'_>,
    who: &Principal,
    revocation: &Revocation,
) -> StoreResult<RevocationReply> {
    check_unused(work, revocation)?;
    let condemned = condemned(work, revocation).map_err(failed)?;
    if revocation.verdict != Verdict::Superseded {
        check_silence(work, &condemned, revocation.silent_ms)?;
    }
    let mut reply = RevocationReply {
        revoked: false,
        requeued: Vec::new(),
        buried: Vec::new(),
        waiting: Vec::new(),
    };
    let Some(verdict) = vote(work, who, revocation)? else {
        return Ok(reply);
    };
    reply.revoked = true;
    if verdict == Verdict::Superseded {
        supersede(work, revocation).map_err(failed)?;
    }
    for holder in condemned {
        end_incarnation(work, who, holder, verdict, &mut reply)?;
    }
    Ok(reply)
}

fn check_unused(work: &Work<'_>, revocation: &Revocation) -> StoreResult<()> {
    let used = work
        .db
        .prepare_cached(sql::VERDICT_USED)
        .and_then(|mut statement| statement.exists(named_params! {":nonce": revocation.nonce.0}))
        .map_err(failed)?;
    if used {
        return Err(StoreError::Conflict(
            "this verdict was passed before".into(),
        ));
    }
    Ok(())
}

/// The incarnations that a verdict is about.
fn condemned(work: &Work<'_>, revocation: &Revocation) -> rusqlite::Result<Vec<Holder>> {
    let agent = revocation.agent;
    if revocation.verdict != Verdict::Superseded {
        let incarnation = revocation.incarnation;
        return Ok(vec![Holder { agent, incarnation }]);
    }
    let mut statement = work.db.prepare_cached(sql::INCARNATIONS_BEFORE)?;
    let params = named_params! {
        ":agent": agent.0,
        ":incarnation": revocation.incarnation.0.as_bytes(),
    };
    let earlier = statement.query_map(params, |row| {
        let incarnation = Incarnation(Uuid::from_bytes(row.get(0)?));
        Ok(Holder { agent, incarnation })
    })?;
    earlier.collect()
}

fn check_silence(work: &Work<'_>, condemned: &[Holder], silent_ms: u64) -> StoreResult<()> {
    let mut statement = work.db.prepare_cached(sql::LEASE).map_err(failed)?;
    for holder in condemned {
        let params = named_params! {
            ":agent": holder.agent.0,
            ":incarnation": holder.incarnation.0.as_bytes(),
        };
        let lease: Option<(bool, u64)> = statement
            .query_row(params, |row| Ok((row.get(0)?, rows::unsigned(row, 1)?)))
            .optional()
            .map_err(failed)?;
        let Some((false, heard_at)) = lease else {
            continue;
        };
        let heard_ms_ago = millis(work.now.since(UnixMillis(heard_at)));
        if heard_ms_ago < silent_ms {
            return Err(StoreError::HeardFrom { heard_ms_ago });
        }
    }
    Ok(())
}

/// Records a vote; the verdict, if enough agree: the mildest of those that count.
fn vote(work: &Work<'_>, who: &Principal, revocation: &Revocation) -> StoreResult<Option<Verdict>> {
    let verdict = name_of(&revocation.verdict)?;
    let oldest = UnixMillis(work.now.0.saturating_sub(work.lease_ms()));
    let count = || {
        let (agent, incarnation) = (revocation.agent.0, revocation.incarnation.0.into_bytes());
        work.db
            .prepare_cached(sql::VERDICT_ADD)?
            .execute(named_params! {
                ":nonce": revocation.nonce.0,
                ":agent": agent,
                ":incarnation": incarnation,
                ":voter": rights::voter(who),
                ":verdict": verdict,
                ":now": time(work.now),
            })?;
        work.db.prepare_cached(sql::VERDICT_VOTES)?.query_row(
            named_params! {
                ":agent": agent,
                ":incarnation": incarnation,
                ":oldest": time(oldest),
            },
            |row| Ok((row.get::<_, u32>(0)?, row.get::<_, bool>(1)?)),
        )
    };
    let (votes, all_closed) = count().map_err(failed)?;
    if rights::judges_alone(who, revocation) {
        return Ok(Some(revocation.verdict));
    }
    let agreed = if all_closed {
        Verdict::Closed
    } else {
        Verdict::Silent
    };
    Ok((votes >= work.config.quorum).then_some(agreed))
}

fn supersede(work: &Work<'_>, revocation: &Revocation) -> rusqlite::Result<()> {
    let mut statement = work.db.prepare_cached(sql::SUPERSEDE)?;
    let params = named_params! {
        ":agent": revocation.agent.0,
        ":floor": revocation.incarnation.0.as_bytes(),
    };
    statement.execute(params).map(drop)
}

fn end_incarnation(
    work: &Work<'_>,
    who: &Principal,
    holder: Holder,
    verdict: Verdict,
    reply: &mut RevocationReply,
) -> StoreResult<()> {
    let (agent, incarnation) = (holder.agent.0, holder.incarnation.0.into_bytes());
    // The lease before its jobs (DESIGN §3.10).
    work.db
        .prepare_cached(sql::LEASE_REVOKE)
        .and_then(|mut statement| {
            statement.execute(named_params! {
                ":agent": agent,
                ":incarnation": incarnation,
                ":now": time(work.now),
            })
        })
        .map_err(failed)?;
    for (job, fence, state) in lose_all(work, who, holder, verdict)? {
        end_attempt(work, job, fence, AttemptEnd::Revoked)?;
        match state {
            JobState::Queued => reply.requeued.push(job),
            _ => reply.buried.push(job),
        }
    }
    if verdict == Verdict::Silent {
        reply.waiting.extend(spared(work, who, holder)?);
    }
    Ok(())
}

type Loss = (JobId, i64, JobState);

fn lose_all(
    work: &Work<'_>,
    who: &Principal,
    holder: Holder,
    verdict: Verdict,
) -> StoreResult<Vec<Loss>> {
    let reason = document(&Reason::HolderLost)?;
    // Claims of namespaces that the judge does not see end by expiry.
    let seen = namespaces(&who.namespaces)?;
    let lose = || {
        let mut statement = work.db.prepare_cached(sql::LOSE_ALL)?;
        let params = named_params! {
            ":reason": reason,
            ":now": time(work.now),
            ":agent": holder.agent.0,
            ":incarnation": holder.incarnation.0.as_bytes(),
            ":spare_exclusive": verdict == Verdict::Silent,
            ":everywhere": rights::has(who, Right::Operate),
            ":namespaces": seen,
        };
        let lost = statement.query_map(params, |row| {
            Ok((rows::job_id(row, 0)?, row.get(1)?, rows::text(row, 2)?))
        })?;
        let mut lost = lost.collect::<rusqlite::Result<Vec<Loss>>>()?;
        lost.sort();
        Ok(lost)
    };
    lose().map_err(failed)
}

fn spared(work: &Work<'_>, who: &Principal, holder: Holder) -> StoreResult<Vec<JobId>> {
    let seen = namespaces(&who.namespaces)?;
    let look = || {
        let mut statement = work.db.prepare_cached(sql::SPARED)?;
        let params = named_params! {
            ":agent": holder.agent.0,
            ":incarnation": holder.incarnation.0.as_bytes(),
            ":everywhere": rights::has(who, Right::Operate),
            ":namespaces": seen,
        };
        let jobs = statement.query_map(params, |row| rows::job_id(row, 0))?;
        jobs.collect::<rusqlite::Result<Vec<_>>>()
    };
    look().map_err(failed)
}

/// Ends what is over by the store's clock; nothing during grace.
pub(super) fn sweep(work: &Work<'_>, limit: u32) -> StoreResult<Swept> {
    if work.is_grace() {
        return Ok(Swept::default());
    }
    Ok(Swept {
        lost: sweep_leases(work, limit)?,
        expired: sweep_waits(work, limit)?,
    })
}

fn sweep_leases(work: &Work<'_>, limit: u32) -> StoreResult<Vec<(JobId, Namespace, JobState)>> {
    let due = || {
        let mut statement = work.db.prepare_cached(sql::LEASE_EXPIRED)?;
        let params = named_params! {":now": time(work.now), ":limit": limit};
        let rows = statement.query_map(params, |row| {
            Ok((rows::job_id(row, 0)?, rows::text(row, 1)?, row.get(2)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<(JobId, Namespace, i64)>>>()
    };
    let mut swept = Vec::new();
    for (job, namespace, fence) in due().map_err(failed)? {
        if let Some(state) = lose(work, job, fence)? {
            end_attempt(work, job, fence, AttemptEnd::LeaseExpired)?;
            swept.push((job, namespace, state));
        }
    }
    Ok(swept)
}

fn lose(work: &Work<'_>, job: JobId, fence: i64) -> StoreResult<Option<JobState>> {
    let reason = document(&Reason::HolderLost)?;
    let params = named_params! {
        ":reason": reason,
        ":now": time(work.now),
        ":id": job.0.as_bytes(),
        ":fence_sequence": fence,
    };
    work.db
        .prepare_cached(sql::LOSE)
        .and_then(|mut statement| {
            statement
                .query_row(params, |row| rows::text(row, 0))
                .optional()
        })
        .map_err(failed)
}

fn sweep_waits(work: &Work<'_>, limit: u32) -> StoreResult<Vec<(JobId, Namespace)>> {
    let reason = document(&Reason::WaitedTooLong)?;
    let expire = || {
        let mut statement = work.db.prepare_cached(sql::WAITED_OUT)?;
        let params = named_params! {":reason": reason, ":now": time(work.now), ":limit": limit};
        let rows = statement.query_map(params, |row| {
            Ok((rows::job_id(row, 0)?, rows::text(row, 1)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    expire().map_err(failed)
}

pub(super) fn requeue(work: &Work<'_>, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
    let swept = sweep(work, limit)?;
    forget(work).map_err(failed)?;
    let next_ms = next_expiry_ms(work).map_err(failed)?;
    Ok(swept.report(who, next_ms))
}

/// Lets go of what is too old to matter, a little at a time.
fn forget(work: &Work<'_>) -> rusqlite::Result<()> {
    let before = |memory_ms| time(UnixMillis(work.now.0.saturating_sub(memory_ms)));
    for (statement, oldest) in [
        (sql::FORGET_LEASES, before(LEASE_MEMORY_MS)),
        (sql::FORGET_VERDICTS, before(EVENT_MEMORY_MS)),
        (sql::FORGET_EVENTS, before(EVENT_MEMORY_MS)),
    ] {
        work.db
            .prepare_cached(statement)?
            .execute(named_params! {":oldest": oldest})?;
    }
    Ok(())
}

fn next_expiry_ms(work: &Work<'_>) -> rusqlite::Result<u64> {
    let first: Option<i64> = work
        .db
        .prepare_cached(sql::NEXT_EXPIRY)?
        .query_row([], |row| row.get(0))?;
    let first = first.map_or(work.lease_end(), |at| {
        UnixMillis(u64::try_from(at).unwrap_or(0))
    });
    let due = millis(first.max(work.grace_until).since(work.now));
    Ok(due.min(work.lease_ms()))
}
