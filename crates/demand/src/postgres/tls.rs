//! TLS to the database, as the connection string asks for it.
//!
//! `sslmode=require` means TLS under a certificate that names the host and that the machine's own list of authorities
//! vouches for, or the file `sslrootcert`. There is no TLS without that check: it would only look safe. `disable`, and
//! PostgreSQL's default `prefer`, mean none: for a database on the same machine, or behind a network that encrypts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mutual_model::job::FieldError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The parameter of a connection string that names authorities of its own; PostgreSQL's libpq has it too.
const ROOT_PARAMETER: &str = "sslrootcert=";

/// What connections are made with.
#[derive(Clone)]
pub(super) enum Tls {
    Plain,
    Verified(MakeRustlsConnect),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Verified(_) => "Verified",
        })
    }
}

/// A connection string without what its driver does not know, and the file of authorities that it names.
pub(super) fn parted(url: &str) -> (String, Option<PathBuf>) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let root = query
        .split('&')
        .find_map(|part| part.strip_prefix(ROOT_PARAMETER));
    let rest: Vec<&str> = query
        .split('&')
        .filter(|part| !part.starts_with(ROOT_PARAMETER))
        .collect();
    let rest = rest.join("&");
    let url = if rest.is_empty() {
        address.to_owned()
    } else {
        format!("{address}?{rest}")
    };
    (url, root.map(PathBuf::from))
}

impl Tls {
    pub(super) fn new(config: &Config, root: Option<&Path>) -> Result<Self, FieldError> {
        let refused = |problem: String, fix: &str| FieldError::new("postgres", problem, fix);
        match config.get_ssl_mode() {
            SslMode::Require => {}
            _ if root.is_some() => {
                let fix = "add sslmode=require, or leave sslrootcert out";
                return Err(refused("sslrootcert without TLS".into(), fix));
            }
            _ => return Ok(Self::Plain),
        }
        let roots = match root {
            Some(path) => roots_in(path).map_err(|problem| {
                let problem = format!("sslrootcert {}: {problem}", path.display());
                refused(problem, "name a file of PEM certificates")
            })?,
            None => roots_of_machine(),
        };
        if roots.is_empty() {
            let fix = "install ca-certificates, or name a file with sslrootcert=PATH";
            return Err(refused("no authority to check the server by".into(), fix));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string(), "report this"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Verified(MakeRustlsConnect::new(config)))
    }
}

fn roots_in(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn roots_of_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(unusable, errors = ?found.errors, "authorities of this machine");
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_never_sees_the_authorities_parameter() {
        for (given, url, root) in [
            ("postgres://a/b", "postgres://a/b", None),
            (
                "postgres://a/b?sslrootcert=/c.pem",
                "postgres://a/b",
                Some("/c.pem"),
            ),
            (
                "postgres://a/b?sslmode=require&sslrootcert=/c.pem&user=x",
                "postgres://a/b?sslmode=require&user=x",
                Some("/c.pem"),
            ),
        ] {
            assert_eq!(parted(given), (url.to_owned(), root.map(PathBuf::from)));
        }
    }

    #[test]
    fn authorities_that_cannot_be_used_are_named() {
        let require: Config = "postgres://a/b?sslmode=require".parse().unwrap();
        let missing = Tls::new(&require, Some(Path::new("/nowhere.pem"))).unwrap_err();
        assert!(missing.to_string().contains("/nowhere.pem"), "{missing}");
        let plain: Config = "postgres://a/b".parse().unwrap();
        let idle = Tls::new(&plain, Some(Path::new("/nowhere.pem"))).unwrap_err();
        assert!(idle.to_string().contains("sslmode=require"), "{idle}");
        assert!(matches!(Tls::new(&plain, None), Ok(Tls::Plain)));
    }
}
