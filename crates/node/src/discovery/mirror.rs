//! What the DHT is told of a job, by whoever knows how it stands.

use mutual_demand::Manifest;
use mutual_model::identity::NodeId;
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::Fence;
use mutual_model::record::StatusMirror;

/// The mirror of a job with its last claim, if it had one, and its result, if there is one.
pub fn status_mirror(
    job: JobId,
    state: JobState,
    last: Option<(NodeId, Fence)>,
    output: Option<&Manifest>,
) -> StatusMirror {
    let sealed_key = output.map(|output| output.enc_meta.sealed_key.clone());
    let providers = output.map(|output| output.seeders.clone());
    StatusMirror {
        job,
        state,
        holder: last.map(|(holder, _)| holder),
        fence: last.map(|(_, fence)| fence),
        result: output.map(|output| output.root.clone()),
        sealed_key: sealed_key.unwrap_or_default(),
        providers: providers.unwrap_or_default(),
    }
}
