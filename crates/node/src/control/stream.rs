//! Changes as server-sent events, resumable by `Last-Event-ID`.
//!
//! Every event's id is a cursor: the position in each store behind this control, joined by dots.
//! Any control in front of the same stores, this one restarted or another, goes on from it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::response::sse::Event;
use futures::stream::{self, FuturesUnordered, Stream, StreamExt as _};
use mutual_demand::http::HttpStore;
use mutual_demand::{EventPage, JobEvent, StoreResult};
use mutual_model::ids::{JobId, Namespace};
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;

/// Events asked for at once.
const PAGE: u32 = 1_000;
/// How long one question waits for a first event.
const WAIT: Duration = Duration::from_secs(7);
/// Pause after a store could not be reached.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// A position in each store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor(Vec<u64>);

impl Cursor {
    pub(super) fn start(stores: usize) -> Self {
        Self(vec![0; stores])
    }

    /// Reads an id that an earlier event carried.
    pub(super) fn parse(text: &str, stores: usize) -> Result<Self, Problem> {
        let positions: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
        let positions = positions.ok().filter(|positions| positions.len() == stores);
        positions.map(Self).ok_or_else(|| {
            let problem = "no id of an event of this server";
            Problem::invalid("Last-Event-ID", problem, "send back the last id received")
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&texts.join("."))
    }
}

/// Which events a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of one task; the stream ends when the task does.
    Task(JobId),
    /// Those of one namespace, or of all that the caller may see.
    Namespace(Option<Namespace>),
}

impl Wanted {
    fn takes(&self, event: &JobEvent) -> bool {
        match self {
            Self::Task(job) => event.job == *job,
            Self::Namespace(name) => name.as_ref().is_none_or(|name| event.namespace == *name),
        }
    }

    fn ends_with(&self, event: &JobEvent) -> bool {
        matches!(self, Self::Task(_)) && event.state.is_terminal()
    }
}

/// A subscription under way.
pub(super) struct Subscription {
    stores: Vec<HttpStore>,
    wanted: Wanted,
    cursor: Cursor,
    /// Positions up to which events are passed over in silence.
    skipping: bool,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Subscription {
    pub(super) fn new(
        stores: Vec<HttpStore>,
        wanted: Wanted,
        cursor: Option<Cursor>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        // Without a cursor one task's whole story is told, but of everything only what is new.
        let skipping = cursor.is_none() && !matches!(wanted, Wanted::Task(_));
        let cursor = cursor.unwrap_or_else(|| Cursor::start(stores.len()));
        Self {
            stores,
            wanted,
            cursor,
            skipping,
            is_over: false,
            _permit: permit,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        let batches = stream::unfold(self, |mut subscription| async move {
            if subscription.is_over {
                return None;
            }
            let batch = subscription.next().await;
            Some((stream::iter(batch), subscription))
        });
        batches.flatten().map(Ok)
    }

    async fn next(&mut self) -> Vec<Event> {
        if self.skipping {
            self.skip().await;
        }
        let (index, page) = self.first_page().await;
        match page {
            Ok(page) => self.take_in(index, page),
            Err(error) => {
                tracing::debug!(%error, "a store's events cannot be read");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                Vec::new()
            }
        }
    }

    /// Goes to the end of each store, and tells the subscriber where that is by the first comment.
    async fn skip(&mut self) {
        for (store, position) in self.stores.iter().zip(&mut self.cursor.0) {
            while let Ok(page) = store
                .events_within(*position, 10 * PAGE, Duration::ZERO)
                .await
            {
                *position = page.next;
                if page.events.is_empty() {
                    break;
                }
            }
        }
        self.skipping = false;
    }

    /// The first answer of any store with something to tell, or an empty one when time is up.
    async fn first_page(&self) -> (usize, StoreResult<EventPage>) {
        let ask = |(index, store): (usize, &HttpStore)| {
            let (store, position) = (store.clone(), self.cursor.0[index]);
            async move { (index, store.events_within(position, PAGE, WAIT).await) }
        };
        let mut asking: FuturesUnordered<_> = self.stores.iter().enumerate().map(ask).collect();
        let mut last = None;
        while let Some((index, page)) = asking.next().await {
            if page.as_ref().is_ok_and(|page| !page.events.is_empty()) {
                return (index, page);
            }
            last = Some((index, page));
        }
        match last {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn take_in(&mut self, index: usize, page: EventPage) -> Vec<Event> {
        let mut events = Vec::new();
        for event in &page.events {
            self.cursor.0[index] = event.sequence;
            if !self.wanted.takes(event) {
                continue;
            }
            events.push(shown(event, &self.cursor));
            if self.wanted.ends_with(event) {
                self.is_over = true;
                return events;
            }
        }
        self.cursor.0[index] = page.next;
        events
    }
}

fn shown(event: &JobEvent, cursor: &Cursor) -> Event {
    let data = serde_json::to_string(event).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot encode an event");
        "{}".to_owned()
    });
    Event::default()
        .event("state")
        .id(cursor.to_string())
        .data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_foreign_ones_are_refused() {
        let cursor = Cursor(vec![7, 12]);
        assert_eq!(Cursor::parse(&cursor.to_string(), 2).unwrap(), cursor);
        for text in ["", "7", "7.12.3", "a.b", "-1.2", "99999999999999999999.1"] {
            assert!(Cursor::parse(text, 2).is_err(), "{text}");
        }
    }
}
