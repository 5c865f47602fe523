//! What the scheduler is told of the tasks that are asked for.

use ballast_model::{Constraint, Resources};

use super::Scheduler;
use crate::policy::Learnt;

impl Scheduler {
    /// Notes that a task was asked for, for the policies that pack by what is typical: once for
    /// each task, however often it is tried to be placed. [`Self::place`] learns nothing by itself.
    pub fn note(&mut self, wanted: &Resources, constraints: &[Constraint]) {
        if wanted.devices.count > 0 {
            self.tell_apart(constraints);
            self.packer.note(wanted, constraints);
        }
    }

    /// Knows from now on what was learnt elsewhere, and forgets what it noted itself: schedulers of
    /// the same nodes, claims and knowledge place alike, whatever they did before.
    pub fn teach(&mut self, learnt: &Learnt) {
        if self.packer.learnt() != learnt {
            self.packer.teach(learnt);
            self.tell_apart(learnt.constraints());
        }
    }

    /// Returns what was noted.
    pub fn learnt(&self) -> &Learnt {
        self.packer.learnt()
    }

    fn tell_apart<'a>(&mut self, constraints: impl IntoIterator<Item = &'a Constraint>) {
        for constraint in constraints {
            self.fleet.learn(&constraint.key);
        }
    }
}
