//! The load under way: what has arrived of it, and when it ends.
//!
//! It starts only where the plan has room for it. Once the link brings more than was planned, it can arrive sooner than there is room: then
//! it waits for the next departure (continuous model).

use super::state::Running;
use super::{Planner, Request, loading};
use crate::Model;
use crate::timeline::Held;

/// How far a load has come: so many bytes at a moment, and no more than `room` until the next departure.
struct Flow {
    moment: u64,
    arrived: u64,
    room: u64,
}

impl Flow {
    fn arrived_by(&self, moment: u64, rate: u64) -> u64 {
        let brought = u128::from(rate) * u128::from(moment.saturating_sub(self.moment));
        let arrived = brought.saturating_add(u128::from(self.arrived));
        let arrived = u64::try_from(arrived).unwrap_or(u64::MAX);
        arrived.min(self.room).max(self.arrived)
    }
}

impl Planner {
    /// What has arrived at the last departure before a moment.
    fn flow(&self, running: &Running, size: u64, in_whole: &[Held], until: u64) -> Flow {
        let mut flow = Flow {
            moment: running.since,
            arrived: running.arrived,
            room: size,
        };
        if self.site.model == Model::Integral {
            return flow;
        }
        let mut held: u128 = in_whole.iter().map(|held| u128::from(held.size)).sum();
        for departure in in_whole {
            let room = u128::from(self.site.capacity).saturating_sub(held);
            flow.room = u64::try_from(room).unwrap_or(u64::MAX).min(size);
            if flow.room == size || departure.leaves >= until {
                return flow;
            }
            if departure.leaves > flow.moment {
                flow.arrived = flow.arrived_by(departure.leaves, self.site.rate);
                flow.moment = departure.leaves;
            }
            held -= u128::from(departure.size);
        }
        flow.room = size;
        flow
    }

    /// When the load under way ends beside images that are there in whole; now if there is none.
    pub(super) fn running_ends(&self, in_whole: &[Held]) -> u64 {
        let Some((running, size)) = self.under_way() else {
            return self.now;
        };
        let flow = self.flow(&running, size, in_whole, u64::MAX);
        let left = loading(size - flow.arrived.min(size), self.site.rate);
        flow.moment.saturating_add(left)
    }

    /// Whether the load under way would have to wait if one more request kept an image on the stage.
    pub(super) fn delays_running(&self, request: &Request) -> bool {
        let longer = self.running_ends(&self.in_whole(Some(request)));
        longer > self.running_ends(&self.in_whole(None))
    }

    /// Tells when the load under way ends, as far as is known now: in a moment at the earliest, since its end has not been reported.
    pub(super) fn foresee_end(&mut self) {
        let ends = self.running_ends(&self.in_whole(None));
        if let Some(running) = &mut self.running {
            running.ends = ends.max(self.now + 1);
        }
    }

    /// From now on the link has another rate.
    pub(super) fn change_rate(&mut self, rate: u64) {
        if let Some((running, size)) = self.under_way() {
            let in_whole = self.in_whole(None);
            let flow = self.flow(&running, size, &in_whole, self.now);
            // Its end has not been reported: something is still to come.
            let arrived = flow.arrived_by(self.now, self.site.rate).min(size - 1);
            let since = self.now;
            self.running = Some(Running {
                arrived,
                since,
                ..running
            });
        }
        self.site.rate = rate;
        for ahead in &mut self.ahead {
            ahead.work.loading = loading(ahead.work.size, rate);
        }
        self.foresee_end();
    }

    fn under_way(&self) -> Option<(Running, u64)> {
        let running = self.running?;
        let image = self.images.get(&running.image)?;
        Some((running, image.size))
    }
}
