//! Following one job: its machine's log stream while it runs, the next machine's when that one
//! dies, the stored log when all is over.
//!
//! The stream goes straight from the agent to here, so it survives control's death. Lines carry a
//! sequence per attempt; after a reconnection those already shown are skipped.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use mutual_node::demand::{Attempt, JobView, Manifest};
use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::Client;
use crate::failure::{Failure, Kind, Outcome};

/// How often a job without a stream is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a store may stay silent before following gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a stream may take to open.
const OPENING: Duration = Duration::from_secs(5);
/// How long `logs` without `-f` waits for further lines that were already printed.
const DRAIN: Duration = Duration::from_millis(500);

/// What happens to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// Bytes of the task's output.
    Output {
        job: JobId,
        attempt: u32,
        #[serde(rename = "stderr")]
        is_stderr: bool,
        #[serde(serialize_with = "as_text", rename = "data")]
        bytes: Vec<u8>,
    },
    /// A new state.
    State {
        job: JobId,
        #[serde(rename = "state")]
        text: String,
    },
}

fn as_text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// A message of the agent's stream.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Wire {
    Line {
        seq: u64,
        stream: StreamName,
        data: String,
        #[serde(default)]
        enc: Option<String>,
    },
    State {
        state: String,
    },
    End {},
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StreamName {
    Stdout,
    Stderr,
}

impl Wire {
    /// Reads one message; what is not understood is skipped, so that agents may say more.
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn line_bytes(data: String, enc: Option<&str>) -> Vec<u8> {
    match enc {
        Some("base64") => STANDARD.decode(&data).unwrap_or_default(),
        _ => data.into_bytes(),
    }
}

/// Where one job's follower stands.
#[derive(Debug)]
pub(crate) struct Follower<'client> {
    client: &'client Client,
    job: JobId,
    state: Option<JobState>,
    /// The attempt whose lines were shown last, and the first sequence not shown yet.
    shown: (u32, u64),
    /// The last attempt whose output was shown to its end, if one was.
    complete: Option<u32>,
    /// Streams opened so far.
    pub(crate) streams: u32,
}

/// Takes what happens.
pub(crate) type Show<'a> = &'a mut (dyn FnMut(&Line) + Send);

impl<'client> Follower<'client> {
    pub(crate) fn new(client: &'client Client, job: JobId) -> Self {
        Self {
            client,
            job,
            state: None,
            shown: (0, 0),
            complete: None,
            streams: 0,
        }
    }

    /// Shows everything until the job is over, and gives its last view.
    pub(crate) async fn run(&mut self, show: Show<'_>) -> Outcome<JobView> {
        loop {
            let view = self.look(show).await?;
            self.show_failed(&view, show).await;
            if view.state.is_terminal() {
                self.show_result(&view, show).await?;
                return Ok(view);
            }
            let number = number_of(&view);
            // The program may be over while its result is still being stored.
            let streams = view.state == JobState::Running && self.complete != Some(number);
            if let Some(attempt) = view.current().filter(|_| streams)
                && let Err(error) = self.stream(attempt, number, show).await
            {
                tracing::info!(job = %self.job, %error, "log stream ended");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Shows what there is and goes.
    pub(crate) async fn print_once(&mut self, show: Show<'_>) -> Outcome {
        let view = self.look(show).await?;
        self.show_failed(&view, show).await;
        if view.state.is_terminal() {
            return self.show_result(&view, show).await;
        }
        let Some(attempt) = view.current() else {
            return Ok(());
        };
        let reading = self.stream(attempt, number_of(&view), show);
        tokio::time::timeout(DRAIN, reading).await.unwrap_or(Ok(()))
    }

    /// The job's view; a store that is silent for a while is waited for.
    async fn look(&mut self, show: Show<'_>) -> Outcome<JobView> {
        let since = tokio::time::Instant::now();
        let view = loop {
            match self.client.job(self.job).await {
                Err(failure) if failure.kind == Kind::Unavailable && since.elapsed() < PATIENCE => {
                    tokio::time::sleep(LOOK).await;
                }
                answered => break answered?,
            }
        };
        if self.state != Some(view.state) {
            self.state = Some(view.state);
            show(&Line::State {
                job: self.job,
                text: view.state.name().to_owned(),
            });
        }
        Ok(view)
    }

    async fn stream(&mut self, attempt: &Attempt, number: u32, show: Show<'_>) -> Outcome {
        let access = self.client.log_access(self.job, attempt).await?;
        let mut request = access
            .url
            .as_str()
            .into_client_request()
            .map_err(Failure::internal)?;
        let bearer = format!("Bearer {}", access.token.as_str());
        let token = HeaderValue::from_str(&bearer).map_err(Failure::internal)?;
        request.headers_mut().insert("authorization", token);
        let opening = tokio::time::timeout(OPENING, tokio_tungstenite::connect_async(request));
        let (mut socket, _) = opening
            .await
            .map_err(|_| Failure::unavailable(format!("{}: no answer", access.url)))?
            .map_err(|error| Failure::unavailable(format!("{}: {error}", access.url)))?;
        self.streams += 1;
        while let Some(message) = socket.next().await {
            match message.map_err(Failure::unavailable)? {
                Message::Text(text) if self.take(text.as_str(), number, show) => {
                    self.complete = Some(number);
                    break;
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = socket.close(None).await;
        Ok(())
    }

    /// Shows one message unless it was shown before; says whether it was the last.
    fn take(&mut self, text: &str, attempt: u32, show: Show<'_>) -> bool {
        match Wire::parse(text) {
            Some(Wire::Line {
                seq,
                stream,
                data,
                enc,
            }) => {
                if self.is_new(attempt, seq) {
                    show(&Line::Output {
                        job: self.job,
                        attempt,
                        is_stderr: stream == StreamName::Stderr,
                        bytes: line_bytes(data, enc.as_deref()),
                    });
                }
                false
            }
            Some(Wire::State { state }) => {
                tracing::debug!(job = %self.job, %state, "the agent says");
                false
            }
            Some(Wire::End {}) => true,
            None => false,
        }
    }

    fn is_new(&mut self, attempt: u32, seq: u64) -> bool {
        let is_new = (attempt, seq) >= self.shown;
        if is_new {
            self.shown = (attempt, seq + 1);
        }
        is_new
    }

    /// Shows what failed attempts left and was not seen while they ran. One that cannot be fetched any more hides
    /// none of the others.
    async fn show_failed(&mut self, view: &JobView, show: Show<'_>) {
        for attempt in &view.attempts {
            let number = number(attempt);
            let is_shown = number < self.shown.0 || self.complete >= Some(number);
            let Some(log) = attempt.log.as_ref().filter(|_| !is_shown) else {
                continue;
            };
            match self.show_stored(view, log, number, show).await {
                Ok(()) => self.complete = Some(number),
                Err(failure) => {
                    let lost = format!("the log of attempt {number} is not shown: {failure}");
                    self.client.output.note(lost);
                }
            }
        }
    }

    /// Shows the log in a finished job's result, unless it was followed to its end.
    async fn show_result(&mut self, view: &JobView, show: Show<'_>) -> Outcome {
        let number = number_of(view);
        match view.result.as_ref().and_then(|result| result.log.as_ref()) {
            Some(log) if self.complete != Some(number) => {
                self.show_stored(view, log, number, show).await
            }
            _ => Ok(()),
        }
    }

    async fn show_stored(
        &mut self,
        view: &JobView,
        log: &Manifest,
        number: u32,
        show: Show<'_>,
    ) -> Outcome {
        let text = self.client.stored_log(view, log).await?;
        for line in text.lines() {
            self.take(line, number, show);
        }
        Ok(())
    }
}

/// The number of a job's last attempt, from 1.
fn number_of(view: &JobView) -> u32 {
    view.attempts.last().map_or(1, number)
}

fn number(attempt: &Attempt) -> u32 {
    u32::try_from(attempt.fence.sequence).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_others_skipped() {
        let line =
            r#"{"type":"line","seq":3,"stream":"stderr","ms":5,"data":"aGk=","enc":"base64"}"#;
        let parsed = Wire::parse(line);
        let Some(Wire::Line {
            seq: 3,
            stream: StreamName::Stderr,
            data,
            enc,
        }) = parsed
        else {
            panic!("a line");
        };
        assert_eq!(line_bytes(data, enc.as_deref()), b"hi");
        let end = r#"{"type":"end","outcome":"success"}"#;
        assert!(matches!(Wire::parse(end), Some(Wire::End {})));
        for other in ["", "{}", r#"{"type":"later"}"#, "[1]"] {
            assert!(Wire::parse(other).is_none(), "{other}");
        }
    }
}
