//! How much of a node's free devices is of no use to the tasks that are typically asked for.
//!
//! Two measures; a policy places a task where the measure grows least.
//!
//! * [`Measure::Usable`], our own: for each typical task, how many devices would be used if the
//!   node were filled with such tasks, once as far as devices go and once as far as CPU and memory
//!   go, too, averaged. So a gap counts as used only as far as tasks fill it, and a node
//!   that runs out of CPU before it runs out of devices is seen before it has run out.
//! * [`Measure::Published`], that of FGD: a device is of use to a typical task if it has enough
//!   left for one and the node has the CPU for one.
//!
//! # Source
//! Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
//! Gradient Descent", USENIX ATC 2023, section 4; why ours differs: `docs/adr/0009`.

use super::shape::{Room, Shape, WHOLE};
use super::workload::{Typical, Workload};

/// A measure of fragmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// By how much typical tasks would fill.
    Usable,
    /// As published.
    Published,
}

/// How much of the fill is judged by CPU and memory as well as by devices. Less strands CPU, more
/// gives up devices that a smaller task could still use: 0.25 and 0.75 pack worse than a half.
const BY_AMOUNTS: f64 = 0.5;

impl Measure {
    /// Returns how many devices' worth of a node's free devices is of no use, 0 to all of them.
    ///
    /// # Complexity
    /// Typical tasks × devices in use by a fraction.
    pub(crate) fn of(self, room: &Room, class: u32, workload: &Workload) -> f64 {
        let free = f64::from(room.free());
        if free <= 0.0 {
            return 0.0;
        }
        let untouched = room.untouched();
        let mut useless = 0.0;
        let typical = match self {
            // Who may go where is a matter of contention; told apart here, too, it packs no better.
            Self::Usable => workload.shapes(),
            Self::Published => workload.typical(),
        };
        let mut last = ((0, 0), 0.0);
        for typical in typical {
            let shape = &typical.shape;
            if last.0 != (shape.count, shape.milli) {
                let by_devices = match self {
                    Self::Usable => fitting(shape, room, untouched),
                    Self::Published => enough(shape, room),
                };
                last = ((shape.count, shape.milli), by_devices);
            }
            let usable = if self.takes(typical, room) && workload.reaches(typical.reach, class) {
                match self {
                    Self::Usable => filled(typical, room, last.1),
                    Self::Published => last.1,
                }
            } else {
                0.0
            };
            useless += typical.weight * (free - usable);
        }
        useless / f64::from(WHOLE)
    }

    /// Returns whether CPU and memory suffice for one typical task.
    fn takes(self, typical: &Typical, room: &Room) -> bool {
        let shape = &typical.shape;
        // Memory is not part of the published measure.
        let memory = self == Self::Published || shape.memory <= room.memory;
        shape.cpu <= room.cpu && memory
    }
}

/// Returns how many such tasks the devices have room for.
fn fitting(shape: &Shape, room: &Room, untouched: u32) -> f64 {
    if shape.count == 0 || shape.milli == 0 {
        return 0.0;
    }
    let milli = u32::from(shape.milli);
    let tasks = if shape.count > 1 || shape.milli >= WHOLE {
        untouched / u32::from(shape.count)
    } else {
        let whole = u32::from(WHOLE) / milli * untouched;
        let parts = room.left().skip(untouched as usize);
        whole + parts.map(|left| u32::from(left) / milli).sum::<u32>()
    };
    f64::from(tasks)
}

/// Returns thousandths of devices that such tasks would fill, of which so many fit by devices.
fn filled(typical: &Typical, room: &Room, by_devices: f64) -> f64 {
    let (per_cpu, per_memory) = typical.per_amounts;
    // What is not wanted at all gives infinity or, of nothing, NaN: `min` takes the other.
    let by_amounts = (f64::from(room.cpu) * per_cpu).min(f64::from(room.memory) * per_memory);
    let tasks = by_devices + BY_AMOUNTS * (by_amounts.min(by_devices) - by_devices);
    tasks * f64::from(typical.shape.total())
}

/// Returns thousandths of devices that have enough left for one task.
fn enough(shape: &Shape, room: &Room) -> f64 {
    let left = room.left().filter(|&left| left >= shape.milli);
    let (devices, milli) = left.fold((0u32, 0u32), |(devices, sum), left| {
        (devices + 1, sum + u32::from(left))
    });
    if shape.count == 0 || devices < u32::from(shape.count) {
        return 0.0;
    }
    f64::from(milli)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Allowed;
    use crate::policy::learnt::Notes;
    use proptest::prelude::*;

    fn workload(shapes: &[(u32, u8, u16)]) -> Workload {
        let mut notes = Notes::default();
        for &(cpu, count, milli) in shapes {
            let shape = Shape {
                cpu,
                memory: 0,
                count,
                milli,
            };
            notes.note(shape, &[]);
        }
        notes.refresh();
        Workload::of(&notes, vec![Allowed::All], 1)
    }

    /// Returns what is useless in thousandths of a device.
    #[expect(clippy::cast_possible_truncation, reason = "a few devices")]
    fn useless(measure: Measure, room: &Room, workload: &Workload) -> i64 {
        (measure.of(room, 0, workload) * 1e3).round() as i64
    }

    #[test]
    fn gap_counts_as_used_only_as_far_as_tasks_fill_it() {
        let workload = workload(&[(1000, 1, 300)]);
        let room = Room::new(64_000, 0, [800]);
        // Two of 300 fill 600 of 800; FGD sees a device with enough left.
        assert_eq!(useless(Measure::Usable, &room, &workload), 200);
        assert_eq!(useless(Measure::Published, &room, &workload), 0);
        let small = Room::new(64_000, 0, [200]);
        assert_eq!(useless(Measure::Usable, &small, &workload), 200);
        assert_eq!(useless(Measure::Published, &small, &workload), 200);
    }

    #[test]
    fn lack_of_cpu_is_seen_before_the_last_task() {
        let workload = workload(&[(10_000, 1, 1000)]);
        let devices = [1000; 4];
        let ample = Room::new(40_000, 0, devices);
        let short = Room::new(20_000, 0, devices);
        let none = Room::new(9_999, 0, devices);
        let both = |room| {
            (
                useless(Measure::Usable, room, &workload),
                useless(Measure::Published, room, &workload),
            )
        };
        assert_eq!(both(&ample), (0, 0));
        // Two of four by CPU, four of four by devices.
        assert_eq!(both(&short), (1000, 0));
        assert_eq!(both(&none), (4000, 4000));
    }

    #[test]
    fn devices_of_a_class_that_a_task_may_not_use_are_of_no_use_to_it() {
        let shape = Shape {
            cpu: 1000,
            count: 1,
            milli: 1000,
            ..Shape::default()
        };
        let mut notes = Notes::default();
        notes.note(shape, &[]);
        let picky = ["node.labels.zone==z7".parse().expect("a constraint")];
        for _ in 0..3 {
            notes.note(shape, &picky);
        }
        notes.refresh();
        let others = Allowed::Some([7].into_iter().collect());
        let workload = Workload::of(&notes, vec![Allowed::All, others], 8);
        let room = Room::new(4000, 0, [1000]);
        let of = |class| Measure::Published.of(&room, class, &workload);
        assert!(of(7).abs() < 1e-9);
        assert!((of(0) - 0.75).abs() < 0.01, "{}", of(0));
    }

    proptest! {
        #[test]
        fn prop_what_is_useless_is_part_of_what_is_free(
            cpu in 0u32..100_000,
            devices in prop::collection::vec(0u16..=1000, 0..16),
            shapes in prop::collection::vec((0u32..50_000, 0u8..9, 0u16..=1000), 1..40),
        ) {
            let workload = workload(&shapes);
            let room = Room::new(cpu, 0, devices.iter().copied());
            let free = f64::from(room.free()) / 1000.0;
            for measure in [Measure::Usable, Measure::Published] {
                let useless = measure.of(&room, 0, &workload);
                prop_assert!((-1e-9..=free + 1e-9).contains(&useless), "{useless} of {free}");
            }
        }
    }
}
