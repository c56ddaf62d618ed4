//! What went over the machine's loopback interface, where all nodes of an experiment live.

use std::time::Instant;

use serde::Serialize;

use crate::failure::{Failure, Naming as _, Outcome};

const DEVICES: &str = "/proc/net/dev";

/// Packets and bytes so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    packets: f64,
    bytes: f64,
}

/// What a node sent on average, everything counted: discovery, sessions, claims, renewals, results.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Traffic {
    pub(crate) packets_per_node_s: f64,
    pub(crate) bytes_per_node_s: f64,
}

impl Reading {
    pub(crate) fn now() -> Outcome<Self> {
        let text = std::fs::read_to_string(DEVICES).naming(DEVICES)?;
        let (packets, bytes) =
            sent(&text).ok_or_else(|| Failure::internal(format!("{DEVICES} names no lo")))?;
        let at = Instant::now();
        Ok(Self { at, packets, bytes })
    }

    pub(crate) fn until(self, later: Self, nodes: usize) -> Traffic {
        let per_node = (later.at - self.at).as_secs_f64() * nodes as f64;
        Traffic {
            packets_per_node_s: (later.packets - self.packets) / per_node,
            bytes_per_node_s: (later.bytes - self.bytes) / per_node,
        }
    }
}

/// Packets and bytes that the loopback interface sent (proc(5): columns 9 and 10 after the name).
fn sent(devices: &str) -> Option<(f64, f64)> {
    let own = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"))?;
    let columns: Vec<f64> = own.split_whitespace().flat_map(str::parse).collect();
    Some((*columns.get(9)?, *columns.get(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_table_is_read() {
        let text = "Inter-| Receive | Transmit\n face |bytes\n    lo: 7 1 0 0 0 0 0 0 900 12 0 0 0 0 0 0\n";
        assert_eq!(sent(text), Some((12.0, 900.0)));
        assert_eq!(sent("eth0: 1 2\n"), None);
    }
}
