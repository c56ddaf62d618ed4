//! Taking an image in: from a layout directory, a tar of one, or an older `docker save`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::archive::{self, Member};
use super::{Descriptor, Digest, ImageError, Index, JSON_BYTES_MAX, Manifest, parse, within};
use crate::address::Codec;
use crate::dag::{self, BLOBS_MAX, Node, Section};
use crate::seal::{CHUNK_BYTES, ChunkSeal};
use crate::section::{SectionReader, SectionWriter};
use crate::store::Batch;
use crate::tree::Root;

/// Takes the image in `path` (a layout directory, or an archive, compressed or not) into the store. `namespace` says
/// whose members may fetch it; none means any member. Commit the root with [`Batch::commit`].
///
/// # Errors
/// [`ImageError::NotAnImage`], [`ImageError::MissingBlob`], [`ImageError::Digest`], [`ImageError::Io`],
/// [`ImageError::Store`].
pub fn import(batch: &Batch, path: &Path, namespace: Option<String>) -> Result<Root, ImageError> {
    let shown = path.to_string_lossy().into_owned();
    let at = || ImageError::at(shown.as_bytes());
    let mut importer = Importer {
        batch,
        layout: None,
        blobs: BTreeMap::new(),
    };
    let index = if std::fs::metadata(path).map_err(at())?.is_dir() {
        importer.layout = Some(path);
        importer.file_in_layout("index.json")?
    } else {
        let archive = archive::decompress(File::open(path).map_err(at())?).map_err(at())?;
        importer.archive(archive)?
    };
    let wanted = importer.reach(&index)?;
    importer.blobs.retain(|digest, _| wanted.contains(digest));
    importer.store_manifest(index, namespace)
}

struct Importer<'a> {
    batch: &'a Batch,
    /// Where blobs that are needed are read from; an archive's were all taken in on the way.
    layout: Option<&'a Path>,
    blobs: BTreeMap<Digest, Section>,
}

impl Importer<'_> {
    fn file_in_layout(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.layout.unwrap_or(Path::new("")).join(name);
        let shown = path.to_string_lossy();
        let file = File::open(&path)
            .map_err(|e| ImageError::NotAnImage(format!("{shown} cannot be read: {e}")))?;
        read_small(&mut { file }, &shown)
    }

    /// Finds every blob that the index needs. A manifest that is not here (another platform's) is passed over, but
    /// one must be.
    fn reach(&mut self, index: &[u8]) -> Result<Vec<Digest>, ImageError> {
        const DEPTH_MAX: usize = 3;
        let mut wanted = Vec::new();
        let mut found = 0;
        let mut level = Index::parse(index)?.manifests;
        for _ in 0..DEPTH_MAX {
            let mut next = Vec::new();
            for descriptor in &level {
                let Some(bytes) = self.json(descriptor)? else {
                    continue;
                };
                wanted.push(descriptor.sha256()?);
                if descriptor.is_index() {
                    next.extend(Index::parse(&bytes)?.manifests);
                    continue;
                }
                found += 1;
                for blob in Manifest::parse(&bytes)?.blobs() {
                    wanted.push(self.require(blob)?);
                }
            }
            level = next;
        }
        if found == 0 {
            return Err(ImageError::NotAnImage(
                "none of its manifests is in it".into(),
            ));
        }
        Ok(wanted)
    }

    fn json(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, ImageError> {
        if descriptor.size > JSON_BYTES_MAX {
            return Err(ImageError::TooLarge {
                what: "bytes in a manifest",
                max: JSON_BYTES_MAX,
            });
        }
        match self.require(descriptor) {
            Err(ImageError::MissingBlob(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(digest) => self.read_back(&self.blobs[&digest]).map(Some),
        }
    }

    fn read_back(&self, section: &Section) -> Result<Vec<u8>, ImageError> {
        let store = self.batch.store();
        let mut reader = SectionReader::new(store, ChunkSeal::Public, section, CHUNK_BYTES);
        read_small(&mut reader, "manifest")
    }

    /// Makes sure that a blob is in the store, with the size its descriptor says.
    fn require(&mut self, descriptor: &Descriptor) -> Result<Digest, ImageError> {
        let digest = descriptor.sha256()?;
        if let Some(layout) = self.layout
            && !self.blobs.contains_key(&digest)
        {
            let name = hex::encode(digest);
            let path = layout.join("blobs").join("sha256").join(&name);
            let missing = |_| ImageError::MissingBlob(name.clone());
            let mut file = File::open(path).map_err(missing)?;
            self.take_blob(&mut file, Some(&name))?;
        }
        match self.blobs.get(&digest) {
            None => Err(ImageError::MissingBlob(hex::encode(digest))),
            Some(section) if section.root.payload != descriptor.size => {
                Err(ImageError::Digest(hex::encode(digest)))
            }
            Some(_) => Ok(digest),
        }
    }

    /// Cuts a blob into the store and hashes it; `name` is the digest it claims to have.
    fn take_blob(
        &mut self,
        reader: &mut dyn Read,
        name: Option<&str>,
    ) -> Result<Digest, ImageError> {
        let shown = name.unwrap_or("blob");
        let mut reader = Hashing {
            inner: reader,
            hasher: Sha256::new(),
        };
        let mut writer = SectionWriter::new(self.batch, ChunkSeal::Public);
        let copied = writer.copy_from(&mut reader, u64::MAX);
        copied.map_err(ImageError::at(shown.as_bytes()))?;
        let digest: Digest = reader.hasher.finalize().into();
        if name.is_some_and(|name| name != hex::encode(digest)) {
            return Err(ImageError::Digest(shown.to_owned()));
        }
        if self.blobs.len() >= BLOBS_MAX {
            return Err(ImageError::TooLarge {
                what: "blobs",
                max: BLOBS_MAX as u64,
            });
        }
        self.blobs.insert(digest, writer.finish()?);
        Ok(digest)
    }

    /// Takes in all members of an archive and returns its `index.json`, made up if it is an older `docker save`.
    fn archive(&mut self, archive: impl Read) -> Result<Vec<u8>, ImageError> {
        let mut files = Files::default();
        archive::each(archive, &mut |member, contents| {
            self.archive_member(&mut files, member, contents)
        })?;
        match (files.index.take(), files.docker.take()) {
            (Some(index), _) => Ok(index),
            (None, Some(manifest)) => self.convert_docker(&files, &manifest),
            (None, None) => Err(ImageError::NotAnImage(
                "the archive has no index.json or manifest.json".into(),
            )),
        }
    }

    fn archive_member(
        &mut self,
        files: &mut Files,
        member: &Member,
        contents: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let path = archive_path(&member.path)?;
        match (member.kind, path.as_str()) {
            (EntryType::Symlink, _) => {
                let target = resolve_link(&path, &member.link);
                files.links.insert(path, target);
            }
            (EntryType::Regular, "index.json") => files.index = Some(read_small(contents, &path)?),
            (EntryType::Regular, "manifest.json") => {
                files.docker = Some(read_small(contents, &path)?);
            }
            (EntryType::Regular, _) => {
                let digest = self.take_blob(contents, path.strip_prefix("blobs/sha256/"))?;
                files.blobs.insert(path, digest);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the OCI manifest and index that an older `docker save` lacks.
    fn convert_docker(&mut self, files: &Files, manifest: &[u8]) -> Result<Vec<u8>, ImageError> {
        let images: Vec<DockerImage> = parse("manifest.json", manifest)?;
        let mut manifests = Vec::new();
        for image in &images {
            let config = self.describe(files, &image.config, "config.v1+json")?;
            let layers: Result<Vec<_>, _> = image
                .layers
                .iter()
                .map(|layer| self.describe(files, layer, "layer.v1.tar"))
                .collect();
            let oci = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": layers?,
            });
            let bytes = oci.to_string().into_bytes();
            let digest = self.take_blob(&mut bytes.as_slice(), None)?;
            manifests.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", hex::encode(digest)),
                "size": bytes.len(),
                "annotations": image.annotations(),
            }));
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        Ok(index.to_string().into_bytes())
    }

    fn describe(
        &self,
        files: &Files,
        path: &str,
        kind: &str,
    ) -> Result<serde_json::Value, ImageError> {
        let digest = files
            .find(path)
            .ok_or_else(|| ImageError::NotAnImage(format!("{path} is not in it")))?;
        Ok(serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", hex::encode(digest)),
            "size": self.blobs[&digest].root.payload,
        }))
    }

    fn store_manifest(self, index: Vec<u8>, namespace: Option<String>) -> Result<Root, ImageError> {
        let blobs = self.blobs.into_iter();
        let node = Node::Image(dag::Image {
            version: dag::VERSION,
            namespace,
            index,
            blobs: blobs
                .map(|(sha256, section)| dag::Blob { sha256, section })
                .collect(),
        });
        let block = node.encode();
        // What we write, strangers must be able to read: our own limits hold for us too.
        let bytes = Node::decode(&block)?.total_bytes(block.len())?;
        let cid = self.batch.add(Codec::Node, &block)?;
        Ok(Root { cid, bytes })
    }
}

/// What was found in an archive.
#[derive(Default)]
struct Files {
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    blobs: BTreeMap<String, Digest>,
    links: BTreeMap<String, String>,
}

impl Files {
    /// Older `docker save` links a layer that two images share.
    fn find(&self, path: &str) -> Option<Digest> {
        let path = self.links.get(path).map_or(path, String::as_str);
        self.blobs.get(path).copied()
    }
}

/// One image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl DockerImage {
    fn annotations(&self) -> BTreeMap<&str, &str> {
        let tag = self.repo_tags.iter().flatten().next();
        tag.map(|tag| ("org.opencontainers.image.ref.name", tag.as_str()))
            .into_iter()
            .collect()
    }
}

fn archive_path(path: &[u8]) -> Result<String, ImageError> {
    let refuse = |why| ImageError::UnsafeName {
        path: crate::beneath::display(path),
        why,
    };
    let names = within::names(path).map_err(refuse)?;
    String::from_utf8(names.join(&b'/')).map_err(|_| refuse("it is not UTF-8"))
}

/// `a/layer.tar → ../b/layer.tar` is `b/layer.tar`. Only a name to look up: nothing is opened by it.
fn resolve_link(path: &str, target: &[u8]) -> String {
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop();
    let target = String::from_utf8_lossy(target).into_owned();
    for name in target.split('/') {
        match name {
            ".." => drop(names.pop()),
            "" | "." => {}
            name => names.push(name),
        }
    }
    names.join("/")
}

fn read_small(reader: &mut dyn Read, what: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = reader.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(ImageError::at(what.as_bytes()))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(ImageError::TooLarge {
            what: "bytes in a manifest",
            max: JSON_BYTES_MAX,
        });
    }
    Ok(bytes)
}

struct Hashing<'a> {
    inner: &'a mut dyn Read,
    hasher: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.hasher.update(&out[..read]);
        Ok(read)
    }
}
