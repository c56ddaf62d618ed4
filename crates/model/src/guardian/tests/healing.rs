//! Many circles at once: whoever dies, the survivors soon watch each other.

use proptest::prelude::*;

use super::*;

const VILLAGERS: u8 = 40;

/// Agents that answer each other at once, unless they are dead.
struct Village {
    circles: BTreeMap<NodeId, Circle>,
    now: Timestamp,
}

impl Village {
    fn of(ids: &[[u8; 32]]) -> Self {
        let circle = |id: &[u8; 32]| {
            let id = NodeId(*id);
            (id, Circle::new(id, CircleConfig::default()))
        };
        Self {
            circles: ids.iter().map(circle).collect(),
            now: at(1),
        }
    }

    fn passes(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            for id in self.circles.keys().copied().collect::<Vec<_>>() {
                self.tell(id, CircleEvent::Tick);
            }
            self.now = self.now.after(Duration::from_millis(500));
        }
    }

    /// Carries out what one circle wants, until it wants nothing more. The dead do not answer, and
    /// whoever looks around still finds them for a while, as in the DHT: here, for ever.
    fn tell(&mut self, id: NodeId, event: CircleEvent) {
        let everybody: Vec<_> = (0..VILLAGERS).map(node).collect();
        let alive: Vec<_> = self.circles.keys().copied().collect();
        let Some(circle) = self.circles.get_mut(&id) else {
            return;
        };
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in circle.handle(self.now, event) {
                match action {
                    CircleAction::Ask { guardian } if alive.contains(&guardian) => {
                        let accepted = true;
                        events.push(CircleEvent::Answered { guardian, accepted });
                    }
                    CircleAction::Ask { .. } | CircleAction::Dismiss { .. } => {}
                    CircleAction::Look => events.push(CircleEvent::Found(everybody.clone())),
                }
            }
        }
    }

    /// SIGKILL: whoever was watched by a dead node notices that its session ended.
    fn die(&mut self, dead: &[NodeId]) {
        self.circles.retain(|id, _| !dead.contains(id));
        let ids: Vec<_> = self.circles.keys().copied().collect();
        for id in ids {
            for guardian in dead {
                let is_watching = self.circles[&id].watching().any(|one| one == *guardian);
                if is_watching {
                    self.tell(
                        id,
                        CircleEvent::Lost {
                            guardian: *guardian,
                        },
                    );
                }
            }
        }
    }

    /// The least number of living guardians that anybody has.
    fn least_watched(&self) -> usize {
        let living = |circle: &Circle| {
            let watching = circle.watching();
            watching.filter(|id| self.circles.contains_key(id)).count()
        };
        self.circles.values().map(living).min().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn after_six_in_ten_die_at_once_everybody_left_is_watched_by_three(
        dying in prop::sample::subsequence((0..VILLAGERS).collect::<Vec<_>>(), 24),
    ) {
        let ids: Vec<_> = (0..VILLAGERS).map(|n| [n; 32]).collect();
        let mut village = Village::of(&ids);
        village.passes(Duration::from_secs(60));
        prop_assert_eq!(village.least_watched(), 3);
        let dead: Vec<_> = dying.into_iter().map(node).collect();
        village.die(&dead);
        // At most three at a time are asked in vain, for a second each.
        village.passes(Duration::from_secs(15));
        prop_assert_eq!(village.least_watched(), 3);
    }
}
