//! Mistakes that a world can be told to make, so that tests see the checker find them.

use mutual_demand::{Disposition, FinishReply, RenewReply, StoreError, StoreResult};
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::time::{UnixMillis, millis};

use super::database::TERMS;
use super::wire::{Reply, Request};

/// A mistake of a store, a driver or a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// The store takes finishes under any fence.
    ForgetFences,
    /// The store renews whatever is listed.
    RenewAnything,
    /// The store looks for expired leases with a clock that is ahead.
    RequeueEarly,
    /// The store acknowledges submissions that it does not keep.
    ForgetSubmissions,
    /// Agents keep finishes in their outbox for ever.
    NeverDeliver,
    /// A cut-off agent's programs go on.
    IgnoreCutOff,
    /// Programs live on when their agent is killed.
    LeaveOrphans,
    /// Programs go on from the older of two checkpoints.
    ResumeFromOlder,
}

impl Slip {
    /// What the store says without doing anything.
    pub(super) fn instead_of(self, request: &Request) -> Option<StoreResult<Reply>> {
        match (self, request) {
            (Self::ForgetSubmissions, Request::Submit(task)) if task.spec.priority > 0 => {
                let key = blake3::hash(task.client_key.as_str().as_bytes());
                let mut random = [0; 10];
                random.copy_from_slice(&key.as_bytes()[..10]);
                Some(Ok(Reply::Submitted(JobId::new(UnixMillis(1), random))))
            }
            _ => None,
        }
    }

    /// What the store says where it should refuse.
    pub(super) fn instead_of_error(
        self,
        request: &Request,
        error: StoreError,
    ) -> StoreResult<Reply> {
        match (self, request) {
            (Self::ForgetFences, Request::Finish(_)) => Ok(Reply::Finished(FinishReply {
                disposition: Disposition::Ended,
                state: JobState::Succeeded,
            })),
            _ => Err(error),
        }
    }

    /// What the store makes of a renewal's answer.
    pub(super) fn renewed(self, request: &Request, reply: Reply) -> Reply {
        match (self, request, reply) {
            (Self::RenewAnything, Request::Renew(asked), Reply::Renewed(reply)) => {
                Reply::Renewed(RenewReply {
                    held: asked.held.iter().map(|held| held.claim.job).collect(),
                    lost: Vec::new(),
                    lease_ms: millis(TERMS.lease()),
                    ..reply
                })
            }
            (_, _, reply) => reply,
        }
    }
}
