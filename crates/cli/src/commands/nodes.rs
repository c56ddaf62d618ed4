//! `mutual nodes`: the machines of the cloud.

use mutual_node::model::record::NodeRecord;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::document::short;
use crate::failure::Outcome;
use crate::output::{size, table, table_text};

/// List the machines that serve your namespace, as they say of themselves
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(session: &Session, _: Args) -> Outcome {
    let client = Client::open(session)?;
    let mut nodes = client.nodes().await?;
    nodes.sort_by_key(NodeRecord::id);
    let documents: Vec<_> = nodes.iter().map(document).collect();
    session
        .output
        .answer(&json!({ "nodes": documents }), || nodes_text(&nodes));
    Ok(())
}

fn document(node: &NodeRecord) -> serde_json::Value {
    json!({
        "node": node.id(), "http": node.http, "p2p": node.p2p, "udp": node.udp,
        "total": node.total, "free": node.free, "slots": node.slots, "slots_free": node.slots_free,
        "isolation": node.isolation, "labels": node.labels,
    })
}

fn nodes_text(nodes: &[NodeRecord]) -> String {
    if nodes.is_empty() {
        return "no nodes found".to_owned();
    }
    let mut table = table(&[
        "NODE",
        "SLOTS",
        "CPUS FREE",
        "MEMORY FREE",
        "ISOLATION",
        "ADDRESS",
    ]);
    for node in nodes {
        let isolation: Vec<_> = node.isolation.iter().map(|class| class.name()).collect();
        table.add_row(vec![
            short(&node.id()),
            format!("{}/{}", node.slots_free, node.slots),
            format!(
                "{}/{}",
                cores(node.free.cpu_millis),
                cores(node.total.cpu_millis)
            ),
            size(node.free.memory_bytes),
            isolation.join(" "),
            node.http.first().cloned().unwrap_or_default(),
        ]);
    }
    table_text(&table)
}

fn cores(millis: u32) -> f64 {
    f64::from(millis) / 1000.0
}
