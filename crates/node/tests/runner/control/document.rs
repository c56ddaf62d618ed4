//! The OpenAPI document, as it is published.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};

use super::cloud::Cloud;

#[test]
fn the_document_is_as_reviewed() {
    let document = serde_json::to_value(mutual_node::control::openapi()).unwrap();
    insta::assert_json_snapshot!("openapi", document);
}

#[tokio::test]
async fn a_task_is_described_as_it_is_sent() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let (_, sent) = cloud
        .ask(&control, Method::GET, &format!("/api/tasks/{job}"), None)
        .await;
    let document = serde_json::to_value(mutual_node::control::openapi()).unwrap();
    let described = &document["components"]["schemas"]["Task"]["properties"];
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(described), keys(&sent));
}

#[tokio::test]
async fn the_page_to_try_it_is_served() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let (status, document) = cloud
        .ask(&control, Method::GET, "/openapi.json", None)
        .await;
    assert_eq!(status, StatusCode::OK);
    assert!(document["paths"]["/api/tasks"]["post"].is_object());
    let (status, page) = cloud.ask(&control, Method::GET, "/docs/", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.as_str().unwrap().contains("swagger-ui"), "{page}");
}
