//! A link that can be cut: a network namespace of its own, joined to this machine by one pair of
//! virtual interfaces, and a packet filter that drops all that would go over them.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cloud::Beyond;
use crate::failure::{Failure, Outcome};

/// Both ends of the link, in a network that hardly anyone uses.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 213, 71, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 213, 71, 2);
const PREFIX: u8 = 30;

/// Gone when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    /// Of the namespace, the interfaces and the filter's table.
    name: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.mend();
        let _ = ip(&["link", "delete", &self.name]);
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Why no link can be made here, if so.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "links are cut between network namespaces, which only root may make".to_owned(),
        );
    }
    let is_absent = |program: &&str| {
        let mut asked = Command::new(program);
        let asked = asked
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        asked.status().is_err()
    };
    let absent = ["ip", "nft", "nsenter"].into_iter().find(is_absent)?;
    Some(format!(
        "links are cut between network namespaces, and there is no program {absent}: install iproute2, nftables and util-linux"
    ))
}

impl Link {
    pub(crate) fn new() -> Outcome<Self> {
        // The name of an interface has 15 letters at most.
        let link = Self {
            name: format!("mutual-{}", std::process::id()),
        };
        let (name, far) = (link.name.as_str(), "far");
        let near = format!("{NEAR}/{PREFIX}");
        let beyond = format!("{FAR}/{PREFIX}");
        ip(&["netns", "add", name])?;
        ip(&[
            "link", "add", name, "type", "veth", "peer", "name", far, "netns", name,
        ])?;
        ip(&["address", "add", &near, "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        ip(&["-n", name, "address", "add", &beyond, "dev", far])?;
        ip(&["-n", name, "link", "set", far, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(link)
    }

    /// What a cloud must know of it, with so many agents beyond it.
    pub(crate) fn beyond(&self, agents: usize) -> Beyond {
        Beyond {
            agents,
            near: IpAddr::V4(NEAR),
            far: IpAddr::V4(FAR),
            namespace: PathBuf::from("/run/netns").join(&self.name),
        }
    }

    /// From now on everything is lost on it, without a word to either side.
    pub(crate) fn cut(&self) -> Outcome {
        let name = &self.name;
        filter(&format!(
            "table inet {name} {{\n\
             chain in {{ type filter hook input priority 0; iifname \"{name}\" drop; }}\n\
             chain out {{ type filter hook output priority 0; oifname \"{name}\" drop; }}\n}}\n"
        ))
    }

    pub(crate) fn mend(&self) -> Outcome {
        filter(&format!("delete table inet {}\n", self.name))
    }
}

fn ip(arguments: &[&str]) -> Outcome {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| Failure::configuration(format!("ip: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::configuration(format!(
            "ip {}: {}",
            arguments.join(" "),
            said.trim()
        ))),
    }
}

fn filter(rules: &str) -> Outcome {
    let wrong = |error| Failure::configuration(format!("nft: {error}"));
    let mut nft = Command::new("nft");
    let mut nft = nft
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(wrong)?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules.as_bytes()).map_err(wrong)?;
    }
    match nft.wait().map_err(wrong)?.success() {
        true => Ok(()),
        false => Err(Failure::configuration(
            "nft refuses the rules that cut the link",
        )),
    }
}
