//! What one process is told: a TOML file per node, checked as a whole before anything starts.
//!
//! A process takes [roles](Role) and reads one section per role. Relative paths are taken from the
//! directory of the file. Ports may be 0; the ports that were really opened stand in
//! [`node.json`](ready), written once the node is ready.
//!
//! ```toml
//! name = "workstation-7"
//! data_dir = "/var/lib/mutual"
//! roles = ["agent", "seeder"]
//! trusted_organisations = ["…64 hexadecimal digits…"]
//! known_stores = ["http://demand.example:7620"]
//!
//! [network]
//! bootstrap = ["…64 hexadecimal digits…@192.0.2.1:7600"]
//!
//! [agent]
//! cpus = 6
//! memory = "24GiB"
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mutual_model::identity::{PublicKey, Role};
use mutual_model::job::FieldError;
use serde::{Deserialize, Serialize};

pub mod document;
pub mod keys;
pub mod ready;
mod roles;
mod units;

pub use document::{Document, DocumentError, Place};
pub use roles::{AgentConfig, ControlConfig, DemandConfig, LivenessProfile};
pub use units::{Period, Size};

/// Why a configuration was refused. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A field is wrong.
    #[error("{}: {error}", .path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: DocumentError,
    },
}

/// A node that newcomers ask first: `PUBLICKEY@HOST:PORT`, its key in hexadecimal and the address
/// of its discovery port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootstrapPeer {
    /// Its key; whoever answers at the address without it is not believed.
    pub key: PublicKey,
    /// `HOST:PORT`; a host name is resolved at start.
    pub address: String,
}

impl TryFrom<String> for BootstrapPeer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let form = "write PUBLICKEY@HOST:PORT";
        let (key, address) = text
            .split_once('@')
            .ok_or_else(|| format!("no @ in the bootstrap peer; {form}"))?;
        let key = key.parse().map_err(|error| format!("{error}; {form}"))?;
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(format!("no port in the bootstrap peer's address; {form}"));
        }
        Ok(Self {
            key,
            address: address.to_owned(),
        })
    }
}

impl std::str::FromStr for BootstrapPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<BootstrapPeer> for String {
    fn from(peer: BootstrapPeer) -> Self {
        peer.to_string()
    }
}

impl std::fmt::Display for BootstrapPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.key, self.address)
    }
}

/// How a node is reached and whom it asks first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// UDP address of discovery. Default `0.0.0.0:7600`.
    pub discovery: SocketAddr,
    /// UDP (QUIC) and TCP address of the block exchange. Default `0.0.0.0:7601`.
    pub p2p: SocketAddr,
    /// The IP address that others reach this node at. Default: the listen address, or, if that is
    /// unspecified, the address of the interface towards the first bootstrap peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<IpAddr>,
    /// Whom to ask first. At least two that are always up are recommended.
    pub bootstrap: Vec<BootstrapPeer>,
    /// Whether this node can only dial out: it asks and publishes but routes for nobody.
    pub client_only: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            discovery: SocketAddr::from(([0, 0, 0, 0], 7600)),
            p2p: SocketAddr::from(([0, 0, 0, 0], 7601)),
            advertise: None,
            bootstrap: Vec::new(),
            client_only: false,
        }
    }
}

/// The block store that every node keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Most bytes of blocks kept on disk. Default 16 GiB.
    pub quota: Size,
    /// How long a receipt given to another peer lasts. Default 24 h.
    pub keep: Period,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            quota: Size(16 << 30),
            keep: Period(std::time::Duration::from_secs(24 * 3600)),
        }
    }
}

/// Everything one process is told. [`NodeConfig::load`] gives it with absolute paths, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// A name for people, 1 to 63 characters. The certificate's name counts for others.
    pub name: String,
    /// Where the node keeps its state; made if missing.
    pub data_dir: PathBuf,
    /// Its secret key; made if missing. Default `node.key` in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Its certificate. Default `node.cert` in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Public keys of the organisations whose members are believed.
    pub trusted_organisations: Vec<PublicKey>,
    /// What this process is.
    pub roles: BTreeSet<Role>,
    /// Base URLs of demand stores to work for or to serve, besides its own.
    #[serde(default)]
    pub known_stores: Vec<String>,
    /// How it is reached.
    #[serde(default)]
    pub network: NetworkConfig,
    /// Its block store.
    #[serde(default)]
    pub storage: StorageConfig,
    /// The role `control`.
    #[serde(default)]
    pub control: ControlConfig,
    /// The role `demand`.
    #[serde(default)]
    pub demand: DemandConfig,
    /// The role `agent`.
    #[serde(default)]
    pub agent: AgentConfig,
}

impl NodeConfig {
    /// A configuration with every default.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            key_file: None,
            certificate_file: None,
            trusted_organisations: Vec::new(),
            roles: BTreeSet::new(),
            known_stores: Vec::new(),
            network: NetworkConfig::default(),
            storage: StorageConfig::default(),
            control: ControlConfig::default(),
            demand: DemandConfig::default(),
            agent: AgentConfig::default(),
        }
    }

    /// Reads and checks a file; relative paths in it are taken from its directory.
    ///
    /// # Errors
    /// [`ConfigError::Read`] or [`ConfigError::Document`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text).map_err(|error| ConfigError::Document {
            path: path.to_owned(),
            error,
        })?;
        let absolute = std::path::absolute(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        config.resolve_paths(absolute.parent().unwrap_or(Path::new("/")));
        Ok(config)
    }

    /// Reads and checks a text; paths stay as they are.
    ///
    /// # Errors
    /// [`DocumentError`] names place, field and fix.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let document = Document::<Self>::parse(text)?;
        match document.value.check() {
            Ok(()) => Ok(document.value),
            Err(error) => Err(document.locate(error)),
        }
    }

    /// The configuration as a TOML text that [`NodeConfig::parse`] reads back.
    ///
    /// # Errors
    /// [`FieldError`] if a number does not fit TOML's signed 64 bits or a path is no UTF-8.
    pub fn to_toml(&self) -> Result<String, FieldError> {
        toml::to_string(self)
            .map_err(|error| FieldError::new("document", error.to_string(), "use plainer values"))
    }

    /// Its secret key's file.
    pub fn key_path(&self) -> PathBuf {
        let named = self.key_file.clone();
        named.unwrap_or_else(|| self.data_dir.join("node.key"))
    }

    /// Its certificate's file.
    pub fn certificate_path(&self) -> PathBuf {
        let named = self.certificate_file.clone();
        named.unwrap_or_else(|| self.data_dir.join("node.cert"))
    }

    /// Whether it takes `role`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    fn resolve_paths(&mut self, base: &Path) {
        let paths = [
            Some(&mut self.data_dir),
            self.key_file.as_mut(),
            self.certificate_file.as_mut(),
            self.demand.sqlite.as_mut(),
            self.demand.store_key_file.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&path);
        }
    }

    /// Checks what the shape cannot say.
    ///
    /// # Errors
    /// [`FieldError`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), FieldError> {
        self.check_identity()?;
        self.check_stores()?;
        if self.has(Role::Demand) {
            self.demand.check()?;
        }
        if self.has(Role::Agent) {
            self.agent.check()?;
        }
        Ok(())
    }

    fn check_identity(&self) -> Result<(), FieldError> {
        let is_name =
            (1..=63).contains(&self.name.len()) && !self.name.chars().any(char::is_control);
        require(
            is_name,
            "name",
            "empty, too long or unprintable",
            "give 1 to 63 characters",
        )?;
        require(
            !self.data_dir.as_os_str().is_empty(),
            "data_dir",
            "empty",
            "name a directory that this node may fill",
        )?;
        require(
            !self.roles.is_empty(),
            "roles",
            "empty",
            "list one or more of agent, control, demand, seeder, bootstrap",
        )?;
        require(
            !self.trusted_organisations.is_empty(),
            "trusted_organisations",
            "empty: nobody would be believed",
            "list the public key of your organisation; `mutual org create` prints it",
        )
    }

    fn check_stores(&self) -> Result<(), FieldError> {
        for (number, url) in self.known_stores.iter().enumerate() {
            check_url(&format!("known_stores[{number}]"), url)?;
        }
        let works = self.has(Role::Agent) || self.has(Role::Control);
        let has_store = self.has(Role::Demand) || !self.known_stores.is_empty();
        require(
            !works || has_store || !self.network.bootstrap.is_empty(),
            "known_stores",
            "no demand store and no bootstrap peer: this node would never find work",
            "give the URL of a demand store, or bootstrap peers under [network]",
        )
    }
}

/// `Ok` if `holds`, else the field's error.
fn require(holds: bool, field: &str, problem: &str, fix: &str) -> Result<(), FieldError> {
    if holds {
        return Ok(());
    }
    Err(FieldError::new(field, problem, fix))
}

/// Checks that `url` is `http://HOST:PORT` or `https://…`, without a path.
///
/// # Errors
/// [`FieldError`] names `field`.
pub fn check_url(field: &str, url: &str) -> Result<(), FieldError> {
    const URL_BYTES_MAX: usize = 256;
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let authority = rest.map(|rest| rest.trim_end_matches('/'));
    let plain = |text: &str| {
        !text.is_empty()
            && url.len() <= URL_BYTES_MAX
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-:[]_".contains(c))
    };
    require(
        authority.is_some_and(plain),
        field,
        &format!(
            "{:?} is no base URL",
            url.chars().take(80).collect::<String>()
        ),
        "write http://HOST:PORT",
    )
}

#[cfg(test)]
mod tests;
