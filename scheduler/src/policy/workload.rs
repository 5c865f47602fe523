//! What has been asked for lately: the one thing that a packing policy knows of the future.
//!
//! Nothing is known beforehand. Every decision on a task that wants devices is noted, and every so
//! often ([`Workload::refresh`]) what was noted becomes the typical tasks that policies weigh nodes
//! by. What was asked long ago fades.
//!
//! Deterministic: the same notes make the same typical tasks.

use std::collections::BTreeMap;

use super::shape::{Shape, WHOLE};
use crate::index::Allowed;

/// Typical shapes. A decision weighs every state of a node that it has not seen before by each of
/// them; with 32 it packs a little worse, with all a little better.
pub(crate) const SHAPES: usize = 64;
/// Typical tasks, for the published measure, which tells tasks apart by where they may go, too.
pub(crate) const TYPICAL: usize = 256;
/// Different tasks that are remembered. Of more, those asked for least are forgotten at the next
/// refresh; until then, new ones are not taken in.
pub(crate) const REMEMBERED: usize = 1024;
/// Different sets of classes that tasks may go to. Tasks with further ones count as if every class
/// would do.
pub(crate) const REACHES: usize = 64;
/// What is left of an old note's weight after [`FADE_PER`] new ones: a half after about 6,700.
const FADE: f64 = 0.95;
const FADE_PER: f64 = 500.0;
/// The least and the most notes from one refresh to the next; in between, a quarter of all: a young
/// workload is learnt fast, and an old one costs little, as all is weighed anew after a refresh.
const REFRESH_LEAST: u64 = 16;
const REFRESH_MOST: u64 = 4000;
/// Notes from one look at who competes for what to the next: it depends on what is free, and
/// nothing is weighed anew for it.
const CONTEND: u64 = 50;
/// A note lighter than this is forgotten.
const FORGOTTEN: f64 = 0.05;
/// Devices that are taken to be wanted of each class before anything is known, so that a small
/// class is not given away before the first task comes that needs it.
const PRIOR: f64 = 2.0;

/// A task that is typical, and how typical.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Typical {
    pub shape: Shape,
    /// Its place among the reaches; 0 where they are not told apart.
    pub reach: usize,
    /// Share of all tasks, 0 to 1.
    pub weight: f64,
    /// 1 ÷ CPU and 1 ÷ memory that it wants, infinite if it wants none.
    pub per_amounts: (f64, f64),
}

/// Where tasks of some kind may go, and how much they want there.
#[derive(Debug, Clone, PartialEq)]
struct Reach {
    allowed: Allowed,
    /// Devices asked for.
    demand: f64,
}

/// Tasks that wanted devices of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    noted: BTreeMap<(Shape, usize), f64>,
    /// The first is every class.
    reaches: Vec<Reach>,
    shapes: Vec<Typical>,
    typical: Vec<Typical>,
    /// For each class how much its devices are wanted by tasks that have little choice.
    contention: Vec<f64>,
    notes: u64,
    next_refresh: u64,
    last_refresh: u64,
    next_contention: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            noted: BTreeMap::new(),
            reaches: vec![Reach {
                allowed: Allowed::All,
                demand: 0.0,
            }],
            shapes: Vec::new(),
            typical: Vec::new(),
            contention: Vec::new(),
            notes: 0,
            next_refresh: REFRESH_LEAST,
            last_refresh: 0,
            next_contention: 0,
        }
    }
}

impl Workload {
    /// Notes that a task was asked for, which may go to these classes.
    pub(crate) fn note(&mut self, shape: Shape, allowed: &Allowed) {
        self.notes += 1;
        let reach = self.reach(allowed);
        self.reaches[reach].demand += f64::from(shape.total()) / f64::from(WHOLE);
        let full = self.noted.len() >= REMEMBERED;
        match self.noted.get_mut(&(shape, reach)) {
            Some(weight) => *weight += 1.0,
            None if full => {}
            None => {
                self.noted.insert((shape, reach), 1.0);
            }
        }
    }

    fn reach(&mut self, allowed: &Allowed) -> usize {
        let known = self
            .reaches
            .iter()
            .position(|reach| reach.allowed == *allowed);
        match known {
            Some(place) => place,
            None if self.reaches.len() < REACHES => {
                self.reaches.push(Reach {
                    allowed: allowed.clone(),
                    demand: 0.0,
                });
                self.reaches.len() - 1
            }
            None => 0,
        }
    }

    /// Returns whether it is time for [`Self::refresh`].
    pub(crate) const fn is_due(&self) -> bool {
        self.notes >= self.next_refresh
    }

    /// Returns whether it is time for [`Self::contend`].
    pub(crate) const fn is_contention_due(&self) -> bool {
        self.notes >= self.next_contention
    }

    /// Makes the typical tasks anew; `free` are the devices that each class has free, in all.
    pub(crate) fn refresh(&mut self, free: &[f64]) {
        let since = self.notes - self.last_refresh;
        self.last_refresh = self.notes;
        self.next_refresh = self.notes + (self.notes / 4).clamp(REFRESH_LEAST, REFRESH_MOST);
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let fade = FADE.powf(since as f64 / FADE_PER);
        self.noted.retain(|_, weight| {
            *weight *= fade;
            *weight >= FORGOTTEN
        });
        for reach in &mut self.reaches {
            reach.demand *= fade;
        }
        if self.noted.len() >= REMEMBERED {
            for (_, key) in heaviest(&self.noted).drain(REMEMBERED / 2..) {
                self.noted.remove(&key);
            }
        }
        let mut shapes: BTreeMap<(Shape, usize), f64> = BTreeMap::new();
        for (&(shape, _), weight) in &self.noted {
            *shapes.entry((shape, 0)).or_default() += weight;
        }
        self.shapes = typical(&shapes, SHAPES);
        self.typical = typical(&self.noted, TYPICAL);
        self.contend(free);
    }

    /// Computes how much each class is wanted by those who have little choice: the devices asked
    /// for by the tasks of each reach, over the devices that are free within it, summed over the
    /// reaches that the class is in; 1 is a class that is wanted as much as all are on the whole.
    pub(crate) fn contend(&mut self, free: &[f64]) {
        self.next_contention = self.notes + CONTEND;
        let free_in = |allowed: &Allowed| -> f64 {
            let classes = (0u32..)
                .zip(free)
                .filter(|(class, _)| allowed.contains(*class));
            classes.map(|(_, free)| free).sum()
        };
        let demand: f64 = self.reaches.iter().map(|reach| reach.demand).sum();
        let classes = free.iter().map(|_| PRIOR).sum::<f64>();
        let all: f64 = free.iter().sum();
        // A class that is used up is wanted as if it had one device: not without bound.
        let mean = (demand + classes).max(1.0) / all.max(1.0);
        self.contention = (0u32..)
            .zip(free)
            .map(|(class, &free)| {
                let reaches = self
                    .reaches
                    .iter()
                    .filter(|reach| reach.allowed.contains(class));
                let wanted: f64 = reaches
                    .map(|reach| reach.demand / free_in(&reach.allowed).max(1.0))
                    .sum();
                (wanted + PRIOR / free.max(1.0)) / mean
            })
            .collect();
    }

    /// Forgets where tasks may go, as classes are no longer what they were, but not what they want.
    pub(crate) fn forget_reaches(&mut self) {
        let mut noted: BTreeMap<(Shape, usize), f64> = BTreeMap::new();
        for (&(shape, _), weight) in &self.noted {
            *noted.entry((shape, 0)).or_default() += weight;
        }
        self.noted = noted;
        let demand = self.reaches.iter().map(|reach| reach.demand).sum();
        self.reaches.truncate(1);
        self.reaches[0].demand = demand;
        self.next_refresh = self.notes;
        self.next_contention = self.notes;
    }

    /// Returns the typical shapes of tasks, wherever they may go, those that want the same of
    /// devices together.
    pub(crate) fn shapes(&self) -> &[Typical] {
        &self.shapes
    }

    /// Returns the typical tasks, told apart by where they may go, too.
    pub(crate) fn typical(&self) -> &[Typical] {
        &self.typical
    }

    /// Returns whether tasks of a reach may go to a class.
    pub(crate) fn reaches(&self, reach: usize, class: u32) -> bool {
        self.reaches[reach].allowed.contains(class)
    }

    /// Returns how contended a class is; see [`Self::contend`].
    pub(crate) fn contention(&self, class: u32) -> f64 {
        self.contention.get(class as usize).copied().unwrap_or(0.0)
    }
}

/// Returns what was noted, the heaviest first.
fn heaviest(noted: &BTreeMap<(Shape, usize), f64>) -> Vec<(f64, (Shape, usize))> {
    let mut list: Vec<_> = noted.iter().map(|(&key, &weight)| (weight, key)).collect();
    list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    list
}

/// Returns the most frequent tasks that want devices, with their shares among these.
fn typical(noted: &BTreeMap<(Shape, usize), f64>, most: usize) -> Vec<Typical> {
    let mut list = heaviest(noted);
    list.retain(|(_, (shape, _))| shape.count > 0);
    list.truncate(most);
    let all: f64 = list.iter().map(|(weight, _)| weight).sum();
    let share = |(weight, (shape, reach)): (f64, (Shape, usize))| Typical {
        shape,
        reach,
        weight: weight / all,
        per_amounts: (
            f64::from(shape.cpu).recip(),
            f64::from(shape.memory).recip(),
        ),
    };
    // Those that want the same of devices stand together: what it comes to is computed once.
    let mut list: Vec<Typical> = list.into_iter().map(share).collect();
    list.sort_by_key(|typical| (typical.shape.count, typical.shape.milli));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Classes;

    fn gpu(count: u8, milli: u16) -> Shape {
        Shape {
            cpu: 4000,
            memory: 1024,
            count,
            milli,
        }
    }

    fn only(class: u32) -> Allowed {
        Allowed::Some([class].into_iter().collect::<Classes>())
    }

    #[test]
    fn what_is_asked_for_most_is_most_typical_and_the_old_fades() {
        let mut workload = Workload::default();
        for _ in 0..300 {
            workload.note(gpu(1, 500), &Allowed::All);
        }
        workload.note(gpu(8, 1000), &Allowed::All);
        workload.refresh(&[100.0]);
        assert_eq!(workload.typical()[0].shape, gpu(1, 500));
        assert!(workload.typical()[0].weight > 0.99);
        for _ in 0..100 {
            for _ in 0..1000 {
                workload.note(gpu(8, 1000), &Allowed::All);
            }
            workload.refresh(&[100.0]);
        }
        assert_eq!(workload.typical().len(), 1, "{:?}", workload.typical());
    }

    #[test]
    fn class_that_some_tasks_need_is_more_contended_than_one_that_all_can_do_without() {
        let mut workload = Workload::default();
        for _ in 0..90 {
            workload.note(gpu(1, 1000), &Allowed::All);
        }
        for _ in 0..10 {
            workload.note(gpu(1, 1000), &only(1));
        }
        workload.refresh(&[900.0, 100.0]);
        assert!(workload.contention(1) > 1.5 * workload.contention(0));
        workload.forget_reaches();
        workload.refresh(&[500.0, 500.0]);
        let (a, b) = (workload.contention(0), workload.contention(1));
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn more_different_tasks_than_are_remembered_are_bounded() {
        let mut workload = Workload::default();
        for cpu in 0..3 * u32::try_from(REMEMBERED).expect("small") {
            let shape = Shape {
                cpu,
                ..gpu(1, 1000)
            };
            workload.note(shape, &only(cpu));
            assert!(workload.noted.len() <= REMEMBERED && workload.reaches.len() <= REACHES);
        }
        workload.refresh(&[1.0]);
        assert!(workload.noted.len() <= REMEMBERED / 2);
        assert_eq!(
            (workload.typical().len(), workload.shapes().len()),
            (TYPICAL, SHAPES)
        );
    }
}
