//! What a machine offers and what a task needs: cpu, memory, GPUs and scratch disk.

use serde::{Deserialize, Serialize};

use crate::job::FieldError;

/// An amount of each resource; a task's need, a node's offer or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    #[serde(default)]
    pub gpus: u32,
    /// Scratch disk, in bytes.
    #[serde(default)]
    pub scratch_bytes: u64,
}

/// 4,096 cores: more than any one machine has, less than would overflow a sum.
const CPU_MILLIS_MAX: u32 = 4_096_000;
/// 1 PiB, for memory and scratch alike.
const BYTES_MAX: u64 = 1 << 50;
/// More GPUs than any one machine holds.
const GPUS_MAX: u32 = 1_024;
/// Below 4 MiB no process starts.
const MEMORY_BYTES_MIN: u64 = 4 << 20;

impl Resources {
    /// Nothing at all.
    pub const ZERO: Self = Self {
        cpu_millis: 0,
        memory_bytes: 0,
        gpus: 0,
        scratch_bytes: 0,
    };

    /// Whether `need` fits into this amount in every dimension.
    pub const fn fits(&self, need: &Self) -> bool {
        need.cpu_millis <= self.cpu_millis
            && need.memory_bytes <= self.memory_bytes
            && need.gpus <= self.gpus
            && need.scratch_bytes <= self.scratch_bytes
    }

    /// What is left after taking `need`, or `None` if it does not fit.
    pub fn checked_sub(&self, need: &Self) -> Option<Self> {
        Some(Self {
            cpu_millis: self.cpu_millis.checked_sub(need.cpu_millis)?,
            memory_bytes: self.memory_bytes.checked_sub(need.memory_bytes)?,
            gpus: self.gpus.checked_sub(need.gpus)?,
            scratch_bytes: self.scratch_bytes.checked_sub(need.scratch_bytes)?,
        })
    }

    /// The sum, clamped to what the fields can hold.
    #[must_use]
    pub const fn saturating_add(&self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
            scratch_bytes: self.scratch_bytes.saturating_add(other.scratch_bytes),
        }
    }

    /// Checks that a task's need is neither nothing nor absurd.
    ///
    /// # Errors
    /// [`FieldError`] names the field and the allowed range.
    pub fn check_need(&self) -> Result<(), FieldError> {
        check_range(
            "cpus",
            u64::from(self.cpu_millis),
            1,
            CPU_MILLIS_MAX.into(),
            "thousandths of a core",
        )?;
        check_range(
            "memory",
            self.memory_bytes,
            MEMORY_BYTES_MIN,
            BYTES_MAX,
            "bytes",
        )?;
        check_range("gpus", self.gpus.into(), 0, GPUS_MAX.into(), "GPUs")?;
        check_range("scratch", self.scratch_bytes, 0, BYTES_MAX, "bytes")
    }

    /// The class that a node with this much free belongs to in the index of idle nodes: the
    /// exponents of the largest powers of two below each amount (DESIGN §6).
    pub const fn class(&self) -> ResourceClass {
        ResourceClass {
            gpu: log_two(self.gpus as u64),
            memory: log_two(self.memory_bytes >> 28),
            cpu: log_two((self.cpu_millis / 1000) as u64),
        }
    }
}

/// Bits needed to write `amount`: 0 for 0, 1 for 1, 2 for 2–3, 3 for 4–7 and so on.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 64 bits are counted"
)]
const fn log_two(amount: u64) -> u8 {
    (u64::BITS - amount.leading_zeros()) as u8
}

/// A node's size in powers of two; equal classes share one key of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceClass {
    /// Bits of the number of GPUs.
    pub gpu: u8,
    /// Bits of the memory counted in 256 MiB.
    pub memory: u8,
    /// Bits of the number of whole cores.
    pub cpu: u8,
}

impl ResourceClass {
    /// Whether some node of this class could hold what a node of class `need` holds.
    pub const fn may_fit(&self, need: &Self) -> bool {
        self.gpu >= need.gpu && self.memory >= need.memory && self.cpu >= need.cpu
    }
}

pub(crate) fn check_range(
    field: &'static str,
    value: u64,
    least: u64,
    most: u64,
    unit: &'static str,
) -> Result<(), FieldError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(FieldError::new(
        field,
        format!("{value} {unit} is out of range"),
        format!("give {least} to {most} {unit}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount() -> impl Strategy<Value = Resources> {
        (0..64_000_u32, 0..1_u64 << 40, 0..16_u32, 0..1_u64 << 40).prop_map(
            |(cpu_millis, memory_bytes, gpus, scratch_bytes)| Resources {
                cpu_millis,
                memory_bytes,
                gpus,
                scratch_bytes,
            },
        )
    }

    proptest! {
        #[test]
        fn taking_and_giving_back_changes_nothing(have in amount(), need in amount()) {
            prop_assert_eq!(have.fits(&need), have.checked_sub(&need).is_some());
            if let Some(left) = have.checked_sub(&need) {
                prop_assert_eq!(left.saturating_add(&need), have);
            }
        }

        #[test]
        fn what_fits_is_never_lost_by_class(have in amount(), need in amount()) {
            if have.fits(&need) {
                prop_assert!(have.class().may_fit(&need.class()));
            }
        }
    }
}
