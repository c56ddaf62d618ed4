//! Secret keys and certificates as files.
//!
//! A key file is one line, `mutual-key-v1` and the seed in hexadecimal, readable by its owner
//! alone. A certificate file is the certificate in hexadecimal. Both are written atomically, so
//! that a crash leaves the old file or the new one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mutual_model::identity::{CERTIFICATE_BYTES_MAX, Certificate, IdentityError, NodeKey};
use zeroize::Zeroizing;

const KEY_PREFIX: &str = "mutual-key-v1 ";
/// A key file holds far less; anything longer is another kind of file.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// Why a key or certificate file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read a secret key.
    #[error("{}: others can read this secret key (mode {mode:o}); run chmod 600 on it", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{}: not a key file; expected one line starting with {KEY_PREFIX:?}", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no certificate.
    #[error("{}: {source}", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { path, source }
}

/// Reads a secret key.
///
/// # Errors
/// [`KeyFileError::Io`], [`KeyFileError::Exposed`] if group or others can read it, or
/// [`KeyFileError::NoKey`].
pub fn load_key(path: &Path) -> Result<NodeKey, KeyFileError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        });
    }
    let no_key = || KeyFileError::NoKey {
        path: path.to_owned(),
    };
    if metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(no_key());
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(io_error(path))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| no_key())?;
    let digits = text
        .trim_end()
        .strip_prefix(KEY_PREFIX)
        .ok_or_else(no_key)?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, seed.as_mut()).map_err(|_| no_key())?;
    Ok(NodeKey::from_seed(&seed))
}

/// Writes a secret key that only the owner can read; an existing file is left alone.
///
/// # Errors
/// [`KeyFileError::Io`], of kind `AlreadyExists` if there is a file.
pub fn store_new_key(path: &Path, key: &NodeKey) -> Result<(), KeyFileError> {
    let digits = Zeroizing::new(hex::encode(key.seed().as_ref()));
    let line = Zeroizing::new(format!("{KEY_PREFIX}{}\n", digits.as_str()));
    create_parent(path)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error(path))?;
    file.write_all(line.as_bytes()).map_err(io_error(path))?;
    file.sync_all().map_err(io_error(path))
}

/// Reads a secret key, or makes and stores a new one if there is no file.
///
/// # Errors
/// As [`load_key`] and [`store_new_key`].
pub fn load_or_create_key(path: &Path) -> Result<NodeKey, KeyFileError> {
    if path.exists() {
        return load_key(path);
    }
    let key = NodeKey::generate(&mut rand::rng());
    match store_new_key(path, &key) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            load_key(path)
        }
        stored => stored.map(|()| key),
    }
}

/// Reads a certificate. It is well-formed but not yet trusted.
///
/// # Errors
/// [`KeyFileError::Io`] or [`KeyFileError::NoCertificate`].
pub fn load_certificate(path: &Path) -> Result<Certificate, KeyFileError> {
    let no_certificate = |source| KeyFileError::NoCertificate {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(io_error(path))?.len();
    if length > 2 * CERTIFICATE_BYTES_MAX as u64 + 2 {
        return Err(no_certificate(IdentityError::Malformed(
            "file too long".into(),
        )));
    }
    let text = fs::read(path).map_err(io_error(path))?;
    let bytes = hex::decode(text.trim_ascii())
        .map_err(|_| no_certificate(IdentityError::Malformed("not hexadecimal".into())))?;
    Certificate::from_bytes(&bytes).map_err(no_certificate)
}

/// Writes a certificate.
///
/// # Errors
/// [`KeyFileError::Io`].
pub fn store_certificate(path: &Path, certificate: &Certificate) -> Result<(), KeyFileError> {
    let line = format!("{}\n", hex::encode(certificate.to_bytes()));
    write_atomically(path, line.as_bytes(), 0o644)
}

/// Replaces a file as a whole: written beside it, made durable, renamed over it.
///
/// # Errors
/// [`KeyFileError::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    create_parent(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&beside);
        io_error(path)(source)
    })
}

fn create_parent(path: &Path) -> Result<(), KeyFileError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(io_error(parent)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_survives_its_file_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/node.key");
        let made = load_or_create_key(&path).unwrap();
        assert_eq!(load_or_create_key(&path).unwrap().id(), made.id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_key(&path),
            Err(KeyFileError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn other_files_are_no_keys_and_no_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for bytes in [&b""[..], b"mutual-key-v1 12", b"\xff\xfe", &[b'a'; 40_000]] {
            write_atomically(&path, bytes, 0o600).unwrap();
            assert!(matches!(load_key(&path), Err(KeyFileError::NoKey { .. })));
            assert!(matches!(
                load_certificate(&path),
                Err(KeyFileError::NoCertificate { .. })
            ));
        }
    }
}
