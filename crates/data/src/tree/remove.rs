//! Removing what was unpacked.

use std::fs;
use std::io;
use std::path::Path;

/// Removes a directory and all below it, read-only directories too; no link is followed. That it is not there is fine.
///
/// # Errors
///
/// As the system refuses to list, change or remove one of the entries.
pub fn remove(dir: &Path) -> io::Result<()> {
    let removed = fs::remove_dir_all(dir).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            open_up(dir)?;
            fs::remove_dir_all(dir)
        }
        _ => Err(error),
    });
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Lets the owner of a directory, and of those below it, list and change it.
fn open_up(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn read_only_directories_are_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, tree) = (dir.path().join("outside"), dir.path().join("tree"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        for part in ["a/b", "a"] {
            fs::set_permissions(tree.join(part), fs::Permissions::from_mode(0o500)).unwrap();
        }
        let before = fs::metadata(&outside).unwrap().permissions().mode();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode(), before);
        remove(&tree).unwrap();
    }
}
