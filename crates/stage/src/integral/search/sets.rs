//! What is on the stage, as a multiset of size classes: each different one is stored once and known by a number.

use std::collections::HashMap;

/// A size: position among all different sizes, ascending.
pub(super) type Class = u16;

/// A multiset of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Set(u32);

/// The empty stage.
pub(super) const EMPTY: Set = Set(0);

#[derive(Debug)]
struct Entry {
    /// Ascending.
    classes: Box<[Class]>,
    bytes: i64,
    /// Sets with one more or one fewer of a class, as far as they were asked for.
    more: Vec<(Class, Set)>,
    fewer: Vec<(Class, Set)>,
}

/// All sets seen.
#[derive(Debug)]
pub(super) struct Sets {
    entries: Vec<Entry>,
    numbers: HashMap<Box<[Class]>, Set>,
}

impl Sets {
    pub(super) fn new() -> Self {
        let mut sets = Self {
            entries: Vec::new(),
            numbers: HashMap::new(),
        };
        sets.number(Box::default(), 0);
        sets
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self, set: Set) -> i64 {
        self.entries[set.0 as usize].bytes
    }

    pub(super) fn classes(&self, set: Set) -> &[Class] {
        &self.entries[set.0 as usize].classes
    }

    pub(super) fn count(&self, set: Set, class: Class) -> usize {
        let classes = self.classes(set);
        let first = classes.partition_point(|other| *other < class);
        classes[first..]
            .iter()
            .take_while(|other| **other == class)
            .count()
    }

    pub(super) fn with(&mut self, set: Set, class: Class, size: i64) -> Set {
        let entry = &self.entries[set.0 as usize];
        if let Some((_, more)) = entry.more.iter().find(|(other, _)| *other == class) {
            return *more;
        }
        let mut classes = entry.classes.to_vec();
        classes.insert(classes.partition_point(|other| *other < class), class);
        let more = self.number(classes.into(), entry.bytes + size);
        self.entries[set.0 as usize].more.push((class, more));
        more
    }

    /// The class must be there.
    pub(super) fn without(&mut self, set: Set, class: Class, size: i64) -> Set {
        let entry = &self.entries[set.0 as usize];
        if let Some((_, fewer)) = entry.fewer.iter().find(|(other, _)| *other == class) {
            return *fewer;
        }
        let mut classes = entry.classes.to_vec();
        classes.remove(classes.partition_point(|other| *other < class));
        let fewer = self.number(classes.into(), entry.bytes - size);
        self.entries[set.0 as usize].fewer.push((class, fewer));
        fewer
    }

    /// A set that another collection numbered, in this one.
    pub(super) fn adopt(&mut self, from: &Self, set: Set) -> Set {
        self.number(from.classes(set).into(), from.bytes(set))
    }

    fn number(&mut self, classes: Box<[Class]>, bytes: i64) -> Set {
        if let Some(set) = self.numbers.get(&classes) {
            return *set;
        }
        let number =
            u32::try_from(self.entries.len()).expect("fewer sets than 2^32 fit into memory");
        self.numbers.insert(classes.clone(), Set(number));
        self.entries.push(Entry {
            classes,
            bytes,
            more: Vec::new(),
            fewer: Vec::new(),
        });
        Set(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_number() {
        let mut sets = Sets::new();
        let ab = sets.with(EMPTY, 0, 3);
        let ab = sets.with(ab, 1, 10);
        let ba = sets.with(EMPTY, 1, 10);
        let ba = sets.with(ba, 0, 3);
        assert_eq!(ab, ba);
        assert_eq!(sets.bytes(ab), 13);
        let twice = sets.with(ab, 1, 10);
        assert_eq!((sets.count(twice, 1), sets.count(twice, 0)), (2, 1));
        assert_eq!(sets.without(twice, 1, 10), ab);
        let mut others = Sets::new();
        let adopted = others.adopt(&sets, twice);
        assert_eq!(others.classes(adopted), [0, 1, 1]);
    }
}
