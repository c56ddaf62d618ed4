//! Submissions and namespaces (DESIGN §3.5, 3.8, 3.13).

use std::collections::BTreeMap;

use super::{Answer, Deed, Found, History, violation};

/// 5. An acknowledged submission is never lost.
pub(super) fn none_is_lost(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, observation) in history.iter().enumerate() {
        let Deed::Submit {
            answer: Answer::Done(job),
            ..
        } = &observation.deed
        else {
            continue;
        };
        for (later, other) in history.iter().enumerate() {
            let is_missing = matches!(&other.deed, Deed::Missing { job: sought } if sought == job);
            if is_missing && observation.is_before(other) {
                let what = format!("{job} was acknowledged and is gone");
                found.push(violation(5, what, &[position, later]));
            }
        }
    }
    found
}

/// 8. One namespace and client key is one job with one payload.
pub(super) fn one_job_per_key(history: History<'_>) -> Found {
    let mut known = BTreeMap::new();
    let mut found = Found::new();
    for (position, observation) in history.iter().enumerate() {
        let Deed::Submit {
            namespace,
            key,
            payload,
            answer: Answer::Done(job),
        } = &observation.deed
        else {
            continue;
        };
        let (first, before) = *known
            .entry((namespace, key))
            .or_insert((position, (*payload, *job)));
        if before != (*payload, *job) {
            let what = format!("client key {key} of {namespace} stands for two submissions");
            found.push(violation(8, what, &[first, position]));
        }
    }
    found
}

/// 13. Nobody sees a job of a namespace that is not theirs.
pub(super) fn namespaces_are_apart(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, observation) in history.iter().enumerate() {
        if let Deed::Seen(sight) = &observation.deed
            && !sight.seen_by.contains(&sight.namespace)
        {
            let what = format!(
                "{} of {} was shown to another namespace",
                sight.job, sight.namespace
            );
            found.push(violation(13, what, &[position]));
        }
    }
    found
}
