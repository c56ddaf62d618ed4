//! Calls of a store and their answers in the words of [`mutual_model::history`].
//!
//! Whoever stands between a caller and a store, in a test or a simulation, notes what these give.

use mutual_model::history::{Answer, Deed, Digest, Finish, Granted, Ground, Sight};
use mutual_model::identity::NodeId;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::lease::{Claim, Holder};

use crate::rules::{bounds, digest};
use crate::{
    CheckpointReport, ClaimReply, ClaimRequest, Disposition, FinishReply, FinishRequest, JobView,
    Outcome, ReleaseRequest, RenewReply, RenewRequest, RequeueReport, Revocation, RevocationReply,
    StoreError, StoreResult, Submission, Verdict,
};

fn answer<T, U>(outcome: &StoreResult<T>, done: impl FnOnce(&T) -> U) -> Answer<U> {
    match outcome {
        Ok(value) => Answer::Done(done(value)),
        Err(StoreError::Unknown(_)) => Answer::Unknown,
        Err(_) => Answer::Refused,
    }
}

/// One of the tasks of a submission, and its job.
///
/// # Errors
/// [`StoreError::Internal`] if the task cannot be digested.
pub fn submit(task: &Submission, outcome: &StoreResult<JobId>) -> StoreResult<Deed> {
    Ok(Deed::Submit {
        namespace: task.namespace.clone(),
        key: task.client_key.clone(),
        payload: Digest(digest::submission(task)?),
        answer: answer(outcome, |job| *job),
    })
}

/// A claim of an agent.
pub fn claim(agent: NodeId, request: &ClaimRequest, outcome: &StoreResult<ClaimReply>) -> Deed {
    Deed::Claim {
        holder: Holder {
            agent,
            incarnation: request.incarnation,
        },
        nonce: request.nonce,
        answer: answer(outcome, granted),
    }
}

fn granted(reply: &ClaimReply) -> Vec<Granted> {
    let grants = reply.grants.iter().map(|grant| Granted {
        claim: grant.claim,
        resume: grant
            .checkpoints
            .iter()
            .map(|kept| (kept.fence, kept.sequence))
            .collect(),
    });
    grants.collect()
}

/// A renewal of an agent.
pub fn renew(agent: NodeId, request: &RenewRequest, outcome: &StoreResult<RenewReply>) -> Deed {
    Deed::Renew {
        holder: Holder {
            agent,
            incarnation: request.incarnation,
        },
        listed: request.held.iter().map(|held| held.claim).collect(),
        complete: request.complete,
        answer: answer(outcome, |reply| kept(request, reply)),
    }
}

/// Claims that were listed and stand.
fn kept(request: &RenewRequest, reply: &RenewReply) -> Vec<Claim> {
    let listed = request.held.iter().map(|held| held.claim);
    let kept = listed.filter(|claim| {
        let is_lost = reply.lost.iter().any(|lost| lost.claim == *claim);
        reply.held.contains(&claim.job) && !is_lost
    });
    kept.collect()
}

/// A reported checkpoint.
pub fn checkpoint(report: &CheckpointReport, outcome: &StoreResult<()>) -> Deed {
    Deed::Checkpoint {
        claim: report.claim,
        sequence: report.sequence,
        answer: answer(outcome, |()| ()),
    }
}

/// A claim given back.
pub fn release(request: &ReleaseRequest, outcome: &StoreResult<()>) -> Deed {
    Deed::Release {
        claim: request.claim,
        answer: answer(outcome, |()| ()),
    }
}

/// The end of an attempt whose result needs `copies_needed` copies.
///
/// # Errors
/// [`StoreError::Internal`] if the finish cannot be digested.
pub fn finish(
    agent: NodeId,
    request: &FinishRequest,
    copies_needed: u32,
    outcome: &StoreResult<FinishReply>,
) -> StoreResult<Deed> {
    let over = |reply: &FinishReply| (reply.disposition == Disposition::Ended, reply.state);
    Ok(Deed::Finish(Finish {
        claim: request.claim,
        digest: Digest(digest::finish(request)?),
        result: Digest(digest::result(&request.result)?),
        success: request.outcome == Outcome::Success,
        copies: bounds::result_copies(request, &agent),
        copies_needed,
        answer: answer(outcome, over),
    }))
}

/// The end of a job by its user.
pub fn cancel(job: JobId, outcome: &StoreResult<JobView>) -> Deed {
    Deed::Cancel {
        job,
        answer: answer(outcome, |view| view.state),
    }
}

/// A verdict.
pub fn revoke(revocation: &Revocation, outcome: &StoreResult<RevocationReply>) -> Deed {
    let ground = match revocation.verdict {
        Verdict::Closed => Ground::Closed,
        Verdict::Silent => Ground::Silent,
        Verdict::Superseded => Ground::Superseded,
    };
    Deed::Revoke {
        agent: revocation.agent,
        incarnation: revocation.incarnation,
        ground: Some(ground),
        answer: answer(outcome, |reply| reply.revoked),
    }
}

/// A sweep of what expired.
pub fn requeue(outcome: &StoreResult<RequeueReport>) -> Deed {
    let lost = |report: &RequeueReport| {
        let lost = report.requeued.iter().chain(&report.buried);
        lost.chain(&report.expired).copied().collect()
    };
    Deed::Requeue {
        answer: answer(outcome, lost),
    }
}

/// A look at a job by somebody of these namespaces.
pub fn seen(by: &[Namespace], view: &JobView) -> Deed {
    let result = view.result.as_ref();
    let result = result.and_then(|result| digest::result(result).ok());
    Deed::Seen(Sight {
        job: view.id,
        namespace: view.namespace.clone(),
        seen_by: by.to_vec(),
        state: view.state,
        counted: view.attempts_counted,
        retries: view.spec.retries,
        result: result.map(Digest),
    })
}
