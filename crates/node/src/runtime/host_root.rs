//! The root file system called `host`: the machine's programs and libraries, and nothing that is anyone's own.
//!
//! An allow-list. Directories are mounted read-only, the few files of `/etc` that programs need are copied, and the
//! names of users and machines are our own. Never in it: home directories, `/run`, `/var`, the agent's state.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Directories with programs and libraries. A symbolic link is copied as one.
const PROGRAMS: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
];
/// Directories of `/etc` that programs and their libraries read; nothing in them is secret to unprivileged users.
const ETC_DIRS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/java",
];
/// Single files of `/etc`.
const ETC_FILES: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/ssl/openssl.cnf",
];
/// Files that only a task with network needs.
const NETWORK_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/gai.conf",
];
/// A file of `/etc` longer than this is not copied: something is wrong with it.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

const PASSWD: &str =
    "root:x:0:0:task:/mutual:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Everything of the machine that a task may read, for classes that see the machine's own root.
pub(super) fn readable() -> Vec<&'static str> {
    let lists = [PROGRAMS, ETC_DIRS, ETC_FILES, NETWORK_FILES];
    lists.into_iter().flatten().copied().collect()
}

/// Fills the empty directory `root` and returns what is to be mounted on it, read-only: the paths are the same outside
/// and inside.
///
/// # Errors
/// Whatever making directories, links and files reports.
pub(super) fn build(root: &Path, network: bool) -> io::Result<Vec<PathBuf>> {
    for dir in ["proc", "dev", "tmp", "mutual", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let mut binds = Vec::new();
    for path in PROGRAMS.iter().chain(ETC_DIRS).map(Path::new) {
        place(root, path, &mut binds)?;
    }
    for path in ETC_FILES {
        copy(root, Path::new(path))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    network_files(root, network)?;
    Ok(binds)
}

/// Adds what name look-up needs: the machine's own files with network, `localhost` alone without.
///
/// # Errors
/// Whatever making directories and files reports.
pub(super) fn network_files(root: &Path, network: bool) -> io::Result<()> {
    own_directory(&root.join("etc"))?;
    if !network {
        return replace(&root.join("etc/hosts"), HOSTS.as_bytes());
    }
    for path in NETWORK_FILES.iter().chain(&["/etc/hosts"]) {
        copy(root, Path::new(path))?;
    }
    Ok(())
}

/// Makes sure that `dir` is a directory and no link: an image's link could lead the writes below it anywhere.
fn own_directory(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir(dir)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn place(root: &Path, path: &Path, binds: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let target = inside(root, path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if found.is_symlink() {
        return symlink(fs::read_link(path)?, target);
    }
    if found.is_dir() {
        fs::create_dir_all(target)?;
        binds.push(path.to_owned());
    }
    Ok(())
}

/// Copies a file's content, following links; a file that is missing, unreadable or huge is left out.
fn copy(root: &Path, path: &Path) -> io::Result<()> {
    let usable =
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= FILE_BYTES_MAX);
    let Some(content) = usable.then(|| fs::read(path).ok()).flatten() else {
        return Ok(());
    };
    let target = inside(root, path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    replace(&target, &content)
}

/// Writes a file in place of whatever is there; an image's dangling link must not lead the write elsewhere.
fn replace(target: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(target, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_links_lead_no_write_out_of_it() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
        for dir in [&root, &outside] {
            fs::create_dir(dir).expect("a directory");
        }
        symlink(&outside, root.join("etc")).expect("a link");
        network_files(&root, false).expect("a root");
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
        let hosts = fs::read_to_string(root.join("etc/hosts")).expect("a file");
        assert_eq!(hosts, HOSTS);
        fs::remove_file(root.join("etc/hosts")).expect("a file");
        symlink(outside.join("hosts"), root.join("etc/hosts")).expect("a link");
        network_files(&root, false).expect("a root");
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
    }

    #[test]
    fn the_root_holds_programs_and_nothing_of_anyones_own() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let binds = build(root.path(), false).expect("a root");
        assert!(binds.contains(&PathBuf::from("/usr")));
        let forbidden = [
            "/home",
            "/root",
            "/run",
            "/var",
            "/etc/shadow",
            "/etc/ssl/private",
        ];
        for path in forbidden {
            assert!(!inside(root.path(), Path::new(path)).exists(), "{path}");
            assert!(
                !binds
                    .iter()
                    .any(|bind| bind.starts_with(path) || Path::new(path).starts_with(bind)),
                "{path}"
            );
        }
        assert!(!root.path().join("etc/resolv.conf").exists());
        let passwd = fs::read_to_string(root.path().join("etc/passwd")).expect("a passwd file");
        assert_eq!(passwd, PASSWD);
    }
}
