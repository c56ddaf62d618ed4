//! Finds which reservation to give up, in O(log n): a segment tree over the due dates.
//!
//! To give up i leaves `min(size_i, least slack of all kept after i)` more tokens at the end, where the slack at a due date is what the bucket
//! lacked of being full just before it paid: tokens beyond it run over. The largest size in a suffix falls, and the least slack of a suffix
//! rises, with the suffix's beginning; so the best gain lies where the two cross, and one descent finds it.

/// Slack of a place where nothing is paid.
const NOTHING_PAID: i64 = i64::MAX;

/// A part of the tree: places `[2^h · i, 2^h · (i + 1))` for some height.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Largest size kept, 0 if none is.
    size_max: i64,
    /// Where it is.
    largest: usize,
    /// Least slack of those kept.
    slack_min: i64,
    /// To be added to the slack of all places below.
    pending: i64,
}

const EMPTY: Node = Node {
    size_max: 0,
    largest: 0,
    slack_min: NOTHING_PAID,
    pending: 0,
};

impl Node {
    fn lower_slack(&mut self, tokens: i64) {
        // Places whose tokens all run over are never asked again: what stands there may be anything below 0.
        if self.slack_min != NOTHING_PAID {
            self.slack_min = self.slack_min.saturating_sub(tokens);
        }
        self.pending = self.pending.saturating_add(tokens);
    }

    /// What two neighbouring parts are together.
    fn join(left: &Self, right: &Self) -> Self {
        let (size_max, largest) = if left.size_max > right.size_max {
            (left.size_max, left.largest)
        } else {
            (right.size_max, right.largest)
        };
        Self {
            size_max,
            largest,
            slack_min: left.slack_min.min(right.slack_min),
            pending: 0,
        }
    }
}

/// Sizes and slacks of the reservations kept, by due date.
#[derive(Debug)]
pub(super) struct Gains {
    /// A complete binary tree: the root at 1, the children of i at 2i and 2i + 1, the leaves from `width` on.
    nodes: Vec<Node>,
    width: usize,
}

/// What giving up a reservation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gain {
    pub(super) place: usize,
    pub(super) tokens: i64,
}

impl Gains {
    pub(super) fn new(places: usize) -> Self {
        let width = places.next_power_of_two();
        Self {
            nodes: vec![EMPTY; 2 * width],
            width,
        }
    }

    /// Keeps the reservation at a place: its size, and the slack just before it pays.
    pub(super) fn keep(&mut self, place: usize, size: i64, slack: i64) {
        self.set(
            place,
            Node {
                size_max: size,
                largest: place,
                slack_min: slack,
                pending: 0,
            },
        );
    }

    /// Gives up the one at a place; all kept after it find more tokens and less slack.
    ///
    /// Where the tokens run over on their way, those before get a little less than they should: there the slack is 0 from now on, and
    /// nothing before it can gain again.
    pub(super) fn give_up(&mut self, gain: Gain) {
        self.set(gain.place, EMPTY);
        self.lower_from(gain.place + 1, gain.tokens);
    }

    /// The largest gain. Something must be kept.
    pub(super) fn best(&mut self) -> Gain {
        let mut after = EMPTY;
        let mut node = 1;
        while node < self.width {
            self.push_down(node);
            let right = Node::join(&self.nodes[2 * node + 1], &after);
            if right.slack_min >= right.size_max {
                after = right;
                node *= 2;
            } else {
                node = 2 * node + 1;
            }
        }
        let leaf = Node::join(&self.nodes[node], &after);
        Gain {
            place: leaf.largest,
            tokens: leaf.size_max.min(after.slack_min),
        }
    }

    fn set(&mut self, place: usize, leaf: Node) {
        let mut node = 1;
        let mut half = self.width / 2;
        while half > 0 {
            self.push_down(node);
            node = 2 * node + usize::from(place & half != 0);
            half /= 2;
        }
        self.nodes[node] = leaf;
        self.pull_up(node);
    }

    /// Lowers the slack of every place from `first` on; those not reached yet have none.
    fn lower_from(&mut self, first: usize, tokens: i64) {
        if first >= self.width {
            return;
        }
        let mut node = 1;
        let mut half = self.width / 2;
        while half > 0 {
            self.push_down(node);
            let goes_right = first & half != 0;
            if !goes_right {
                self.nodes[2 * node + 1].lower_slack(tokens);
            }
            node = 2 * node + usize::from(goes_right);
            half /= 2;
        }
        self.nodes[node].lower_slack(tokens);
        self.pull_up(node);
    }

    fn push_down(&mut self, node: usize) {
        let tokens = std::mem::take(&mut self.nodes[node].pending);
        if tokens != 0 {
            self.nodes[2 * node].lower_slack(tokens);
            self.nodes[2 * node + 1].lower_slack(tokens);
        }
    }

    /// Renews everything above a leaf; nothing is pending there, as the way down has pushed it.
    fn pull_up(&mut self, leaf: usize) {
        let mut node = leaf / 2;
        while node > 0 {
            self.nodes[node] = Node::join(&self.nodes[2 * node], &self.nodes[2 * node + 1]);
            node /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the tree stands for, in the plainest form.
    fn plain_best(kept: &[Option<(i64, i64)>]) -> i64 {
        let gain = |place: usize| {
            let (size, _) = kept[place]?;
            let after = kept[place + 1..].iter().flatten();
            let slack = after.map(|(_, slack)| *slack).min();
            Some(size.min(slack.unwrap_or(NOTHING_PAID)))
        };
        (0..kept.len()).filter_map(gain).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn the_descent_finds_the_best_gain(
            rows in prop::collection::vec((1i64..30, 0i64..30, prop::bool::ANY), 1..20)
        ) {
            let mut kept = Vec::new();
            let mut tree = Gains::new(rows.len());
            for (place, (size, slack, gives_up)) in rows.into_iter().enumerate() {
                kept.push(Some((size, slack)));
                tree.keep(place, size, slack);
                let gain = tree.best();
                prop_assert_eq!(gain.tokens, plain_best(&kept));
                if gives_up && gain.tokens > 0 {
                    tree.give_up(gain);
                    kept[gain.place] = None;
                    for (_, slack) in kept[gain.place + 1..].iter_mut().flatten() {
                        *slack -= gain.tokens;
                    }
                    if kept.iter().flatten().next().is_some() {
                        prop_assert_eq!(tree.best().tokens.max(0), plain_best(&kept).max(0));
                    }
                }
            }
        }
    }
}
