//! The demand stores behind this control, spoken to under a caller's own token.

use std::sync::Arc;

use axum::http::HeaderValue;
use futures::future::join_all;
use mutual_demand::http::HttpStore;
use mutual_demand::{
    DemandStore as _, JobFilter, JobPage, JobView, Manifest, Principal, StoreError, StoreInfo,
    StoreResult, Submission, Submitted,
};
use mutual_model::ids::JobId;

/// A caller whose token was checked here and will be checked again by the store.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) who: Principal,
    pub(super) authorization: HeaderValue,
}

#[derive(Debug, Clone)]
pub(super) struct Stores {
    list: Vec<HttpStore>,
}

/// Jobs on a page of a list if the caller does not say.
const PAGE_DEFAULT: usize = 100;

impl Stores {
    pub(super) const fn new(list: Vec<HttpStore>) -> Self {
        Self { list }
    }

    /// The stores as this caller sees them.
    pub(super) fn for_caller(&self, caller: &Caller) -> Vec<HttpStore> {
        let credentials = Arc::new(caller.authorization.clone());
        let with = |store: &HttpStore| store.with_credentials(credentials.clone());
        self.list.iter().map(with).collect()
    }

    fn default_store(&self, caller: &Caller) -> StoreResult<HttpStore> {
        let first = self.for_caller(caller).into_iter().next();
        first.ok_or_else(|| StoreError::Unavailable("no demand store is configured here".into()))
    }

    pub(super) async fn submit(
        &self,
        caller: &Caller,
        tasks: Vec<Submission>,
    ) -> StoreResult<(Vec<Submitted>, StoreInfo)> {
        let store = self.default_store(caller)?;
        let submitted = store.submit(&caller.who, tasks).await?;
        Ok((submitted, store.info().await?))
    }

    /// The job and the store that has it.
    pub(super) async fn find(
        &self,
        caller: &Caller,
        id: JobId,
    ) -> StoreResult<(HttpStore, JobView)> {
        let stores = self.for_caller(caller);
        let views = join_all(stores.iter().map(|store| store.job(&caller.who, id))).await;
        let mut problem = StoreError::NotFound;
        for (store, view) in stores.into_iter().zip(views) {
            match view {
                Ok(view) => return Ok((store, view)),
                // "Not found" is only true once every store has said so.
                Err(StoreError::NotFound) => {}
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    pub(super) async fn list(&self, caller: &Caller, filter: &JobFilter) -> StoreResult<JobPage> {
        let stores = self.for_caller(caller);
        let pages = join_all(stores.iter().map(|store| store.jobs(&caller.who, filter))).await;
        let pages = pages.into_iter().collect::<StoreResult<Vec<JobPage>>>()?;
        let limit = match filter.limit {
            0 => PAGE_DEFAULT,
            limit => limit as usize,
        };
        Ok(merge(pages, limit))
    }

    pub(super) async fn attach(
        &self,
        caller: &Caller,
        id: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        let (store, _) = self.find(caller, id).await?;
        store.attach_manifest(&caller.who, id, input).await
    }

    pub(super) async fn cancel(
        &self,
        caller: &Caller,
        id: JobId,
        reason: &str,
    ) -> StoreResult<JobView> {
        let (store, _) = self.find(caller, id).await?;
        store.cancel(&caller.who, id, reason).await
    }

    /// Asks for a checkpoint; the job as it was before.
    pub(super) async fn request_checkpoint(
        &self,
        caller: &Caller,
        id: JobId,
    ) -> StoreResult<JobView> {
        let (store, view) = self.find(caller, id).await?;
        store.request_checkpoint(&caller.who, id).await?;
        Ok(view)
    }

    pub(super) async fn infos(&self, caller: &Caller) -> Vec<(String, StoreResult<StoreInfo>)> {
        let stores = self.for_caller(caller);
        let infos = join_all(stores.iter().map(|store| store.info())).await;
        let url = |store: &HttpStore| store.bases().join(",");
        stores.iter().map(url).zip(infos).collect()
    }
}

/// One page out of one from each store, newest first.
fn merge(pages: Vec<JobPage>, limit: usize) -> JobPage {
    let mut merged = JobPage {
        jobs: Vec::new(),
        next: None,
        possibly_old: false,
    };
    let mut has_more = false;
    for page in pages {
        merged.jobs.extend(page.jobs);
        merged.possibly_old |= page.possibly_old;
        has_more |= page.next.is_some();
    }
    merged
        .jobs
        .sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
    has_more |= merged.jobs.len() > limit;
    merged.jobs.truncate(limit);
    if has_more {
        merged.next = merged.jobs.last().map(|job| job.id);
    }
    merged
}
