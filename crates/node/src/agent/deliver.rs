//! Bringing finishes from the outbox to their stores, however long it takes.

use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{FinishReply, StoreError, StoreResult};

use super::outbox::{Entry, Outbox};
use super::stores::StoreLink;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause after an answer that should not be, such as a lapsed certificate or a store's own fault.
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(60);

/// Tries until the store answers for good, then removes the entry. Safe to repeat: the same finish
/// gets the same reply (DESIGN §3.7).
pub(super) async fn deliver(
    outbox: Outbox,
    link: Arc<StoreLink>,
    entry: Entry,
) -> StoreResult<FinishReply> {
    let mut pause = PAUSE_MIN;
    loop {
        let answer = link.finish(entry.finish.clone()).await;
        match next_pause(&answer, &mut pause) {
            None => {
                outbox.remove(&entry);
                return answer;
            }
            Some(pause) => tokio::time::sleep(jittered(pause)).await,
        }
    }
}

/// How long to wait before the next try; `None` when the answer is final.
fn next_pause(answer: &StoreResult<FinishReply>, pause: &mut Duration) -> Option<Duration> {
    let error = answer.as_ref().err()?;
    if error.is_retryable() {
        let now = *pause;
        *pause = (*pause * 2).min(PAUSE_MAX);
        return Some(now);
    }
    match error {
        StoreError::Forbidden(_) | StoreError::Internal(_) => Some(PAUSE_AFTER_FAULT),
        _ => None,
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.25))
}

/// One try for each entry of an earlier run; true once the store has answered for all of them.
pub(super) async fn deliver_leftovers(outbox: &Outbox, link: &StoreLink) -> bool {
    let mut entries = outbox.entries();
    entries.retain(|entry| entry.store == link.known.url);
    let tries = entries
        .iter()
        .map(|entry| link.finish(entry.finish.clone()));
    let answers = futures::future::join_all(tries).await;
    let mut all_answered = true;
    for (entry, answer) in entries.iter().zip(answers) {
        let unanswered = answer.as_ref().is_err_and(StoreError::is_retryable);
        if next_pause(&answer, &mut PAUSE_MIN.clone()).is_none() {
            outbox.remove(entry);
        }
        tracing::info!(job = %entry.finish.claim.job, ?answer, "finish of an earlier run");
        all_answered &= !unanswered;
    }
    all_answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_demand::Disposition;
    use mutual_model::job::JobState;

    #[test]
    fn only_answers_end_the_tries() {
        let reply = FinishReply {
            disposition: Disposition::Ended,
            state: JobState::Succeeded,
        };
        let cases = [
            (Ok(reply), false),
            (Err(StoreError::Fenced { current: None }), false),
            (Err(StoreError::Conflict(String::new())), false),
            (Err(StoreError::NotFound), false),
            (Err(StoreError::Unavailable(String::new())), true),
            (Err(StoreError::Unknown(String::new())), true),
            (Err(StoreError::Overloaded { retry_after_ms: 1 }), true),
            (Err(StoreError::Forbidden(String::new())), true),
            (Err(StoreError::Internal(String::new())), true),
        ];
        for (answer, again) in cases {
            let mut pause = PAUSE_MIN;
            assert_eq!(
                next_pause(&answer, &mut pause).is_some(),
                again,
                "{answer:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let away = Err(StoreError::Unavailable(String::new()));
        let mut pause = PAUSE_MIN;
        let pauses: Vec<_> = (0..10).map(|_| next_pause(&away, &mut pause)).collect();
        assert_eq!(pauses[0], Some(PAUSE_MIN));
        assert_eq!(pauses[9], Some(PAUSE_MAX));
    }
}
