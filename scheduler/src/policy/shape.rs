//! What a node has left and what a task wants, as the packing policies see them.

use ballast_model::Resources;
use serde::{Deserialize, Serialize};

/// Devices of one kind on one node.
pub(crate) const DEVICES: usize = ballast_model::limits::DEVICES_PER_NODE;
/// All of a device, in thousandths.
pub(crate) const WHOLE: u16 = 1000;

const MIB: u64 = 1 << 20;

/// What one task wants: CPU, memory, and devices of the kind that is looked at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) struct Shape {
    /// Thousandths of a core.
    pub cpu: u32,
    /// MiB, rounded up.
    pub memory: u32,
    /// How many devices; 0: none of this kind.
    pub count: u8,
    /// Thousandths of each.
    pub milli: u16,
}

/// What one node has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Room {
    /// Thousandths of a core.
    pub cpu: u32,
    /// MiB, rounded down.
    pub memory: u32,
    /// Thousandths of each device of the kind, the most first: which one it is does not matter.
    left: [u16; DEVICES],
}

/// Returns an amount of memory in whole MiB.
pub(crate) fn mib(bytes: u64, up: bool) -> u32 {
    let mib = if up { bytes.div_ceil(MIB) } else { bytes / MIB };
    u32::try_from(mib).unwrap_or(u32::MAX)
}

impl Shape {
    /// Returns what a request wants, seen from one kind of device.
    pub(crate) fn of(wanted: &Resources, kind: &str) -> Self {
        let devices = &wanted.devices;
        let (count, milli) = if devices.kind == kind {
            (devices.count, devices.milli)
        } else {
            (0, 0)
        };
        Self {
            cpu: wanted.cpu.0,
            memory: mib(wanted.memory.0, true),
            count,
            milli,
        }
    }

    /// Returns thousandths of devices in all.
    pub(crate) const fn total(&self) -> u32 {
        self.count as u32 * self.milli as u32
    }

    /// Returns whether it is part of one device.
    const fn is_fraction(&self) -> bool {
        self.count == 1 && self.milli < WHOLE
    }
}

impl Room {
    /// Returns this much room; devices in any order.
    pub(crate) fn new(cpu: u32, memory: u32, devices: impl IntoIterator<Item = u16>) -> Self {
        let mut left = [0; DEVICES];
        for (place, milli) in left.iter_mut().zip(devices) {
            *place = milli.min(WHOLE);
        }
        left.sort_unstable_by(|a, b| b.cmp(a));
        Self { cpu, memory, left }
    }

    /// Returns thousandths of devices in all.
    pub(crate) fn free(&self) -> u32 {
        self.left.iter().map(|&milli| u32::from(milli)).sum()
    }

    /// Returns what each device that is not used up has left, the most first.
    pub(crate) fn left(&self) -> impl Iterator<Item = u16> + '_ {
        self.left.iter().copied().take_while(|&milli| milli > 0)
    }

    /// Returns how many devices are untouched.
    pub(crate) fn untouched(&self) -> u32 {
        self.left()
            .take_while(|&milli| milli == WHOLE)
            .map(|_| 1)
            .sum()
    }

    /// Returns what is left after a task, or nothing if it does not fit by CPU and devices; memory
    /// is rounded, and whether that fits is not said here. A fraction goes on the device that has
    /// the least left but enough.
    pub(crate) fn after(&self, shape: &Shape) -> Option<Self> {
        let mut after = Self {
            cpu: self.cpu.checked_sub(shape.cpu)?,
            memory: self.memory.saturating_sub(shape.memory),
            left: self.left,
        };
        if shape.count == 0 {
            return Some(after);
        }
        let milli = shape.milli.max(1);
        let enough = self.left.partition_point(|&left| left >= milli);
        let first = if shape.is_fraction() {
            enough.checked_sub(1)?
        } else {
            0
        };
        let chosen = first..first + usize::from(shape.count);
        if chosen.end > enough {
            return None;
        }
        for left in &mut after.left[chosen] {
            *left -= shape.milli;
        }
        after.left.sort_unstable_by(|a, b| b.cmp(a));
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(count: u8, milli: u16) -> Shape {
        Shape {
            cpu: 1000,
            memory: 10,
            count,
            milli,
        }
    }

    #[test]
    fn a_fraction_takes_the_tightest_device_and_whole_ones_take_untouched_devices() {
        let room = Room::new(3000, 30, [300, 1000, 650, 1000]);
        let left = |room: Room| room.left().collect::<Vec<_>>();
        let after = |count, milli| room.after(&shape(count, milli)).map(left);
        assert_eq!(after(1, 300), Some(vec![1000, 1000, 650]));
        assert_eq!(after(1, 400), Some(vec![1000, 1000, 300, 250]));
        assert_eq!(after(2, 1000), Some(vec![650, 300]));
        assert_eq!(after(3, 1000), None);
        assert_eq!(after(0, 0), Some(vec![1000, 1000, 650, 300]));
        assert_eq!(room.untouched(), 2);
        assert_eq!(Room::new(999, 30, [1000]).after(&shape(1, 1)), None);
    }

    proptest! {
        #[test]
        fn prop_no_device_gives_more_than_it_has(
            devices in prop::collection::vec(0u16..=1000, 0..=DEVICES),
            (count, milli) in prop_oneof![(Just(1u8), 1u16..=1000), (1u8..=16, Just(1000u16))],
        ) {
            let room = Room::new(1000, 10, devices.iter().copied());
            let wanted = shape(count, milli);
            let enough = devices.iter().filter(|&&left| left >= milli).count();
            match room.after(&wanted) {
                Some(after) => {
                    prop_assert!(enough >= usize::from(count));
                    prop_assert_eq!(after.free() + wanted.total(), room.free());
                }
                None => prop_assert!(enough < usize::from(count)),
            }
        }
    }
}
