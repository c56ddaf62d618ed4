//! How long an on-line planner thinks about a request when a thousand are in force.

use std::time::Instant;

use mutual_stage::Model;
use mutual_stage::planner::{Admission, Planner, Request, Site};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::paper::Paper;
use super::{Goal, millis};
use crate::commands::spread::Spread;
use crate::failure::{Failure, Outcome};

const OFFERS: u64 = 2_000;
const IN_FORCE: usize = 1_000;
/// After so many offers the planner is as full as it gets.
const FILLING_OFFERS_MAX: usize = 60 * IN_FORCE;
const P99_GOAL_MS: f64 = 5.0;

/// Times of an offer.
#[derive(Debug, Serialize)]
pub(super) struct Offers {
    in_force: usize,
    offers: u64,
    accepted: usize,
    p50_ms: f64,
    p99_ms: f64,
    greatest_ms: f64,
    /// Of the 99th percentile.
    goal_ms: Goal,
}

/// Half of the requests in force are promised, on a link that is asked for more than it can bring.
pub(super) fn run(paper: &Paper) -> Outcome<Offers> {
    paper.begin("offers to a planner");
    let mut chance = ChaCha8Rng::seed_from_u64(0);
    let mut requests = (1..).map(|id| request(&mut chance, id));
    let planner = filled(&mut requests)?;
    let (mut each, mut accepted) = (Vec::new(), 0);
    for request in requests.take(OFFERS as usize) {
        let mut asked = planner.clone();
        let start = Instant::now();
        let admission = asked.offer(request).map_err(Failure::internal)?;
        each.push(millis(start));
        accepted += usize::from(matches!(admission, Admission::Accepted { .. }));
    }
    let spread = Spread::of(each);
    let offers = Offers {
        in_force: planner.requests().count(),
        offers: OFFERS,
        accepted,
        p50_ms: spread.percentile(50),
        p99_ms: spread.percentile(99),
        greatest_ms: spread.greatest(),
        goal_ms: Goal::of(P99_GOAL_MS, spread.percentile(99)),
    };
    paper.line(&line(&offers));
    Ok(offers)
}

fn request(chance: &mut ChaCha8Rng, id: u64) -> Request {
    Request {
        id,
        image: id,
        size: chance.random_range(1..=1_400),
        due: chance.random_range(1_000..=720_000),
        weight: chance.random_range(1..=100),
        promise: chance.random(),
    }
}

fn filled(requests: &mut impl Iterator<Item = Request>) -> Outcome<Planner> {
    let site = Site {
        capacity: 60_000,
        model: Model::Integral,
        rate: 1,
        unload: 0,
    };
    let mut planner = Planner::new(site, 0).map_err(Failure::internal)?;
    for request in requests.take(FILLING_OFFERS_MAX) {
        planner.offer(request).map_err(Failure::internal)?;
        if planner.requests().count() >= IN_FORCE {
            break;
        }
    }
    Ok(planner)
}

fn line(offers: &Offers) -> String {
    format!(
        "\noffers to a planner with {} requests in force: p50 {:.3} ms, p99 {:.3} ms, greatest {:.3} ms; {} of {} accepted{}",
        offers.in_force,
        offers.p50_ms,
        offers.p99_ms,
        offers.greatest_ms,
        offers.accepted,
        offers.offers,
        offers.goal_ms.words("ms"),
    )
}
