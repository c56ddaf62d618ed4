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
    outline: Outline,
    /// Sets with one more or one fewer of a class, as far as they were asked for.
    more: Vec<(Class, Set)>,
    fewer: Vec<(Class, Set)>,
}

/// How many images of a set are of a class or above, for sixteen classes, in one byte each: if the images of one set can each be told a
/// larger one of another set, no byte is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline(u128);

impl Outline {
    const STEPS: usize = 16;
    const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; 16]);
    const COUNT_MAX: u8 = 0x7f;

    /// For classes that ascend, of so many in all.
    fn of(classes: &[Class], of: usize) -> Self {
        let count = |step: usize| {
            let least = of * step / Self::STEPS;
            let below = classes.partition_point(|class| usize::from(*class) < least);
            u8::try_from(classes.len() - below)
                .unwrap_or(u8::MAX)
                .min(Self::COUNT_MAX)
        };
        Self(u128::from_ne_bytes(std::array::from_fn(count)))
    }

    /// Whether no byte is larger than the other's.
    pub(super) const fn fits_into(self, other: Self) -> bool {
        // Each byte borrows from its own high bit at most, and only if it is larger.
        ((other.0 | Self::HIGH_BITS) - self.0) & Self::HIGH_BITS == Self::HIGH_BITS
    }
}

/// All sets seen.
#[derive(Debug)]
pub(super) struct Sets {
    /// How many classes there are.
    classes: usize,
    entries: Vec<Entry>,
    numbers: HashMap<Box<[Class]>, Set>,
}

impl Sets {
    pub(super) fn new(classes: usize) -> Self {
        let mut sets = Self {
            classes,
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

    pub(super) fn outline(&self, set: Set) -> Outline {
        self.entries[set.0 as usize].outline
    }

    /// The same sets forgotten.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.classes)
    }

    pub(super) fn classes(&self, set: Set) -> &[Class] {
        &self.entries[set.0 as usize].classes
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
            outline: Outline::of(&classes, self.classes),
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
        let mut sets = Sets::new(2);
        let ab = sets.with(EMPTY, 0, 3);
        let ab = sets.with(ab, 1, 10);
        let ba = sets.with(EMPTY, 1, 10);
        let ba = sets.with(ba, 0, 3);
        assert_eq!(ab, ba);
        assert_eq!(sets.bytes(ab), 13);
        let twice = sets.with(ab, 1, 10);
        assert_eq!(sets.classes(twice), [0, 1, 1]);
        assert_eq!(sets.without(twice, 1, 10), ab);
        let mut others = Sets::new(2);
        let adopted = others.adopt(&sets, twice);
        assert_eq!(others.classes(adopted), [0, 1, 1]);
    }
}
