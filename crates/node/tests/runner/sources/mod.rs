//! Pulling from a registry on this machine, honest and not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::extract::{Path as Name, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use mutual_node::data::image::Image;
use mutual_node::runtime::{Class, Config, Layout, RunSpec, Runtime};
use mutual_node::sources::registry::{Access, PullError, pull};

use crate::oci::{MANIFEST, OciImage, digest};

/// What a registry holds, by the name under which it is asked for.
type Shelf = BTreeMap<String, Vec<u8>>;

/// A layer with one file.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let content = b"from the registry\n";
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "greeting", content.as_slice())
        .expect("a vector takes bytes");
    tar.into_inner().expect("a vector takes bytes")
}

/// An image of one layer, as a registry holds it, and the digest of its manifest.
fn image(layer: &[u8]) -> (Shelf, String) {
    let settings =
        serde_json::json!({ "Env": ["FROM=image"], "Cmd": ["/bin/show"], "WorkingDir": "/" });
    let image = OciImage::new(layer, &settings);
    let manifest = image.blobs[&image.name].clone();
    let mut shelf = image.blobs;
    shelf.insert("latest".to_owned(), manifest);
    (shelf, image.name)
}

async fn serve(shelf: Shelf) -> SocketAddr {
    let answer = |State(shelf): State<Shelf>, Name((_, name)): Name<(String, String)>| async move {
        let found = shelf.get(&name).cloned();
        let found = found.map(|bytes| ([(header::CONTENT_TYPE, MANIFEST)], bytes));
        found.ok_or(StatusCode::NOT_FOUND).into_response()
    };
    let routes = Router::new()
        .route("/v2/", get(|| async { "{}" }))
        .route("/v2/app/{kind}/{name}", get(answer))
        .with_state(shelf);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn pulled(shelf: Shelf, tag: &str, layout: &Path) -> Result<String, PullError> {
    let address = serve(shelf).await;
    let reference = format!("{address}/app{tag}");
    pull(&reference, layout, &Access::Anonymous)
        .await
        .map(|pulled| pulled.digest)
}

#[tokio::test]
async fn an_image_is_pulled_whole_and_only_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (shelf, name) = image(&layer());
    let address = serve(shelf).await;
    let reference = format!("{address}/app:latest");
    let first = pull(&reference, dir.path(), &Access::Anonymous)
        .await
        .expect("an image");
    assert_eq!(first.digest, name);
    assert!(first.bytes > 0);
    let again = pull(&reference, dir.path(), &Access::Anonymous)
        .await
        .expect("an image");
    assert_eq!(again.bytes, 0, "blobs that are there are not fetched again");
    let names = Image::from_layout(dir.path())
        .expect("a layout")
        .names()
        .expect("names");
    assert_eq!(names, [reference]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_becomes_a_root() {
    let dir = tempfile::tempdir().expect("a directory");
    let (shelf, name) = image(&layer());
    let layout = dir.path().join("layout");
    pulled(shelf, &format!("@{name}"), &layout)
        .await
        .expect("an image");
    let mut config = Config::new(dir.path().join("state"));
    config.shim = Some(env!("CARGO_BIN_EXE_mutual-shim").into());
    let runtime = Runtime::open(config).await.expect("a runtime");
    let root = runtime.images().of_layout(&layout, &name).expect("a root");
    let same = runtime
        .images()
        .of_layout(Path::new("/gone"), &name)
        .expect("the root from before");
    assert_eq!(root.dir, same.dir);
    let text = std::fs::read_to_string(root.dir.join("greeting")).expect("the image's file");
    assert_eq!(text, "from the registry\n");

    let task = Layout::prepare(dir.path().join("task")).expect("a task directory");
    let mut spec = RunSpec::new("image", Class::Container, Vec::new(), task.dir);
    root.apply(&mut spec);
    assert_eq!(spec.argv, ["/bin/show"]);
    assert_eq!(spec.env["FROM"], "image");
    if runtime.offer().class(Class::Container).is_some() {
        let error = runtime
            .start(spec)
            .await
            .expect_err("the image has no such program");
        assert!(error.to_string().contains("/bin/show"), "{error}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_what_their_digest_names_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let honest = layer();
    let forged = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let (mut shelf, _) = image(&honest);
        change(shelf.get_mut(name).expect("a blob"));
        shelf
    };
    let name = digest(&honest);
    let flipped = forged(&name, &|bytes| bytes[0] ^= 1);
    let error = pulled(flipped, ":latest", &dir.path().join("flipped"))
        .await
        .expect_err("a forged layer");
    assert!(
        matches!(
            error,
            PullError::Digest {
                what: "a layer",
                ..
            }
        ),
        "{error}"
    );
    let longer = forged(&name, &|bytes| bytes.resize(bytes.len() + (1 << 20), 0));
    let error = pulled(longer, ":latest", &dir.path().join("longer"))
        .await
        .expect_err("a longer layer");
    assert!(matches!(error, PullError::Registry { .. }), "{error}");
    for part in ["flipped", "longer"] {
        let blob = dir
            .path()
            .join(part)
            .join("blobs/sha256")
            .join(name.trim_start_matches("sha256:"));
        assert!(!blob.exists(), "{part}: an unchecked blob has its name");
    }

    let (mut shelf, name) = image(&honest);
    shelf.get_mut(&name).expect("a manifest").push(b' ');
    let error = pulled(shelf, &format!("@{name}"), &dir.path().join("manifest"))
        .await
        .expect_err("another manifest");
    assert!(
        matches!(
            error,
            PullError::Digest {
                what: "the manifest",
                ..
            } | PullError::Registry { .. }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_image_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::from([("latest".to_owned(), b"<html>".to_vec())]);
    let error = pulled(shelf, ":latest", dir.path())
        .await
        .expect_err("no manifest");
    assert!(error.to_string().contains("manifest"), "{error}");
    let error = pulled(Shelf::new(), ":latest", dir.path())
        .await
        .expect_err("nothing there");
    assert!(matches!(error, PullError::Registry { .. }), "{error}");
    assert!(!dir.path().join("index.json").exists());
}
