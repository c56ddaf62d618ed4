//! Peers known from before: named in the configuration, or kept in a file across restarts.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use mutual_model::identity::PublicKey;
use mutual_model::kademlia::Contact;

/// Peers kept in the file.
pub(super) const PEERS_KEPT_MAX: usize = 64;
const FILE_LEN_MAX: u64 = 64 * 1024;

/// A node that is known before the network is: `KEY@HOST:PORT`, or `HOST:PORT` if its key is to be
/// asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bootstrap {
    /// Its key; without it, whoever answers at the address is taken if its certificate is trusted.
    pub key: Option<PublicKey>,
    /// Host name or IP address, and UDP port.
    pub address: String,
}

/// Why a text names no bootstrap peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The part before `@` is no public key.
    #[error(
        "bootstrap peer {0:?}: the part before `@` must be a public key of 64 hexadecimal digits"
    )]
    Key(String),
    /// There is no port.
    #[error("bootstrap peer {0:?}: give HOST:PORT or KEY@HOST:PORT")]
    Address(String),
}

impl From<SocketAddr> for Bootstrap {
    fn from(addr: SocketAddr) -> Self {
        Self {
            key: None,
            address: addr.to_string(),
        }
    }
}

impl From<Contact> for Bootstrap {
    fn from(contact: Contact) -> Self {
        Self {
            key: Some(*contact.public()),
            address: contact.addr().to_string(),
        }
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(out, "{key}@{}", self.address),
            None => out.write_str(&self.address),
        }
    }
}

impl FromStr for Bootstrap {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let (key, address) = match text.split_once('@') {
            Some((key, address)) => {
                let key = key
                    .parse()
                    .map_err(|_| BootstrapError::Key(text.to_owned()))?;
                (Some(key), address)
            }
            None => (None, text),
        };
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty());
        match port.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(port)) if port != 0 => Ok(Self {
                key,
                address: address.to_owned(),
            }),
            _ => Err(BootstrapError::Address(text.to_owned())),
        }
    }
}

/// Reads the peers kept in a file; an absent file has none, and lines that make no sense are left
/// out: the file is a convenience, never a reason not to start.
pub(super) fn load(path: &Path) -> Vec<Contact> {
    let long = std::fs::metadata(path).is_ok_and(|meta| meta.len() > FILE_LEN_MAX);
    if long {
        tracing::warn!(path = %path.display(), "the file of known peers is too long and is ignored");
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(parse)
        .take(PEERS_KEPT_MAX)
        .collect()
}

fn parse(line: &str) -> Option<Contact> {
    let (key, addr) = line.split_once('@')?;
    Some(Contact::new(key.parse().ok()?, addr.parse().ok()?))
}

/// Replaces the file by one with these peers; a crash leaves the old or the new one.
pub(super) fn save(path: &Path, peers: &[Contact]) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    for peer in peers.iter().take(PEERS_KEPT_MAX) {
        writeln!(file, "{}@{}", peer.public(), peer.addr())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_peers_read_back_and_errors_name_the_fix() {
        let key = PublicKey([5; 32]);
        for text in [
            format!("{key}@node.example:7400"),
            "[::1]:9".into(),
            "10.0.0.1:7".into(),
        ] {
            assert_eq!(text.parse::<Bootstrap>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            "host:",
            ":7",
            "host:0",
            "host:99999",
            "zz@host:1",
        ] {
            assert!(text.parse::<Bootstrap>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn peers_survive_in_their_file_and_nonsense_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        assert_eq!(load(&path), []);
        let peer = Contact::new(PublicKey([5; 32]), "127.0.0.1:7400".parse().unwrap());
        save(&path, &[peer]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("nonsense\n{text}x@y\n")).unwrap();
        assert_eq!(load(&path), [peer]);
    }
}
