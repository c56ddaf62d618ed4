//! Reading from a standby while there is no primary: what users look at, marked as possibly old.
//!
//! Nothing is decided from it (DESIGN §3): only single jobs and pages of jobs are read so, and only when the primary could
//! not be reached.

use futures::future::BoxFuture;

use super::pool::Pool;
use super::work::{self, Done, Fault, Work};
use crate::{JobPage, JobView, StoreError, StoreResult};

/// An answer that can say of itself that it may be old.
pub(super) trait Dated {
    /// Marks it.
    fn mark(&mut self);
}

impl Dated for JobView {
    fn mark(&mut self) {
        self.possibly_old = true;
    }
}

impl Dated for JobPage {
    fn mark(&mut self) {
        self.possibly_old = true;
        self.jobs.iter_mut().for_each(Dated::mark);
    }
}

/// Reads from the primary, or, if there is none to be reached, from any standby.
pub(super) async fn read<T, A>(
    pool: &Pool,
    given: &A,
    operate: for<'a> fn(&'a Work, &'a A) -> BoxFuture<'a, Done<T>>,
) -> StoreResult<T>
where
    T: Dated + Send + 'static,
    A: Send + Sync + 'static,
{
    let unavailable = match work::transact(pool, given, operate).await {
        Err(StoreError::Unavailable(why)) => StoreError::Unavailable(why),
        answer => return answer,
    };
    let Ok(lent) = pool.lend_standby().await else {
        return Err(unavailable);
    };
    let mut found = work::look(pool, &lent, given, operate)
        .await
        .map_err(Fault::refusal)?;
    found.mark();
    Ok(found)
}
