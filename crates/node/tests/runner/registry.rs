//! A real registry server, started for one test: Debian's `docker-registry` (the reference implementation).

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use reqwest::header::{CONTENT_TYPE, LOCATION};

use crate::oci::{MANIFEST, OciImage};

/// Set by the test command when there is no registry server and none can be installed.
const SKIP: &str = "MUTUAL_SKIP_REGISTRY";

/// A registry on a port of its own; it dies with this.
pub(crate) struct Registry {
    child: Child,
    /// `HOST:PORT`.
    pub(crate) address: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// None if the test command said that there is none.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var_os(SKIP).is_some() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            dir.path().join("data")
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}; install it or set {SKIP}"));
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let address = listening(&mut said);
        // Its log must go somewhere, or it stops at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Some(Self {
            child,
            address,
            dir,
        })
    }

    /// Uploads an image as any client does.
    pub(crate) async fn push(&self, image: &OciImage, name: &str, tag: &str) {
        for (digest, bytes) in &image.blobs {
            self.push_blob(name, digest, bytes).await;
        }
        let url = format!("http://{}/v2/{name}/manifests/{tag}", self.address);
        let request = reqwest::Client::new()
            .put(url)
            .header(CONTENT_TYPE, MANIFEST);
        let reply = request
            .body(image.blobs[&image.name].clone())
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 201, "{:?}", reply.text().await);
    }

    async fn push_blob(&self, name: &str, digest: &str, bytes: &[u8]) {
        let client = reqwest::Client::new();
        let url = format!("http://{}/v2/{name}/blobs/uploads/", self.address);
        let reply = client.post(url).send().await.unwrap();
        assert_eq!(reply.status(), 202);
        let place = reply.headers()[LOCATION].to_str().unwrap().to_owned();
        let put = client.put(format!("{place}&digest={digest}"));
        let reply = put.body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(reply.status(), 201, "{:?}", reply.text().await);
    }

    /// Where the server keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = "data/docker/registry/v2/blobs/sha256";
        self.dir
            .path()
            .join(blobs)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

/// Reads the log until it says where the server listens.
fn listening(log: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let address = rest.split(['"', ',', ' ']).next().unwrap();
            return address.trim().to_owned();
        }
        line.clear();
    }
    panic!("the registry ended before it listened");
}
