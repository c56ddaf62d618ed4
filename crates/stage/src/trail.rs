//! Which choices led to a state: paths that share their beginnings and are forgotten when nothing leads to them any more.
//!
//! A dynamic program that remembers every choice needs memory for all states it ever had. Most of them die soon, so each node
//! here counts what leads to it, and is used again when that is nothing.

/// The empty path.
pub(crate) const START: Path = Path(u32::MAX);

/// A path through the choices made; it is valid until released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path(u32);

#[derive(Debug)]
struct Node {
    choice: u32,
    before: Path,
    references: u32,
}

/// All paths that something still leads to.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    nodes: Vec<Node>,
    free: Vec<Path>,
}

impl Trail {
    /// The path that goes on from `before` with `choice`; the caller holds one reference to it.
    pub(crate) fn extend(&mut self, before: Path, choice: u32) -> Path {
        self.retain(before);
        let node = Node {
            choice,
            before,
            references: 1,
        };
        if let Some(path) = self.free.pop() {
            self.nodes[path.0 as usize] = node;
            return path;
        }
        let path =
            Path(u32::try_from(self.nodes.len()).expect("fewer states than 2^32 fit into memory"));
        self.nodes.push(node);
        path
    }

    /// One more reference to a path.
    pub(crate) fn retain(&mut self, path: Path) {
        if path != START {
            self.nodes[path.0 as usize].references += 1;
        }
    }

    /// One reference less; what nothing leads to any more is forgotten.
    pub(crate) fn release(&mut self, mut path: Path) {
        while path != START {
            let node = &mut self.nodes[path.0 as usize];
            node.references -= 1;
            if node.references > 0 {
                return;
            }
            self.free.push(path);
            path = node.before;
        }
    }

    /// The choices of a path, the last one first.
    pub(crate) fn choices(&self, mut path: Path) -> Vec<u32> {
        let mut choices = Vec::new();
        while path != START {
            let node = &self.nodes[path.0 as usize];
            choices.push(node.choice);
            path = node.before;
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_share_beginnings_and_dead_ones_make_room() {
        let mut trail = Trail::default();
        let one = trail.extend(START, 1);
        let two = trail.extend(one, 2);
        let three = trail.extend(one, 3);
        trail.release(one);
        assert_eq!(trail.choices(two), [2, 1]);
        assert_eq!(trail.choices(three), [3, 1]);
        trail.release(two);
        let four = trail.extend(three, 4);
        assert_eq!(trail.choices(four), [4, 3, 1]);
        assert_eq!(trail.nodes.len(), 3);
        trail.release(three);
        trail.release(four);
        assert_eq!(trail.free.len(), 3);
    }
}
