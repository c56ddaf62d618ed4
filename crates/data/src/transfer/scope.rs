//! What a stream may ask for: the blocks reachable from its root, found as they are needed.

use std::collections::HashSet;

use crate::address::{Cid, Codec, Short, codec};
use crate::dag::Node;
use crate::store::BlockStore;

/// The known blocks of one DAG. Costs 33 bytes a block, 32 KiB for a GiB.
#[derive(Debug)]
pub(super) struct Scope {
    known: HashSet<Short>,
    /// Nodes of the DAG that were not here when last looked at.
    unexpanded: Vec<Cid>,
}

impl Scope {
    pub(super) fn new(root: &Cid) -> Self {
        Self {
            known: HashSet::from([Short::from(root)]),
            unexpanded: vec![*root],
        }
    }

    /// Whether `cid` belongs to the DAG as far as it is stored here. Reads nodes, so it blocks.
    pub(super) fn admits(&mut self, store: &BlockStore, cid: &Cid) -> bool {
        let short = Short::from(cid);
        if !self.known.contains(&short) {
            self.expand(store);
        }
        self.known.contains(&short)
    }

    /// Opens the nodes that are here by now. A node that is not stays for later: a peer may still be fetching it.
    fn expand(&mut self, store: &BlockStore) {
        let mut waiting = Vec::new();
        while let Some(cid) = self.unexpanded.pop() {
            let Some(node) = store.get(&cid).ok().and_then(|b| Node::decode(&b).ok()) else {
                waiting.push(cid);
                continue;
            };
            for child in node.children() {
                let new = self.known.insert(Short::from(&child.link.cid));
                if new && codec(&child.link.cid) == Ok(Codec::Node) {
                    self.unexpanded.push(child.link.cid);
                }
            }
        }
        self.unexpanded = waiting;
    }
}
