//! Pools: nodes of which the same share may be placed.

use serde::{Deserialize, Serialize};

use crate::{Bytes, Capacity, MilliCpu};

/// The most that a pool may promise, in percent of what its nodes have.
pub const MOST_OVERCOMMIT_PERCENT: u32 = 10_000;

/// How much of its nodes' capacity may be placed. A pool that was never set offers all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Which; nodes name it by their agent's configuration.
    pub name: String,
    /// CPU that is promised, in percent of what is left after the reservation.
    #[schema(example = 150)]
    pub overcommit_cpu_percent: u32,
    /// Memory that is promised, in percent of what is left after the reservation.
    #[schema(example = 100)]
    pub overcommit_memory_percent: u32,
    /// CPU of each node that is never promised.
    #[schema(value_type = String, example = "0.5")]
    pub reserved_cpu: MilliCpu,
    /// Memory of each node that is never promised.
    #[schema(value_type = u64, example = 536_870_912)]
    pub reserved_memory: Bytes,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            name: crate::node::DEFAULT_POOL.to_owned(),
            overcommit_cpu_percent: 100,
            overcommit_memory_percent: 100,
            reserved_cpu: MilliCpu(0),
            reserved_memory: Bytes(0),
        }
    }
}

impl Pool {
    /// Returns what a node with this capacity offers: its capacity less the reservation, times the
    /// overcommit. What is counted in units (devices, sockets, slots, disk) is offered as it is.
    pub fn offers(&self, capacity: &Capacity) -> Capacity {
        let cpu = u64::from(capacity.cpu.0.saturating_sub(self.reserved_cpu.0));
        let cpu = cpu.saturating_mul(self.overcommit_cpu_percent.into()) / 100;
        let memory = capacity.memory.0.saturating_sub(self.reserved_memory.0);
        let memory = u128::from(memory) * u128::from(self.overcommit_memory_percent) / 100;
        Capacity {
            cpu: MilliCpu(u32::try_from(cpu).unwrap_or(u32::MAX)),
            memory: Bytes(u64::try_from(memory).unwrap_or(u64::MAX)),
            ..capacity.clone()
        }
    }

    /// Proves its fields.
    ///
    /// # Errors
    /// The field, the reason and the nearest valid value.
    pub fn validate(&self) -> Result<(), crate::InvalidSpec> {
        crate::validate_name("name", &self.name)?;
        for (field, percent) in [
            ("overcommit_cpu_percent", self.overcommit_cpu_percent),
            ("overcommit_memory_percent", self.overcommit_memory_percent),
        ] {
            if !(1..=MOST_OVERCOMMIT_PERCENT).contains(&percent) {
                let nearest = percent.clamp(1, MOST_OVERCOMMIT_PERCENT).to_string();
                let reason = format!("is 1 to {MOST_OVERCOMMIT_PERCENT} percent");
                return Err(crate::InvalidSpec::new(field, reason, Some(&nearest)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pool_offers_what_is_left_times_the_overcommit() {
        let capacity = Capacity::of(MilliCpu(4000), Bytes::from_mib(1000));
        assert_eq!(Pool::default().offers(&capacity), capacity);
        let pool = Pool {
            overcommit_cpu_percent: 150,
            reserved_cpu: MilliCpu(1000),
            reserved_memory: Bytes::from_mib(2000),
            ..Pool::default()
        };
        let offered = pool.offers(&capacity);
        assert_eq!((offered.cpu, offered.memory), (MilliCpu(4500), Bytes(0)));
        assert_eq!(offered.task_slots, capacity.task_slots);
    }

    #[test]
    fn absurd_ratios_are_refused_with_the_nearest() {
        for (percent, nearest) in [(0, "1"), (10_001, "10000"), (u32::MAX, "10000")] {
            let pool = Pool {
                overcommit_memory_percent: percent,
                ..Pool::default()
            };
            let refusal = pool.validate().expect_err("absurd");
            assert_eq!(refusal.field, "overcommit_memory_percent");
            assert_eq!(refusal.nearest.as_deref(), Some(nearest));
        }
    }

    proptest! {
        #[test]
        fn prop_no_pool_makes_the_arithmetic_overflow(
            cpu: u32, memory: u64, percent: (u32, u32), reserved: (u32, u64)
        ) {
            let pool = Pool {
                name: "x".to_owned(),
                overcommit_cpu_percent: percent.0,
                overcommit_memory_percent: percent.1,
                reserved_cpu: MilliCpu(reserved.0),
                reserved_memory: Bytes(reserved.1),
            };
            let capacity = Capacity::of(MilliCpu(cpu), Bytes(memory));
            let offered = pool.offers(&capacity);
            if pool.overcommit_memory_percent <= 100 {
                prop_assert!(offered.memory <= capacity.memory);
            }
        }
    }
}
