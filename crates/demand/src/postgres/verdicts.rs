//! Ending other people's claims: verdicts of death and the sweep of what expired.
//!
//! Both lock an incarnation's lease row before its jobs (DESIGN §3.10), as renewals do; so a
//! renewal that was answered is never undone by a sweep that looked earlier.

use mutual_model::ids::{Incarnation, JobId};
use mutual_model::job::JobState;
use mutual_model::lease::Holder;
use mutual_model::time::{UnixMillis, millis};
use tokio_postgres::Row;

use super::claims::end_attempts;
use super::jobs::namespaces;
use super::rows::{self, document, name_of};
use super::session::Param;
use super::statements as sql;
use super::work::{Done, Work};
use crate::rules::swept::Swept;
use crate::rules::{EVENT_MEMORY_MS, LEASE_MEMORY_MS, rights};
use crate::{
    AttemptEnd, Principal, Reason, RequeueReport, Revocation, RevocationReply, Right, StoreError,
    Verdict,
};

pub(super) async fn revoke(
    work: &Work,
    who: &Principal,
    revocation: &Revocation,
) -> Done<RevocationReply> {
    let condemned = condemned(work, revocation).await?;
    for holder in &condemned {
        lock(work, *holder, revocation).await?;
    }
    let mut reply = RevocationReply {
        revoked: false,
        requeued: Vec::new(),
        buried: Vec::new(),
        waiting: Vec::new(),
    };
    let Some(verdict) = vote(work, who, revocation).await? else {
        return Ok(reply);
    };
    reply.revoked = true;
    if verdict == Verdict::Superseded {
        let named: &[(&'static str, Param<'_>)] = &[
            ("agent", &revocation.agent.0.as_slice()),
            ("floor", &revocation.incarnation.0.as_bytes().as_slice()),
        ];
        work.execute(sql::SUPERSEDE, named).await?;
    }
    for holder in condemned {
        end_incarnation(work, who, holder, verdict, &mut reply).await?;
    }
    Ok(reply)
}

/// The incarnations that a verdict is about, in the order in which their leases are locked.
async fn condemned(work: &Work, revocation: &Revocation) -> Done<Vec<Holder>> {
    let agent = revocation.agent;
    if revocation.verdict != Verdict::Superseded {
        let incarnation = revocation.incarnation;
        return Ok(vec![Holder { agent, incarnation }]);
    }
    let earlier = work
        .query(
            sql::INCARNATIONS_BEFORE,
            &[
                ("agent", &agent.0.as_slice()),
                (
                    "incarnation",
                    &revocation.incarnation.0.as_bytes().as_slice(),
                ),
            ],
        )
        .await?;
    let holder = |row: &Row| {
        let incarnation = Incarnation(rows::uuid(row, 0)?);
        Ok(Holder { agent, incarnation })
    };
    let mut earlier = earlier.iter().map(holder).collect::<Done<Vec<_>>>()?;
    earlier.sort();
    Ok(earlier)
}

/// Locks a lease; refuses a verdict of silence against somebody who was heard.
async fn lock(work: &Work, holder: Holder, revocation: &Revocation) -> Done<()> {
    let row = work
        .one(
            sql::LEASE_LOCK,
            &[
                ("agent", &holder.agent.0.as_slice()),
                ("incarnation", &holder.incarnation.0.as_bytes().as_slice()),
                ("now", &work.time()),
            ],
        )
        .await?;
    let heard_ms_ago = millis(work.now.since(UnixMillis(rows::unsigned(&row, 1)?)));
    let is_judged_by_silence =
        revocation.verdict != Verdict::Superseded && !row.try_get::<_, bool>(0)?;
    if is_judged_by_silence && heard_ms_ago < revocation.silent_ms {
        return Err(StoreError::HeardFrom { heard_ms_ago }.into());
    }
    Ok(())
}

/// Records a vote; the verdict, if enough agree: the mildest of those that count.
async fn vote(work: &Work, who: &Principal, revocation: &Revocation) -> Done<Option<Verdict>> {
    let oldest = rows::time(UnixMillis(work.now.0.saturating_sub(work.lease_ms())));
    let agent = revocation.agent.0.as_slice();
    let incarnation = revocation.incarnation.0.as_bytes().as_slice();
    let added = work
        .execute(
            sql::VERDICT_ADD,
            &[
                ("nonce", &revocation.nonce.0.as_slice()),
                ("agent", &agent),
                ("incarnation", &incarnation),
                ("voter", &rights::voter(who)),
                ("verdict", &name_of(&revocation.verdict)?),
                ("now", &work.time()),
            ],
        )
        .await?;
    if added == 0 {
        return Err(StoreError::Conflict("this verdict was passed before".into()).into());
    }
    if rights::judges_alone(who, revocation) {
        return Ok(Some(revocation.verdict));
    }
    let named: &[(&'static str, Param<'_>)] = &[
        ("agent", &agent),
        ("incarnation", &incarnation),
        ("oldest", &oldest),
    ];
    let row = work.one(sql::VERDICT_VOTES, named).await?;
    let agreed = if row.try_get(1)? {
        Verdict::Closed
    } else {
        Verdict::Silent
    };
    Ok((rows::count(&row, 0)? >= work.config.quorum).then_some(agreed))
}

async fn end_incarnation(
    work: &Work,
    who: &Principal,
    holder: Holder,
    verdict: Verdict,
    reply: &mut RevocationReply,
) -> Done<()> {
    let agent = holder.agent.0.as_slice();
    let incarnation = holder.incarnation.0.as_bytes().as_slice();
    let named: &[(&'static str, Param<'_>)] = &[
        ("agent", &agent),
        ("incarnation", &incarnation),
        ("now", &work.time()),
    ];
    work.execute(sql::LEASE_REVOKE, named).await?;
    // Claims of namespaces that the judge does not see end by expiry.
    let (everywhere, seen) = (
        rights::has(who, Right::Operate),
        namespaces(&who.namespaces),
    );
    let lost = work
        .query(
            sql::LOSE_ALL,
            &[
                ("reason", &document(&Reason::HolderLost)?),
                ("now", &work.time()),
                ("agent", &agent),
                ("incarnation", &incarnation),
                ("spare_exclusive", &(verdict == Verdict::Silent)),
                ("everywhere", &everywhere),
                ("namespaces", &seen),
            ],
        )
        .await?;
    let mut losses = lost.iter().map(loss).collect::<Done<Vec<_>>>()?;
    losses.sort();
    record_losses(work, &losses, AttemptEnd::Revoked).await?;
    for (job, _, state) in losses {
        match state {
            JobState::Queued => reply.requeued.push(job),
            _ => reply.buried.push(job),
        }
    }
    if verdict == Verdict::Silent {
        let named: &[(&'static str, Param<'_>)] = &[
            ("agent", &agent),
            ("incarnation", &incarnation),
            ("everywhere", &everywhere),
            ("namespaces", &seen),
        ];
        for row in work.query(sql::SPARED, named).await? {
            reply.waiting.push(rows::job_id(&row, 0)?);
        }
    }
    Ok(())
}

type Loss = (JobId, i64, JobState);

fn loss(row: &Row) -> Done<Loss> {
    Ok((rows::job_id(row, 0)?, row.try_get(1)?, rows::text(row, 2)?))
}

async fn record_losses(work: &Work, losses: &[Loss], ending: AttemptEnd) -> Done<()> {
    if losses.is_empty() {
        return Ok(());
    }
    let ended: Vec<_> = losses
        .iter()
        .map(|(job, fence, _)| (*job, *fence))
        .collect();
    end_attempts(work, &ended, ending).await
}

/// Ends what is over by the store's clock; nothing during grace.
pub(super) async fn sweep(work: &Work, limit: u32) -> Done<Swept> {
    let mut swept = Swept::default();
    if work.is_grace() {
        return Ok(swept);
    }
    let named: &[(&'static str, Param<'_>)] =
        &[("now", &work.time()), ("limit", &i64::from(limit))];
    for row in work.query(sql::LEASES_DUE, named).await? {
        let left = limit.saturating_sub(u32::try_from(swept.lost.len()).unwrap_or(u32::MAX));
        if left > 0 {
            sweep_lease(work, &row, left, &mut swept).await?;
        }
    }
    let reason = document(&Reason::WaitedTooLong)?;
    let named: &[(&'static str, Param<'_>)] = &[
        ("reason", &reason),
        ("now", &work.time()),
        ("limit", &i64::from(limit)),
    ];
    for row in work.query(sql::WAITED_OUT, named).await? {
        swept
            .expired
            .push((rows::job_id(&row, 0)?, rows::text(&row, 1)?));
    }
    Ok(swept)
}

async fn sweep_lease(work: &Work, lease: &Row, limit: u32, swept: &mut Swept) -> Done<()> {
    let agent: &[u8] = lease.try_get(0)?;
    let incarnation: &[u8] = lease.try_get(1)?;
    let lost = work
        .query(
            sql::LOSE_DUE,
            &[
                ("reason", &document(&Reason::HolderLost)?),
                ("now", &work.time()),
                ("agent", &agent),
                ("incarnation", &incarnation),
                ("limit", &i64::from(limit)),
            ],
        )
        .await?;
    let losses = lost.iter().map(loss).collect::<Done<Vec<_>>>()?;
    record_losses(work, &losses, AttemptEnd::LeaseExpired).await?;
    for (row, (job, _, state)) in lost.iter().zip(losses) {
        swept.lost.push((job, rows::text(row, 3)?, state));
    }
    Ok(())
}

pub(super) async fn requeue(work: &Work, who: &Principal, limit: u32) -> Done<RequeueReport> {
    let swept = sweep(work, limit).await?;
    forget(work).await?;
    let next_ms = next_expiry_ms(work).await?;
    Ok(swept.report(who, next_ms))
}

/// Lets go of what is too old to matter, a little at a time.
async fn forget(work: &Work) -> Done<()> {
    let before = |memory_ms| rows::time(UnixMillis(work.now.0.saturating_sub(memory_ms)));
    for (statement, oldest) in [
        (sql::FORGET_LEASES, before(LEASE_MEMORY_MS)),
        (sql::FORGET_VERDICTS, before(EVENT_MEMORY_MS)),
        (sql::FORGET_EVENTS, before(EVENT_MEMORY_MS)),
    ] {
        work.execute(statement, &[("oldest", &oldest)]).await?;
    }
    Ok(())
}

async fn next_expiry_ms(work: &Work) -> Done<u64> {
    let row = work.one(sql::NEXT_EXPIRY, &[]).await?;
    let first: Option<i64> = row.try_get(0)?;
    let first = first.unwrap_or(work.lease_end());
    let first = UnixMillis(u64::try_from(first).unwrap_or(0)).max(work.grace_until);
    Ok(millis(first.since(work.now)).min(work.lease_ms()))
}
