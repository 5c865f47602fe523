//! Which nodes changed since somebody looked last.

use crate::index::At;

/// Nodes that changed, once somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    is_watched: bool,
    /// So many that it is easier to look at all.
    all: bool,
    nodes: Vec<At>,
}

impl Changes {
    /// Notes a node that changed; `of` is how many there are, and the bound of what is noted.
    pub(crate) fn note(&mut self, at: At, of: usize) {
        if !self.is_watched || self.all {
            return;
        }
        if self.nodes.len() >= of {
            self.note_all();
        } else {
            self.nodes.push(at);
        }
    }

    /// Notes that any node may have changed or gone.
    pub(crate) fn note_all(&mut self) {
        self.all = true;
        self.nodes.clear();
    }

    /// Returns the nodes that changed since the last time, none if it may be all of them.
    pub(crate) fn take(&mut self) -> Option<Vec<At>> {
        let all = std::mem::take(&mut self.all) || !self.is_watched;
        self.is_watched = true;
        let nodes = std::mem::take(&mut self.nodes);
        (!all).then_some(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_watches_is_not_noted_and_what_is_noted_has_a_bound() {
        let mut changes = Changes::default();
        changes.note(1, 2);
        assert!(changes.nodes.is_empty());
        assert_eq!(changes.take(), None);
        changes.note(1, 2);
        changes.note(7, 2);
        assert_eq!(changes.take(), Some(vec![1, 7]));
        assert_eq!(changes.take(), Some(vec![]));
        for _ in 0..3 {
            changes.note(1, 2);
        }
        assert_eq!(changes.take(), None);
    }
}
