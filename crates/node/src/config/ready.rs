//! `node.json`: what a node really opened, for whoever started it.
//!
//! Ports may be configured as 0. The file is replaced as a whole when the node is ready and removed
//! when it ends in order, so that its presence with a living pid means readiness.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mutual_model::identity::{NodeId, PublicKey, Role};
use mutual_model::job::IsolationClass;
use serde::{Deserialize, Serialize};

use super::BootstrapPeer;
use super::keys::{KeyFileError, write_atomically};

/// Name of the file in the data directory.
pub const READY_FILE: &str = "node.json";

/// An isolation class that this machine does not offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingClass {
    /// The class.
    pub class: IsolationClass,
    /// Why not, as the start-up probe found.
    pub why: String,
}

/// What a ready node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReady {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// Its key.
    pub public: PublicKey,
    /// What it is.
    pub roles: BTreeSet<Role>,
    /// UDP address of discovery.
    pub discovery: SocketAddr,
    /// Multiaddresses of the block exchange.
    pub p2p: Vec<String>,
    /// Base URL of the REST interface, with the role `control`.
    #[serde(default)]
    pub control_url: Option<String>,
    /// Base URL of the demand store, with the role `demand`.
    #[serde(default)]
    pub demand_url: Option<String>,
    /// Base URL of logs and offers, with the role `agent`.
    #[serde(default)]
    pub agent_url: Option<String>,
    /// TCP addresses of liveness sessions.
    #[serde(default)]
    pub liveness: Vec<SocketAddr>,
    /// Isolation classes the start-up probe proved, weakest first.
    #[serde(default)]
    pub classes: Vec<IsolationClass>,
    /// Those it did not, and why.
    #[serde(default)]
    pub missing_classes: Vec<MissingClass>,
}

impl NodeReady {
    /// Writes the file into `data_dir`, as a whole.
    ///
    /// # Errors
    /// [`KeyFileError::Io`].
    pub fn write(&self, data_dir: &Path) -> Result<(), KeyFileError> {
        let path = data_dir.join(READY_FILE);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| KeyFileError::Io {
            path: path.clone(),
            source: error.into(),
        })?;
        write_atomically(&path, &bytes, 0o644)
    }

    /// Reads the file of `data_dir`; `None` while there is none.
    ///
    /// # Errors
    /// [`KeyFileError::Io`], also if the file holds something else.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, KeyFileError> {
        let path: PathBuf = data_dir.join(READY_FILE);
        let io_error = |source| KeyFileError::Io {
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io_error(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Removes the file of `data_dir`, if there is one.
    pub fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(data_dir.join(READY_FILE));
    }

    /// How newcomers name this node.
    pub fn bootstrap_peer(&self) -> BootstrapPeer {
        BootstrapPeer {
            key: self.public,
            address: self.discovery.to_string(),
        }
    }
}
