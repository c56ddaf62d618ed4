//! Every case, by what it is about.

#![expect(
    clippy::unwrap_used,
    reason = "a case fails by panicking, with the refusal that it did not expect"
)]

use super::Case;

mod batches;
mod claims;
mod clock;
mod ends;
mod progress;
mod reading;
mod replies;
mod submissions;
mod verdicts;

/// Names functions of a file as cases.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(super) const CASES: &[crate::conformance::Case] =
            &[$((stringify!($name), |world| Box::pin($name(world)))),*];
    };
}
use cases;

pub(super) fn all() -> impl Iterator<Item = Case> {
    let lists = [
        submissions::CASES,
        claims::CASES,
        progress::CASES,
        ends::CASES,
        batches::CASES,
        replies::CASES,
        clock::CASES,
        verdicts::CASES,
        reading::CASES,
    ];
    lists.into_iter().flatten().copied()
}
