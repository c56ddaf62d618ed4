//! Files below a directory, one name at a time, so that no name and no symbolic link leads out of it.
//!
//! Every call takes an open directory and a single name, and never follows a link. A path made of several names is
//! walked step by step. This needs no `openat2`, which older kernels and some seccomp profiles lack.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

/// Longest single name Linux file systems take, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Whether `name` is one plain step: not empty, not `.` or `..`, without `/` and NUL.
pub(crate) fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// Opens a directory that the caller chose; here links are followed.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// As [`open_root`], but what stands at the path must be a directory itself: whoever may write beside it could have put
/// a link there.
pub(crate) fn open_own_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Opens a regular file for reading. A pipe put in its place does not block: it is refused.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok((File::from(file), stat))
}

/// Whether a file has the size and the time of change that it had when it was opened.
pub(crate) fn is_as_before(file: &File, before: &Stat) -> io::Result<bool> {
    let now = rustix::fs::fstat(file)?;
    let facts = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    Ok(facts(&now) == facts(before))
}

/// Makes a new file, readable by its owner only until its mode is set.
pub(crate) fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// Makes a directory, or takes a real one that is there already, and opens it.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => open_dir(dir, name),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn file_type(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(stat(dir, name)?.st_mode))
}

pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// The names in a directory, sorted by bytes, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes whatever stands under `name`, a directory with all it holds; nothing there is no error.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let flags = match file_type(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(FileType::Directory) => {
            empty(dir, name)?;
            AtFlags::REMOVEDIR
        }
        Ok(_) => AtFlags::empty(),
    };
    Ok(rustix::fs::unlinkat(dir, name, flags)?)
}

fn empty(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let inner = open_dir(dir, name)?;
    for name in names(inner.as_fd())? {
        remove(inner.as_fd(), &name)?;
    }
    Ok(())
}

/// A path as people read it.
pub(crate) fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_steps_are_plain() {
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_plain_name(name.as_bytes()), "{name:?}");
        }
        assert!(!is_plain_name(&[b'a'; 256]));
        for name in ["a", "...", ".wh.x", "ä", " "] {
            assert!(is_plain_name(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_is_written_to_is_not_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let root = open_root(dir.path()).unwrap();
        let (file, stat) = open_file(root.as_fd(), b"file").unwrap();
        assert!(is_as_before(&file, &stat).unwrap());
        // Its name may change.
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        assert!(is_as_before(&file, &stat).unwrap());
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        let written = File::options().write(true).open(dir.path().join("other"));
        written.unwrap().set_modified(later).unwrap();
        assert!(!is_as_before(&file, &stat).unwrap());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("file")).unwrap();
        assert!(open_dir(root.as_fd(), b"link").is_err());
        assert!(open_own_root(&dir.path().join("link")).is_err());
        assert!(open_own_root(dir.path()).is_ok());
        assert!(make_dir(root.as_fd(), b"link").is_err());
        assert!(open_file(root.as_fd(), b"file").is_err());
        assert!(create_file(root.as_fd(), b"file").is_err());
        remove(root.as_fd(), b"link").unwrap();
        assert!(Path::new("/etc/passwd").exists());
    }
}
