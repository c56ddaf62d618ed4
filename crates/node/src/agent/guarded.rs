//! The agent's place among guardians: watched by others, watching others.

use std::io;
use std::sync::Arc;

use mutual_model::guardian::Silence;

use super::start::AgentNode;
use crate::liveness::{Bench, Guardianship, Vicinity, Ward};

impl AgentNode {
    /// Keeps `guardians` guardians out of the `vicinity` for this agent, whose silence is judged as
    /// it says, and watches whoever asks.
    ///
    /// # Errors
    /// Whatever opening the port for heartbeats reports.
    pub async fn guard(
        &self,
        silence: Silence,
        guardians: usize,
        vicinity: Arc<dyn Vicinity>,
    ) -> io::Result<Guardianship> {
        let recruiter = self.recruiter.clone();
        let ward = Ward {
            id: self.signer.key().id(),
            run: recruiter.incarnations.run(),
            silence,
            guardians,
            stores: recruiter.incarnations.all(),
            state: self.state.clone(),
        };
        let bench = Bench {
            who: recruiter.principal.clone(),
            find: Arc::new(move |url| recruiter.store(url)),
        };
        Guardianship::start(
            self.recruiter.door.clone(),
            self.signer.key().clone(),
            self.trusted.to_vec(),
            ward,
            bench,
            vicinity,
            self.guardian_metrics.clone(),
        )
        .await
    }
}
