//! Submissions and namespaces (DESIGN §3.5, 3.8, 3.13).

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::{Answer, Deed, Found, violation};

/// 5. An acknowledged submission is never lost.
pub(super) fn none_is_lost(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        let first = told.acknowledged.iter();
        let first = first.min_by_key(|place| ledger.at(**place).returned);
        let Some(first) = first else { continue };
        let gone = told
            .missing
            .iter()
            .filter(|later| ledger.is_before(*first, **later));
        let what = || format!("{job} was acknowledged and is gone");
        found.extend(gone.map(|later| violation(5, what(), &[*first, *later])));
    }
    found
}

/// 8. One namespace and client key is one job with one payload.
pub(super) fn one_job_per_key(ledger: &Ledger<'_>) -> Found {
    let mut known = BTreeMap::new();
    let mut found = Found::new();
    for place in &ledger.order {
        let Deed::Submit {
            namespace,
            key,
            payload,
            answer: Answer::Done(job),
        } = &ledger.at(*place).deed
        else {
            continue;
        };
        let (first, before) = *known
            .entry((namespace, key))
            .or_insert((*place, (*payload, *job)));
        if before != (*payload, *job) {
            let what = format!("client key {key} of {namespace} stands for two submissions");
            found.push(violation(8, what, &[first, *place]));
        }
    }
    found
}

/// 13. Nobody sees a job of a namespace that is not theirs.
pub(super) fn namespaces_are_apart(ledger: &Ledger<'_>) -> Found {
    let sights = ledger.jobs.values().flat_map(|told| &told.sights);
    let foreign = sights.filter(|(_, sight)| !sight.seen_by.contains(&sight.namespace));
    foreign
        .map(|(place, sight)| {
            let what = format!(
                "{} of {} was shown to another namespace",
                sight.job, sight.namespace
            );
            violation(13, what, &[*place])
        })
        .collect()
}
