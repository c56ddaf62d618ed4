//! System packages behind the heavy tests: PostgreSQL, runc, an image registry, network tools.
//!
//! They are installed where apt is there and we may use it; otherwise the tests they serve are switched off by an
//! environment variable and the switch is printed. A test that finds neither the tool nor the variable fails, so that
//! nothing is ever skipped in silence.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

/// Where system administrators' programs lie; an ordinary user's `PATH` often lacks the last two.
const EXTRA_DIRECTORIES: [&str; 3] = ["/usr/bin", "/usr/sbin", "/sbin"];

/// A system requirement: how to see it, how to get it, and what is lost without it.
struct Requirement {
    what: &'static str,
    packages: &'static [&'static str],
    present: fn() -> bool,
    variable: &'static str,
    affects: &'static str,
}

/// Something that could not be provided, and how the tests are told.
pub(super) struct Skip {
    pub(super) what: &'static str,
    pub(super) variable: &'static str,
    pub(super) affects: &'static str,
}

const REQUIREMENTS: [Requirement; 4] = [
    Requirement {
        what: "PostgreSQL server",
        packages: &["postgresql"],
        present: postgres_present,
        variable: "MUTUAL_SKIP_POSTGRES",
        affects: "the conformance suite does not run against PostgreSQL",
    },
    Requirement {
        what: "runc",
        packages: &["runc"],
        present: || program_present("runc"),
        variable: "MUTUAL_SKIP_RUNC",
        affects: "containers are tested with the embedded runtime only",
    },
    Requirement {
        what: "image registry server",
        packages: &["docker-registry"],
        present: || program_present("docker-registry"),
        variable: "MUTUAL_SKIP_REGISTRY",
        affects: "images are not pulled from a real registry server",
    },
    Requirement {
        what: "network and namespace tools",
        packages: &["iproute2", "nftables", "util-linux"],
        present: || ["ip", "nft", "unshare"].into_iter().all(program_present),
        variable: "MUTUAL_SKIP_NETNS",
        affects: "tests that cut links between network namespaces do not run",
    },
];

/// Installs what is missing and returns what could not be had.
pub(super) fn provide(shell: &Shell) -> Vec<Skip> {
    let missing: Vec<_> = REQUIREMENTS
        .iter()
        .filter(|requirement| !(requirement.present)())
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let packages: Vec<_> = missing
        .iter()
        .flat_map(|requirement| requirement.packages)
        .copied()
        .collect();
    if let Err(error) = install(shell, &packages) {
        println!("cannot install {}: {error:#}", packages.join(", "));
    }
    missing
        .into_iter()
        .filter(|requirement| !(requirement.present)())
        .map(|requirement| Skip {
            what: requirement.what,
            variable: requirement.variable,
            affects: requirement.affects,
        })
        .collect()
}

fn install(shell: &Shell, packages: &[&str]) -> Result<()> {
    if !program_present("apt-get") {
        bail!("this system has no apt-get");
    }
    let sudo: &[&str] = if cmd!(shell, "id -u").quiet().read()? == "0" {
        &["env"]
    } else if cmd!(shell, "sudo -n true")
        .quiet()
        .ignore_stderr()
        .run()
        .is_ok()
    {
        &["sudo", "-n", "env"]
    } else {
        bail!("neither root nor sudo without a password");
    };
    let (program, arguments) = (sudo[0], &sudo[1..]);
    let quiet = "DEBIAN_FRONTEND=noninteractive";
    cmd!(shell, "{program} {arguments...} {quiet} apt-get update -qq").run()?;
    cmd!(
        shell,
        "{program} {arguments...} {quiet} apt-get install -y -qq --no-install-recommends {packages...}"
    )
    .run()?;
    Ok(())
}

fn program_present(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(EXTRA_DIRECTORIES.map(Into::into))
        .any(|directory| directory.join(name).is_file())
}

/// Debian keeps the server's programs below the version's own directory and out of `PATH`.
fn postgres_present() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let packaged = versions
        .flatten()
        .any(|version| server_programs(&version.path().join("bin")));
    packaged || (program_present("postgres") && program_present("initdb"))
}

fn server_programs(directory: &Path) -> bool {
    ["postgres", "initdb"]
        .into_iter()
        .all(|program| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_not() {
        assert!(program_present("sh"));
        assert!(!program_present("no-such-program-anywhere"));
    }

    #[test]
    fn every_requirement_names_its_own_switch() {
        for requirement in &REQUIREMENTS {
            assert!(requirement.variable.starts_with("MUTUAL_SKIP_"));
            assert!(!requirement.packages.is_empty());
        }
    }
}
