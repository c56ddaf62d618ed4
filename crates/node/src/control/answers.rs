//! Answers that a control and a demand server give alike, from what the store and the DHT know.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use mutual_demand::JobView;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use mutual_model::matching::Need;

use super::body::{Explanation, Fit, LogAccess, LogStream, NodeView};
use super::counts::Counts;
use super::offer::{Neighbour, Offerer};
use super::problem::Problem;
use crate::auth::{LOG_TOKEN_LIFETIME, LogToken, NodeSigner, unix_now};

/// Addresses and tokens for whoever may read `view`.
pub(crate) fn log_access(view: &JobView, signer: &NodeSigner) -> Result<LogAccess, Problem> {
    let streams: Vec<LogStream> = view
        .attempts
        .iter()
        .rev()
        .map(|attempt| {
            let agent = attempt.holder.agent;
            let token = LogToken::new(view.id, view.namespace.clone(), agent);
            let number = attempt.fence.sequence;
            LogStream {
                agent: agent.to_string(),
                attempt: number,
                url: socket_url(&attempt.agent_url, view.id, number),
                token: token.sign(signer),
            }
        })
        .collect();
    if streams.is_empty() {
        let message = format!("no agent has held it yet; it is {}", view.state);
        return Err(Problem::new(StatusCode::CONFLICT, "no_log_yet", message));
    }
    Ok(LogAccess {
        streams,
        expires: unix_now().after(LOG_TOKEN_LIFETIME).0,
    })
}

fn socket_url(agent_url: &str, job: JobId, attempt: u64) -> String {
    let base = match agent_url.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}"),
        Some((_, rest)) => format!("ws://{rest}"),
        None => format!("ws://{agent_url}"),
    };
    let base = base.trim_end_matches('/');
    format!("{base}/v1/jobs/{job}/logs?attempt={attempt}")
}

/// What is known of why a task is where it is.
pub(crate) async fn explanation(view: JobView, offerer: &Offerer) -> Explanation {
    let need = Need::from(&view.spec);
    let known = offerer.neighbours().all(&view.namespace).await;
    let fit = |neighbour: &Neighbour| Fit {
        node: neighbour.id().to_string(),
        unfit: neighbour
            .offer
            .fits(&need)
            .err()
            .map(|unfit| unfit.to_string()),
    };
    let is_waiting = view.state == JobState::Queued;
    let waiting = view.queued_at.filter(|_| is_waiting);
    Explanation {
        waiting_ms: waiting.map(|since| unix_now().0.saturating_sub(since.0)),
        declined: offerer.declines(&view.id),
        nodes: known.iter().map(fit).collect(),
        task: view,
    }
}

/// The nodes known in any of some namespaces, each once.
pub(crate) async fn known_nodes(offerer: &Offerer, namespaces: &[Namespace]) -> Vec<NodeView> {
    let mut known = BTreeMap::new();
    for namespace in namespaces {
        let found = offerer.neighbours().all(namespace).await;
        known.extend(found.into_iter().map(|node| (node.id(), node)));
    }
    known.into_values().map(Into::into).collect()
}

/// Counters as an answer.
pub(crate) fn rendered(counts: &Counts) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], counts.render()).into_response()
}
