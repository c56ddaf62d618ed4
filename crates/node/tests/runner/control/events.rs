//! Server-sent events: live, resumed, across controls.

use futures::StreamExt as _;
use mutual_demand::JobEvent;
use mutual_model::job::JobState;
use reqwest::{Method, Response};

use super::cloud::{Cloud, PATIENCE, Served};

#[derive(Debug)]
struct Shown {
    id: String,
    event: JobEvent,
}

async fn subscribe(cloud: &Cloud, control: &Served, path: &str, last: Option<&str>) -> Response {
    let mut request = cloud
        .request(control, Method::GET, path)
        .bearer_auth(cloud.user().as_str());
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.unwrap();
    assert!(
        response.status().is_success(),
        "{:?}",
        response.text().await
    );
    response
}

/// Reads events until `enough` says so or the stream ends.
async fn read(response: Response, enough: impl Fn(&[Shown]) -> bool) -> Vec<Shown> {
    let reading = async {
        let (mut chunks, mut text, mut shown) =
            (response.bytes_stream(), String::new(), Vec::new());
        while !enough(&shown) {
            let Some(chunk) = chunks.next().await else {
                break;
            };
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            while let Some(end) = text.find("\n\n") {
                let block: String = text.drain(..end + 2).collect();
                shown.extend(parse(&block));
            }
        }
        shown
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the events arrive")
}

fn parse(block: &str) -> Option<Shown> {
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        block
            .lines()
            .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    };
    Some(Shown {
        id: field("id")?,
        event: serde_json::from_str(&field("data")?).unwrap(),
    })
}

fn states(shown: &[Shown]) -> Vec<JobState> {
    shown.iter().map(|shown| shown.event.state).collect()
}

#[tokio::test]
async fn a_tasks_story_is_told_from_its_beginning_and_ends_with_it() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    cloud.submit(&control, "two").await;
    let path = format!("/api/tasks/{job}/events");
    let live = subscribe(&cloud, &control, &path, None).await;
    cloud
        .ask(&control, Method::DELETE, &format!("/api/tasks/{job}"), None)
        .await;
    let told = read(live, |_| false).await;
    assert_eq!(states(&told), [JobState::Queued, JobState::Cancelled]);
    assert!(told.iter().all(|shown| shown.event.job == job));
}

#[tokio::test]
async fn another_control_goes_on_after_the_last_id() {
    let cloud = Cloud::new().await;
    let first = cloud.control(10).await;
    let job = cloud.submit(&first, "one").await;
    let path = format!("/api/tasks/{job}/events");
    let live = subscribe(&cloud, &first, &path, None).await;
    let told = read(live, |shown| !shown.is_empty()).await;
    drop(first);
    let second = cloud.control(11).await;
    cloud
        .ask(&second, Method::DELETE, &format!("/api/tasks/{job}"), None)
        .await;
    let resumed = subscribe(&cloud, &second, &path, Some(&told[0].id)).await;
    assert_eq!(
        states(&read(resumed, |_| false).await),
        [JobState::Cancelled]
    );
}

#[tokio::test]
async fn everything_is_told_from_now_on_or_from_a_position() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let old = cloud.submit(&control, "old").await;
    let all = subscribe(&cloud, &control, "/api/events?after=0", None).await;
    let told = read(all, |shown| !shown.is_empty()).await;
    assert_eq!(told[0].event.job, old);
    let later = subscribe(&cloud, &control, "/api/events", Some(&told[0].id)).await;
    let new = cloud.submit(&control, "new").await;
    let told = read(later, |shown| !shown.is_empty()).await;
    assert_eq!(told[0].event.job, new);
}
