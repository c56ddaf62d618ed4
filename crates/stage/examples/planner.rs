//! How long a planner takes to answer, with 100, 1,000 and 10,000 requests in force.
//!
//! Requests of random sizes, due dates and weights come in until so many are in force, half of them promised, on a link that is asked for more than
//! it can bring. Then each question is put to copies of the planner, and the least time counts, which the rest of the machine disturbs least: offers, a
//! moment that comes, a load that fails, a load that is late, a link that becomes slower or is down.
//!
//! ```sh
//! cargo run --release --package mutual-stage --example planner
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::time::Instant;

use mutual_stage::Model;
use mutual_stage::planner::{Admission, Planner, Request, Site, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SITE: Site = Site {
    capacity: 60_000 * SIZE_UNIT,
    model: Model::Integral,
    rate: SIZE_UNIT,
    unload: 0,
};
/// Bytes that the link brings in a unit of time.
const SIZE_UNIT: u64 = 100;
const SIZE_MAX: u64 = 1_400;
const FIRST_DUE: u64 = 1_000;
/// A little more than the link needs for an image of mean size, so that the link is nearly full with so many in force.
const TIME_EACH: u64 = 720;
const OFFERS: usize = 2_000;
const REPLANS: usize = 20;
/// Copies of the planner that each question is put to.
const COPIES: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    println!("times in ms: median, 99th percentile, greatest");
    for model in [Model::Integral, Model::Continuous] {
        for in_force in [100, 1_000, 10_000] {
            measure(Site { model, ..SITE }, in_force)?;
        }
    }
    Ok(())
}

fn measure(site: Site, in_force: u64) -> Result<(), Box<dyn Error>> {
    let mut requests = Requests::until(FIRST_DUE.max(TIME_EACH * in_force));
    let mut planner = Planner::new(site, 0)?;
    for _ in 0..60 * in_force {
        if planner.requests().count() as u64 >= in_force {
            break;
        }
        planner.offer(requests.next())?;
    }
    println!("{:?}, {} in force", site.model, planner.requests().count());
    let (mut accepted, mut displaced) = (0, 0);
    let mut asked = Vec::with_capacity(OFFERS);
    for _ in 0..OFFERS {
        let request = requests.next();
        let (ms, admission) = timed(&planner, |copy| copy.offer(request));
        asked.push(ms);
        if let Admission::Accepted {
            displaced: gone, ..
        } = admission?
        {
            accepted += 1;
            displaced += gone.len();
        }
    }
    show("offer", asked);
    println!("  {accepted} of {OFFERS} offers accepted, {displaced} requests displaced");
    replans(&planner);
    Ok(())
}

type Act<'a> = &'a dyn Fn(&mut Planner) -> Step;

/// What the world does to a site at work.
fn replans(planner: &Planner) {
    let mut at_work = planner.clone();
    let loading = at_work.advance(0).start.unwrap_or_default();
    let acts: [(&str, Act<'_>); 5] = [
        ("advance", &|copy| copy.advance(1)),
        ("load fails", &|copy| copy.load_failed(loading, 5)),
        ("load is late", &|copy| copy.advance(3_000)),
        ("10 % slower", &|copy| {
            copy.bandwidth_changed(SITE.rate * 9 / 10, 1)
        }),
        ("link down", &|copy| copy.bandwidth_changed(0, 1)),
    ];
    for (name, act) in acts {
        let each = (0..REPLANS).map(|_| timed(&at_work, act));
        let (times, steps): (Vec<_>, Vec<_>) = each.unzip();
        show(name, times);
        println!("  broken: {}", steps[0].broken.len());
    }
}

/// The least time of an act on copies of a planner, and what came of it.
fn timed<T>(planner: &Planner, act: impl Fn(&mut Planner) -> T) -> (f64, T) {
    let each = || {
        let mut copy = planner.clone();
        let start = Instant::now();
        let outcome = act(&mut copy);
        (start.elapsed().as_secs_f64() * 1e3, outcome)
    };
    let (mut least, outcome) = each();
    for _ in 1..COPIES {
        least = least.min(each().0);
    }
    (least, outcome)
}

fn show(name: &str, mut each: Vec<f64>) {
    each.sort_by(f64::total_cmp);
    let at = |percent: usize| each[(each.len() * percent / 100).min(each.len() - 1)];
    println!("{name:>14}  {:.3}  {:.3}  {:.3}", at(50), at(99), at(100));
}

/// A stream of requests, always the same.
struct Requests {
    chance: ChaCha8Rng,
    last_due: u64,
    id: u64,
}

impl Requests {
    fn until(last_due: u64) -> Self {
        let chance = ChaCha8Rng::seed_from_u64(0);
        Self {
            chance,
            last_due,
            id: 0,
        }
    }

    fn next(&mut self) -> Request {
        self.id += 1;
        Request {
            id: self.id,
            image: self.id,
            size: SIZE_UNIT * self.chance.random_range(1..=SIZE_MAX),
            due: self.chance.random_range(FIRST_DUE..=self.last_due),
            weight: self.chance.random_range(1..=100),
            promise: self.chance.random(),
        }
    }
}
