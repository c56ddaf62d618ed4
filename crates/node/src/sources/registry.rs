//! Pulls an image from a registry into an OCI layout directory, every byte checked against its digest.
//!
//! The layout is what `mutual_data::image` takes in, so a registry is asked once per site and peers serve the rest.
//! Registries speak HTTPS; plain HTTP is for registries on this very machine.
//!
//! Specification: <https://github.com/opencontainers/distribution-spec>, image-layout.md of the image specification.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;

/// Largest blob: what the image importer takes as well.
const BLOB_BYTES_MAX: i64 = 64 * 1024 * 1024 * 1024;
/// Most layers, as for the importer.
const LAYERS_MAX: usize = 256;
/// Largest manifest (the distribution specification asks registries for 4 MiB).
const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A registry that says nothing for this long is given up.
const SILENT_MAX: Duration = Duration::from_secs(60);
const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Name and password or token for a registry.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// None.
    #[default]
    Anonymous,
    /// A user's.
    User {
        /// The name.
        name: String,
        /// The password, never shown.
        password: zeroize::Zeroizing<String>,
    },
}

/// A pulled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of its manifest, `sha256:` and 64 digits: the image's name for good.
    pub digest: String,
    /// Bytes fetched now.
    pub bytes: u64,
}

/// Why an image was not pulled. Blobs that were checked stay and are not fetched again.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference cannot be read.
    #[error(
        "image {reference:?} is no registry reference ({why}); write HOST/NAME:TAG or HOST/NAME@sha256:DIGEST"
    )]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// The registry refused or could not be reached.
    #[error("registry {registry}: {source}")]
    Registry {
        /// The registry's host.
        registry: String,
        /// Its word.
        source: Box<OciDistributionError>,
    },
    /// The registry sent something other than what its digest names.
    #[error(
        "{what} does not match digest {expected}; the registry or something on the way is broken"
    )]
    Digest {
        /// What was sent.
        what: &'static str,
        /// The digest asked for.
        expected: String,
    },
    /// The image cannot be used here.
    #[error("image {reference}: {why}")]
    Image {
        /// The image.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::Io { path, source }
}

/// Pulls `reference` for this machine's platform into the layout directory `layout`, which may hold other blobs
/// already; `index.json` then names this image alone.
///
/// # Errors
/// [`PullError`].
pub async fn pull(reference: &str, layout: &Path, access: &Access) -> Result<Pulled, PullError> {
    let image: Reference = parse(reference)?;
    let session = Session::open(image, layout, access)?;
    let (manifest, digest) = session.manifest().await?;
    session.check(&manifest)?;
    let mut bytes = 0;
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        bytes += session.blob(blob).await?;
    }
    session.finish(&digest)?;
    Ok(Pulled { digest, bytes })
}

fn parse(reference: &str) -> Result<Reference, PullError> {
    reference
        .parse()
        .map_err(|error: oci_client::ParseError| PullError::Reference {
            reference: reference.chars().take(200).collect(),
            why: error.to_string(),
        })
}

/// Plain HTTP stays on this machine.
fn protocol(registry: &str) -> ClientProtocol {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    match host {
        "localhost" | "127.0.0.1" | "[::1]" => {
            ClientProtocol::HttpsExcept(vec![registry.to_owned()])
        }
        _ => ClientProtocol::Https,
    }
}

struct Session {
    client: Client,
    auth: RegistryAuth,
    image: Reference,
    layout: PathBuf,
}

/// A fetched manifest, and the digest of its bytes.
type Fetched = (bytes::Bytes, String);

impl Session {
    fn open(image: Reference, layout: &Path, access: &Access) -> Result<Self, PullError> {
        // Another part of the program may have chosen the provider before: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: protocol(image.resolve_registry()),
            read_timeout: Some(SILENT_MAX),
            connect_timeout: Some(SILENT_MAX),
            ..ClientConfig::default()
        };
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(at(&blobs))?;
        Ok(Self {
            client: Client::new(config),
            auth: auth(access),
            image,
            layout: layout.to_owned(),
        })
    }

    fn registry(&self) -> impl Fn(OciDistributionError) -> PullError {
        let registry = self.image.resolve_registry().to_owned();
        move |source| PullError::Registry {
            registry: registry.clone(),
            source: Box::new(source),
        }
    }

    fn refuse(&self, why: impl Into<String>) -> PullError {
        PullError::Image {
            reference: self.image.whole(),
            why: why.into(),
        }
    }

    /// The manifest for this platform, through an index if there is one.
    async fn manifest(&self) -> Result<(OciImageManifest, String), PullError> {
        let (bytes, digest) = self.fetch(&self.image, self.image.digest()).await?;
        match self.decode(&bytes)? {
            OciManifest::Image(manifest) => {
                self.keep(&digest, &bytes)?;
                Ok((manifest, digest))
            }
            OciManifest::ImageIndex(index) => {
                let chosen = oci_client::client::current_platform_resolver(&index.manifests)
                    .ok_or_else(|| self.refuse("has nothing for this machine's platform"))?;
                self.chosen(&chosen).await
            }
        }
    }

    async fn chosen(&self, digest: &str) -> Result<(OciImageManifest, String), PullError> {
        let image = self.image.clone_with_digest(digest.to_owned());
        let (bytes, digest) = self.fetch(&image, Some(digest)).await?;
        match self.decode(&bytes)? {
            OciManifest::Image(manifest) => {
                self.keep(&digest, &bytes)?;
                Ok((manifest, digest))
            }
            OciManifest::ImageIndex(_) => Err(self.refuse("has an index within its index")),
        }
    }

    async fn fetch(&self, image: &Reference, expected: Option<&str>) -> Result<Fetched, PullError> {
        let (bytes, _) = self
            .client
            .pull_manifest_raw(image, &self.auth, ACCEPTED)
            .await
            .map_err(self.registry())?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(self.refuse(format!("its manifest exceeds {MANIFEST_BYTES_MAX} bytes")));
        }
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        match expected {
            Some(expected) if expected != digest => Err(PullError::Digest {
                what: "the manifest",
                expected: expected.to_owned(),
            }),
            _ => Ok((bytes, digest)),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<OciManifest, PullError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.refuse(format!("its manifest cannot be read: {error}")))
    }

    fn check(&self, manifest: &OciImageManifest) -> Result<(), PullError> {
        if manifest.layers.len() > LAYERS_MAX {
            return Err(self.refuse(format!("has more than {LAYERS_MAX} layers")));
        }
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        for blob in blobs {
            if !(0..=BLOB_BYTES_MAX).contains(&blob.size) {
                return Err(self.refuse(format!(
                    "blob {} has an absurd size, {} bytes",
                    blob.digest, blob.size
                )));
            }
        }
        Ok(())
    }

    /// Where a blob lies. Only SHA-256 digests are names here, so a digest cannot lead elsewhere.
    fn path(&self, digest: &str) -> Result<PathBuf, PullError> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let valid = hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match valid {
            true => Ok(self.layout.join("blobs/sha256").join(hex)),
            false => Err(self.refuse(format!("digest {digest:?} is not sha256 with 64 digits"))),
        }
    }

    fn keep(&self, digest: &str, bytes: &[u8]) -> Result<(), PullError> {
        let path = self.path(digest)?;
        std::fs::write(&path, bytes).map_err(at(&path))
    }

    /// Fetches a blob unless it is there; a blob has its name only after its digest was checked.
    async fn blob(&self, blob: &OciDescriptor) -> Result<u64, PullError> {
        let path = self.path(&blob.digest)?;
        if path.exists() {
            return Ok(0);
        }
        let size = blob.size.unsigned_abs();
        let part = tempfile::NamedTempFile::new_in(&self.layout).map_err(at(&self.layout))?;
        let file = tokio::fs::File::from_std(part.reopen().map_err(at(&path))?);
        let mut bounded = Bounded { file, left: size };
        match self.client.pull_blob(&self.image, blob, &mut bounded).await {
            Err(OciDistributionError::DigestError(_)) => {
                return Err(PullError::Digest {
                    what: "a layer",
                    expected: blob.digest.clone(),
                });
            }
            other => other.map_err(self.registry())?,
        }
        part.persist(&path)
            .map_err(|error| at(&path)(error.error))?;
        Ok(size)
    }

    fn finish(&self, digest: &str) -> Result<(), PullError> {
        let manifest = self.path(digest)?;
        let size = std::fs::metadata(&manifest).map_err(at(&manifest))?.len();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": size,
                "annotations": { "org.opencontainers.image.ref.name": self.image.whole() },
            }],
        });
        let write = |name: &str, value: &serde_json::Value| {
            let path = self.layout.join(name);
            std::fs::write(&path, value.to_string()).map_err(at(&path))
        };
        write(
            "oci-layout",
            &serde_json::json!({ "imageLayoutVersion": "1.0.0" }),
        )?;
        write("index.json", &index)
    }
}

fn auth(access: &Access) -> RegistryAuth {
    match access {
        Access::Anonymous => RegistryAuth::Anonymous,
        Access::User { name, password } => RegistryAuth::Basic(name.clone(), password.to_string()),
    }
}

/// Takes no more bytes than the manifest announced.
struct Bounded {
    file: tokio::fs::File,
    left: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.left {
            let longer = io::Error::new(
                io::ErrorKind::InvalidData,
                "the blob is longer than its manifest says",
            );
            return Poll::Ready(Err(longer));
        }
        let wrote = Pin::new(&mut self.file).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &wrote {
            self.left -= u64::try_from(*count).unwrap_or(u64::MAX);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for registry in [
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "localhost",
        ] {
            assert!(
                matches!(protocol(registry), ClientProtocol::HttpsExcept(_)),
                "{registry}"
            );
        }
        for registry in [
            "registry.example",
            "localhost.evil.example:80",
            "10.0.0.1:5000",
            "127.0.0.1.evil.example",
        ] {
            assert!(
                matches!(protocol(registry), ClientProtocol::Https),
                "{registry}"
            );
        }
    }

    #[test]
    fn references_that_are_none_are_told() {
        for bad in ["", "host/UPPER", "host/name@sha256:short", "a b"] {
            let error = parse(bad).expect_err("a bad reference");
            assert!(error.to_string().contains("HOST/NAME"), "{error}");
        }
    }
}
