//! Offering jobs to idle agents when no control is alive to do it.
//!
//! The demand server may offer them, too, or may have been told not to. Two offers of one job do no
//! harm: the store gives it to one agent.

use std::time::Duration;

use mutual_node::assembly::neighbours;
use mutual_node::auth::UserToken;
use mutual_node::control::counts::Counts;
use mutual_node::control::offer::{Offerer, OpenJob, Voucher};
use mutual_node::demand::Submission;
use mutual_node::demand::http::HttpStore;
use mutual_node::model::ids::JobId;
use mutual_node::model::matching::Need;

use super::Client;
use crate::failure::{Failure, Outcome};

/// Jobs offered of one submission; agents that got one claim the rest from the store in batches.
const OFFERED_MAX: usize = 64;
/// How long agents are sought and asked.
const OFFERING: Duration = Duration::from_secs(3);

impl Client {
    /// Offers freshly submitted jobs to the best idle agents in the DHT, in the user's name.
    pub(super) async fn offer(
        &self,
        store: &HttpStore,
        jobs: &[JobId],
        tasks: &[Submission],
    ) -> Outcome {
        let exchange = self.exchange().await?;
        let discovery = exchange.discovery().await?.clone();
        let token = UserToken::from_text(&self.context.token()?).map_err(Failure::configuration)?;
        let offerer = Offerer::new(
            Voucher::User(token),
            self.context.file.trusted_organisations.clone(),
            neighbours(discovery, exchange.key.public()),
            Counts::default(),
        );
        let open: Vec<_> = jobs
            .iter()
            .zip(tasks)
            .map(open_job)
            .take(OFFERED_MAX)
            .collect();
        let url = store.bases().first().map_or("", String::as_str);
        let taken = tokio::time::timeout(OFFERING, offerer.offer(url, &open)).await;
        let taken = taken.unwrap_or_default();
        tracing::info!(
            offered = open.len(),
            taken = taken.len(),
            "offered to agents"
        );
        Ok(())
    }
}

fn open_job((id, task): (&JobId, &Submission)) -> OpenJob {
    OpenJob {
        id: *id,
        namespace: task.namespace.clone(),
        need: Need::from(&task.spec),
        recovered: false,
    }
}
