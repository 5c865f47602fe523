//! Node leases: how long each agent has been silent, by the leader's monotonic clock.
//!
//! A lease is judged only against time in which this process was itself running: if the timer that
//! judges fires late, the machine was starved, heartbeats may be waiting unread, and every lease is
//! extended by as much. After gaining leadership every node has [`RECONNECT_GRACE`] to reconnect
//! before its silence counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ballast_model::{Millis, NodeId, NodeStatus, limits};

/// How often leases are judged.
pub const TICK: Duration = Duration::from_millis(50);

/// How long agents may take to find a new leader, or the same after a restart: their waits between
/// tries grow to seconds. Tasks run on meanwhile, and replacing all of them because their agents
/// were slow to call could not be taken back; so it is longer than
/// [`limits::NODE_DOWN_AFTER`].
pub const RECONNECT_GRACE: Duration = Duration::from_secs(5);

/// Lateness of the timer that is not worth extending leases for.
const TOLERANCE: Duration = Duration::from_millis(10);

/// When each node was last heard.
#[derive(Debug)]
pub struct Leases {
    heard: BTreeMap<NodeId, Instant>,
    /// Nodes that were never heard count as heard then.
    since: Instant,
    /// How often each node is to be heard.
    pace: Millis,
    /// Nodes that have not been told of a faster pace yet keep the slower one until then.
    slower: Option<(Millis, Instant)>,
}

/// Returns a limit that holds for [`limits::HEARTBEAT_INTERVAL`], for another pace.
fn after(limit: Millis, pace: Millis) -> Duration {
    limit
        .to_duration()
        .mul_f64(pace.0 as f64 / limits::HEARTBEAT_INTERVAL.0 as f64)
}

impl Leases {
    /// Starts with nobody heard and everybody given the grace to reconnect.
    pub fn new(now: Instant) -> Self {
        Self {
            heard: BTreeMap::new(),
            since: now + RECONNECT_GRACE,
            pace: limits::HEARTBEAT_INTERVAL,
            slower: None,
        }
    }

    /// Returns how often each node is to be heard.
    pub fn pace(&self) -> Millis {
        self.pace
    }

    /// Takes over how often each of so many nodes is to be heard; returns whether that is new, and
    /// agents are to be told.
    pub fn set_nodes(&mut self, nodes: usize, now: Instant) -> bool {
        let pace = limits::heartbeat_interval(nodes);
        if pace == self.pace {
            return false;
        }
        let told_by = now + after(limits::NODE_DOWN_AFTER, self.pace);
        self.slower = (pace < self.pace).then_some((self.pace, told_by));
        self.pace = pace;
        true
    }

    /// Notes a message from a node.
    pub fn heard(&mut self, node: NodeId, now: Instant) {
        self.heard.insert(node, now);
    }

    /// Forgets a node that was removed.
    pub fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.heard.retain(|&node, _| is_known(node));
    }

    /// Takes note of a tick that was due at one moment and comes at another; returns how late it is.
    pub fn tick(&mut self, due: Instant, now: Instant) -> Duration {
        let late = now.saturating_duration_since(due);
        if late > TOLERANCE {
            self.since += late;
            for heard in self.heard.values_mut() {
                *heard = (*heard + late).min(now);
            }
        }
        late
    }

    /// Returns what a node's silence makes of it.
    pub fn judge(&self, node: NodeId, current: NodeStatus, now: Instant) -> NodeStatus {
        use ballast_model::NodeEvent::{Gone, Heard, Silent};
        let pace = match self.slower {
            Some((slower, until)) if now < until => slower,
            _ => self.pace,
        };
        let heard = self.heard.get(&node);
        let silence = now.saturating_duration_since(*heard.unwrap_or(&self.since));
        if silence >= after(limits::NODE_DOWN_AFTER, pace) {
            current.step(Gone)
        } else if silence >= after(limits::NODE_SUSPECT_AFTER, pace) {
            current.step(Silent)
        } else if heard.is_some() {
            current.step(Heard)
        } else {
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bits(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn silent_node_is_suspect_then_down_and_comes_back_when_heard() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.heard(NODE, start);
        leases.tick(start + 50 * MS, start + 55 * MS);
        let at = |ms| leases.judge(NODE, NodeStatus::Ready, start + ms * MS);
        assert_eq!(at(400), NodeStatus::Ready);
        assert_eq!(at(600), NodeStatus::Suspect);
        assert_eq!(at(1100), NodeStatus::Down);
        leases.heard(NODE, start + 1200 * MS);
        let now = start + 1210 * MS;
        assert_eq!(leases.judge(NODE, NodeStatus::Down, now), NodeStatus::Ready);
    }

    #[test]
    fn new_leader_gives_every_node_time_to_reconnect() {
        let start = Instant::now();
        let leases = Leases::new(start);
        let at = |ms| leases.judge(NODE, NodeStatus::Ready, start + ms * MS);
        assert_eq!(at(5400), NodeStatus::Ready);
        assert_eq!(at(5600), NodeStatus::Suspect);
        assert_eq!(at(6100), NodeStatus::Down);
        let down = leases.judge(NODE, NodeStatus::Down, start + 100 * MS);
        assert_eq!(down, NodeStatus::Down, "grace revives nobody");
    }

    #[test]
    fn node_of_a_large_fleet_may_be_silent_for_longer() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.heard(NODE, start);
        assert!(!leases.set_nodes(2000, start) && leases.set_nodes(5000, start));
        assert_eq!(leases.pace(), Millis(250));
        let at = |leases: &Leases, ms| leases.judge(NODE, NodeStatus::Ready, start + ms * MS);
        assert_eq!(at(&leases, 1200), NodeStatus::Ready);
        assert_eq!(at(&leases, 1300), NodeStatus::Suspect);
        assert_eq!(at(&leases, 2600), NodeStatus::Down);
        // Agents have to be told before their silence counts as that of a smaller fleet.
        assert!(leases.set_nodes(10, start + 100 * MS));
        assert_eq!(at(&leases, 1200), NodeStatus::Ready);
        assert_eq!(at(&leases, 2700), NodeStatus::Down);
        leases.heard(NODE, start + 3000 * MS);
        assert_eq!(at(&leases, 3600), NodeStatus::Suspect);
    }

    #[test]
    fn starved_leader_blames_no_node() {
        let start = Instant::now();
        let mut leases = Leases::new(start);
        leases.heard(NODE, start);
        let late = start + 5000 * MS;
        assert!(leases.tick(start + 50 * MS, late) > 4900 * MS);
        let at_once = leases.judge(NODE, NodeStatus::Ready, late);
        assert_eq!(at_once, NodeStatus::Ready);
        let still_silent = leases.judge(NODE, NodeStatus::Ready, late + 1100 * MS);
        assert_eq!(still_silent, NodeStatus::Down, "silence after it counts");
    }
}
