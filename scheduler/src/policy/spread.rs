//! Spreading: the node with the fewest tasks.

use super::{Choice, Search};
use crate::index::Rank;

impl Search<'_> {
    /// Returns the node with the fewest tasks, then the least id.
    pub(super) fn idlest(&self, classes: &[usize]) -> Option<Choice> {
        self.first_by_tasks(classes, |_| true)
    }

    /// Returns the node with the fewest tasks of the service. Among nodes that have none the one
    /// with the fewest tasks at all, among the others the least id.
    pub(super) fn sparsest(&self, classes: &[usize]) -> Option<Choice> {
        let service = self.request.service;
        let without = |rank: Rank| self.index.entry(rank.at).tasks_of(service) == 0;
        self.first_by_tasks(classes, without).or_else(|| {
            let nodes = &self.index.service(service)?.by_count;
            nodes.iter().find_map(|&(_, _, at)| {
                let entry = self.index.entry(at);
                if entry.filed.is_none() || !classes.contains(&entry.class) {
                    return None;
                }
                self.judge(at).map(|offer| Choice { at, offer })
            })
        })
    }

    fn first_by_tasks(&self, classes: &[usize], want: impl Fn(Rank) -> bool) -> Option<Choice> {
        let mut best: Option<(Rank, Choice)> = None;
        for &class in classes {
            let nodes = self.index.classes()[class].by_tasks.iter();
            let bound = best.as_ref().map(|(rank, _)| *rank);
            let found = nodes
                .copied()
                .take_while(|rank| bound.is_none_or(|bound| *rank < bound))
                .filter(|rank| want(*rank))
                .find_map(|rank| self.judge(rank.at).map(|offer| (rank, offer)));
            if let Some((rank, offer)) = found {
                best = Some((rank, Choice { at: rank.at, offer }));
            }
        }
        best.map(|(_, choice)| choice)
    }
}
