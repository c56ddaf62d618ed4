//! How often something was done, and how sure that is.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::task::JoinSet;

use crate::Failure;

/// One of several that work at the same time; each call does some tasks from submission to end, and says how many.
pub(crate) type Lane = Box<dyn FnMut() -> BoxFuture<'static, Result<u64, Failure>> + Send>;

/// Tasks per second, all lanes together.
pub(crate) async fn rate(lanes: Vec<Lane>, time: Duration) -> Result<(f64, Vec<Lane>), Failure> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut lane in lanes {
        running.spawn(async move {
            let mut done = 0;
            while began.elapsed() < time {
                done += lane().await?;
            }
            Ok::<_, Failure>((done, lane))
        });
    }
    let mut total = 0;
    let mut lanes = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (done, lane) = ended??;
        total += done;
        lanes.push(lane);
    }
    Ok((total as f64 / began.elapsed().as_secs_f64(), lanes))
}

/// What several rounds found.
#[derive(Default)]
pub(crate) struct Rates(Vec<f64>);

impl Rates {
    pub(crate) fn add(&mut self, rate: f64) {
        self.0.push(rate);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0.first(), self.0.last());
        let bound = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        let median = self.median();
        write!(f, "{median:.0} ({:.0}–{:.0})", bound(least), bound(most))
    }
}
