//! What is typically asked for, as it applies to the classes of this fleet.

use super::learnt::{MILLI, Notes};
use super::shape::{Shape, WHOLE};
use crate::fleet::ClassTable;
use crate::index::Allowed;

/// Devices that are taken to be wanted of each kind of node before anything is known, so that a
/// scarce model is not given away before the first task comes that needs it.
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

/// What the nodes of a class have free, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Free {
    /// Open nodes.
    pub nodes: u64,
    /// Thousandths of devices.
    pub milli: u64,
}

impl Free {
    /// Returns devices, but never less than one: what is used up is not wanted without bound.
    #[expect(clippy::cast_precision_loss, reason = "fewer thousandths than 2^52")]
    fn devices(self) -> f64 {
        (self.milli as f64 / f64::from(WHOLE)).max(1.0)
    }
}

impl std::iter::Sum for Free {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            nodes: sum.nodes + one.nodes,
            milli: sum.milli + one.milli,
        })
    }
}

/// What is typical of the tasks that want devices of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    shapes: Vec<Typical>,
    typical: Vec<Typical>,
    /// To which classes tasks may go.
    reaches: Vec<Allowed>,
    /// For each class the number of those whose nodes have the same devices.
    wares: Vec<usize>,
}

impl Workload {
    /// Takes in what is typical.
    pub(crate) fn take(&mut self, notes: &Notes) {
        let shapes = notes.shapes().iter();
        self.shapes = typical(shapes.map(|&(shape, weight)| ((shape, 0), weight)));
        self.typical = typical(notes.typical().iter().copied());
    }

    /// Nothing is typical any more.
    pub(crate) fn forget(&mut self) {
        self.shapes.clear();
        self.typical.clear();
    }

    /// Takes in which classes there are, and where tasks may go among them.
    pub(crate) fn know(&mut self, notes: Option<&Notes>, classes: &ClassTable) {
        let reaches = notes.map_or(&[][..], Notes::reaches).iter();
        self.reaches = reaches
            .map(|reach| classes.allowed_by(&reach.constraints))
            .collect();
        let mut known = Vec::new();
        let mut ware = |node: &ballast_model::Node| {
            let devices = node.offered.devices.iter();
            let ware: Vec<_> = devices.map(|d| (d.kind.clone(), d.model.clone())).collect();
            known
                .iter()
                .position(|other| *other == ware)
                .unwrap_or_else(|| {
                    known.push(ware);
                    known.len() - 1
                })
        };
        self.wares = classes.specimens().map(&mut ware).collect();
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
        let reach = self.reaches.get(reach);
        reach.is_none_or(|allowed| allowed.contains(class))
    }

    /// Returns how much each class is wanted by those who have little choice: the devices asked
    /// for by the tasks of each reach, over the devices that are free within it, summed over the
    /// reaches that the class is in; none for classes that have no open node.
    ///
    /// However many classes rules make of nodes, it says the same of a node: sums are of whole
    /// numbers, and what is wanted beforehand is wanted of nodes with the same devices.
    #[expect(clippy::cast_precision_loss, reason = "rounded alike everywhere")]
    pub(crate) fn contention(&self, notes: Option<&Notes>, free: &[Free]) -> Vec<Option<f64>> {
        let classes = || (0u32..).zip(free);
        let reaches = notes.map_or(&[][..], Notes::reaches).iter();
        let wanted: Vec<(&Allowed, f64)> = reaches
            .zip(&self.reaches)
            .filter(|(reach, _)| reach.demand > 0)
            .map(|(reach, allowed)| {
                let within = classes().filter(|(class, _)| allowed.contains(*class));
                let within: Free = within.map(|(_, free)| *free).sum();
                let demand = reach.demand as f64 / (MILLI * u64::from(WHOLE)) as f64;
                (allowed, demand / within.devices())
            })
            .collect();
        let mut of_ware = vec![Free::default(); self.wares.iter().max().map_or(0, |most| most + 1)];
        for (&ware, &free) in self.wares.iter().zip(free) {
            of_ware[ware] = [of_ware[ware], free].into_iter().sum();
        }
        let contention = |(class, free): (u32, &Free)| {
            let reaches = wanted.iter().filter(|(allowed, _)| allowed.contains(class));
            let wanted: f64 = reaches.map(|(_, wanted)| wanted).sum();
            let ware = of_ware[self.wares[class as usize]];
            (free.nodes > 0).then_some(wanted + PRIOR / ware.devices())
        };
        classes().map(contention).collect()
    }
}

/// Returns tasks that want devices, with their shares among these.
#[expect(clippy::cast_precision_loss, reason = "rounded alike everywhere")]
fn typical(list: impl Iterator<Item = ((Shape, u16), u64)>) -> Vec<Typical> {
    let list: Vec<_> = list.filter(|((shape, _), _)| shape.count > 0).collect();
    let all: u64 = list.iter().map(|(_, weight)| weight).sum();
    let share = |((shape, reach), weight): ((Shape, u16), u64)| Typical {
        shape,
        reach: reach.into(),
        weight: weight as f64 / all as f64,
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

    impl Workload {
        /// Returns what is typical on so many classes of different devices, where reaches are these.
        pub(crate) fn of(notes: &Notes, reaches: Vec<Allowed>, classes: usize) -> Self {
            let mut workload = Self {
                reaches,
                wares: (0..classes).collect(),
                ..Self::default()
            };
            workload.take(notes);
            workload
        }
    }

    fn free(devices: &[u64]) -> Vec<Free> {
        let free = |&devices: &u64| Free {
            nodes: 1,
            milli: devices * 1000,
        };
        devices.iter().map(free).collect()
    }

    fn asked(any: u32, picky: u32) -> Notes {
        let shape = Shape {
            count: 1,
            milli: 1000,
            ..Shape::default()
        };
        let constraint = "node.labels.zone==z1".parse().expect("a constraint");
        let mut notes = Notes::default();
        for _ in 0..any {
            notes.note(shape, &[]);
        }
        for _ in 0..picky {
            notes.note(shape, std::slice::from_ref(&constraint));
        }
        notes
    }

    fn only(classes: impl IntoIterator<Item = u32>) -> Allowed {
        Allowed::Some(classes.into_iter().collect::<Classes>())
    }

    #[test]
    fn class_that_some_tasks_need_is_more_contended_than_one_that_all_can_do_without() {
        let notes = asked(90, 10);
        let workload = Workload::of(&notes, vec![Allowed::All, only([1])], 2);
        let wanted = workload.contention(Some(&notes), &free(&[900, 100]));
        assert!(wanted[1] > wanted[0].map(|wanted| wanted * 1.5));
        let notes = asked(100, 0);
        let workload = Workload::of(&notes, vec![Allowed::All], 2);
        let wanted = workload.contention(Some(&notes), &free(&[500, 500]));
        assert_eq!(wanted[0], wanted[1]);
    }

    #[test]
    fn contention_is_the_same_however_many_classes_rules_make_of_the_same_nodes() {
        let notes = asked(90, 10);
        let coarse = Workload::of(&notes, vec![Allowed::All, only([1])], 2);
        let coarse = coarse.contention(Some(&notes), &free(&[900, 100]));
        let fine = Workload {
            wares: vec![0, 1, 0, 1, 1],
            ..Workload::of(&notes, vec![Allowed::All, only([1, 3, 4])], 0)
        };
        let mut parts = free(&[300, 99, 600, 1, 0]);
        parts[4].nodes = 0;
        let fine = fine.contention(Some(&notes), &parts);
        assert_eq!(fine[..4], [coarse[0], coarse[1], coarse[0], coarse[1]]);
        assert_eq!(fine[4], None, "no open node");
    }

    #[test]
    fn device_of_a_scarce_model_costs_more_before_anything_is_known() {
        let workload = Workload::of(&Notes::default(), vec![Allowed::All], 2);
        let wanted = workload.contention(None, &free(&[1000, 10]));
        assert!(wanted[1] > wanted[0]);
    }
}
