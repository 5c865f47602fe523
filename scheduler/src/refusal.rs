//! Why no node takes a task: counted by reason, with the node that came nearest.

use std::fmt;

use ballast_model::{Bytes, MilliCpu, Shortage, TopologyKey};
use serde::{Deserialize, Serialize};

/// Why a request was refused, or what [`crate::Scheduler::explain`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Nodes that were judged: all, or the one that was asked for.
    pub nodes: u32,
    /// Those that fit; 0 in a refusal.
    pub fit: u32,
    /// The others, each counted under the first rule that excludes it; the most frequent first.
    pub excluded: Vec<Excluded>,
    /// The node that came nearest.
    pub nearest: Option<NearestMiss>,
}

/// How many nodes one rule excludes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// The rule.
    pub reason: Reason,
    /// How many.
    pub nodes: u32,
}

/// A rule that excludes a node. Rules are judged in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The node that was asked for is not known.
    Unknown,
    /// Its agent has been silent for long.
    Down,
    /// Its agent is silent.
    Suspect,
    /// Its operator drains it.
    Drained,
    /// Its operator paused it.
    Paused,
    /// It has a taint that the task does not bear: the taint.
    Taint(String),
    /// A constraint does not hold on it: the constraint.
    Constraint(String),
    /// The task has to be near to a service that does not exist: its name.
    NoService(String),
    /// It lacks the label by which a rule tells places apart: the label.
    NoLabel(String),
    /// No task of a service that the task has to be near to is there.
    Near {
        /// The service's name; empty for its own.
        service: String,
        /// What counts as near.
        over: TopologyKey,
    },
    /// A task is there of a service that the task has to keep away from.
    Apart {
        /// The service's name; empty for its own.
        service: String,
        /// What counts as near.
        over: TopologyKey,
    },
    /// A task is there of a service that has to keep away from this one.
    Repelled {
        /// That service's name.
        service: String,
        /// What counts as near.
        over: TopologyKey,
    },
    /// Its place has as many tasks of this service more than another as the spread allows.
    Skew {
        /// What is spread over.
        over: TopologyKey,
        /// How many more are allowed.
        most: u32,
    },
    /// It is kept for a task of higher priority, which waits for others to end there.
    Kept,
    /// It has as many tasks of this service as it may: how many.
    MaxReplicas(u32),
    /// Lacks CPU: the least that a node of this count lacks.
    Cpu(MilliCpu),
    /// Lacks memory: the least that a node of this count lacks.
    Memory(Bytes),
    /// Runs as many tasks as it may.
    Slots,
    /// This fixed port is taken.
    Port(u16),
    /// Its range has not enough free ports.
    DynamicPorts,
    /// Lacks disk: the least that a node of this count lacks.
    Disk(Bytes),
    /// Has not enough free devices of a kind: the least that a node of this count lacks.
    Devices {
        /// The kind.
        kind: String,
        /// How many.
        lack: u8,
    },
    /// Has not enough of a named resource: the least that a node of this count lacks.
    Custom {
        /// Its name.
        name: String,
        /// How much.
        lack: u32,
    },
    /// Has no socket with enough left.
    Socket,
}

/// A change that would make a request fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// What is to change.
    pub change: Change,
    /// How many nodes fit then.
    pub nodes: u32,
    /// The name of one of them.
    pub node: Option<String>,
}

/// What is to change so that a request fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Ask for less CPU.
    Cpu {
        /// What is asked for.
        from: MilliCpu,
        /// The most that fits.
        to: MilliCpu,
    },
    /// Ask for less memory.
    Memory {
        /// What is asked for.
        from: Bytes,
        /// The most that fits.
        to: Bytes,
    },
    /// Ask for fewer devices.
    Devices {
        /// Of which kind.
        kind: String,
        /// How many are asked for.
        from: u8,
        /// The most that fit.
        to: u8,
    },
    /// Take this constraint back.
    Constraint(String),
    /// Let the spread over this be a wish without a limit.
    Skew(String),
    /// Let nearness to or distance from this service be a wish; empty for its own.
    Affinity(String),
    /// Allow more replicas on a node.
    MaxReplicas {
        /// How many.
        to: u32,
    },
    /// Take any port instead of this fixed one.
    Port(u16),
    /// Bear this taint.
    Tolerate(String),
    /// Take this node back into use.
    Activate(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { from, to } => write!(f, "lower --cpu from {from} to {to}"),
            Self::Memory { from, to } => write!(f, "lower --memory from {from} to {to}"),
            Self::Devices { kind, from, to } => {
                write!(f, "ask for {to} instead of {from} of device {kind}")
            }
            Self::Constraint(text) => write!(f, "remove the constraint {text}"),
            Self::Skew(over) => write!(f, "let the spread over {over} be uneven"),
            Self::Affinity(service) => {
                write!(f, "let the affinity to {} be a wish", Named(service))
            }
            Self::MaxReplicas { to } => write!(f, "allow {to} replicas on a node"),
            Self::Port(port) => write!(f, "let port {port} be any port"),
            Self::Tolerate(taint) => write!(f, "tolerate the taint {taint}"),
            Self::Activate(node) => write!(f, "activate node {node}"),
        }
    }
}

impl fmt::Display for Suggestion {
    /// As people read it: `remove the constraint zone==b: 14 nodes fit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node, self.nodes) {
            (Some(node), 1) => write!(f, "{}: {node} fits", self.change),
            (None, 1) => write!(f, "{}: 1 node fits", self.change),
            (_, nodes) => write!(f, "{}: {nodes} nodes fit", self.change),
        }
    }
}

/// The node that came nearest to taking the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestMiss {
    /// Its name.
    pub node: String,
    /// All that it lacks.
    pub lacks: Vec<Reason>,
}

impl From<Shortage> for Reason {
    fn from(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Cpu(lack) => Self::Cpu(lack),
            Shortage::Memory(lack) => Self::Memory(lack),
            Shortage::Slots => Self::Slots,
            Shortage::Port(port) => Self::Port(port),
            Shortage::NoFreePort => Self::DynamicPorts,
            Shortage::Disk(lack) => Self::Disk(lack),
            Shortage::Devices { kind, lack } => Self::Devices { kind, lack },
            Shortage::Custom { name, lack } => Self::Custom { name, lack },
            Shortage::Socket => Self::Socket,
        }
    }
}

impl Reason {
    /// Returns whether two nodes with these reasons are counted together: amounts do not matter.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu(_), Self::Cpu(_))
            | (Self::Memory(_), Self::Memory(_))
            | (Self::Disk(_), Self::Disk(_)) => true,
            (Self::Devices { kind: one, .. }, Self::Devices { kind: two, .. })
            | (Self::Custom { name: one, .. }, Self::Custom { name: two, .. }) => one == two,
            _ => self == other,
        }
    }

    /// Writes what is true of one node, after its name: `lacks 128 MiB of memory`.
    fn write_one(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("is not known"),
            Self::Down => f.write_str("is down"),
            Self::Suspect => f.write_str("is suspect"),
            Self::Drained => f.write_str("is drained"),
            Self::Paused => f.write_str("is paused"),
            Self::Taint(taint) => write!(f, "has the taint {taint}"),
            Self::NoService(name) => write!(f, "lacks service {name}, which does not exist"),
            Self::NoLabel(label) => write!(f, "lacks the label {label}"),
            Self::Near { service, over } => {
                write!(f, "has no task of {} {}", Named(service), Around(over))
            }
            Self::Apart { service, over } => {
                write!(f, "has a task of {} {}", Named(service), Around(over))
            }
            Self::Repelled { service, over } => {
                let around = Around(over);
                write!(
                    f,
                    "has a task of {service} {around}, which keeps away from this service"
                )
            }
            Self::Skew { over, most } => {
                write!(
                    f,
                    "has {most} more of this service {} than another",
                    Around(over)
                )
            }
            Self::Kept => f.write_str("is kept for a task of higher priority"),
            Self::Constraint(text) => write!(f, "does not meet {text}"),
            Self::MaxReplicas(most) => write!(f, "has {most} of this service, the most allowed"),
            Self::Cpu(lack) => write!(f, "lacks {lack} CPU"),
            Self::Memory(lack) => write!(f, "lacks {lack} of memory"),
            Self::Slots => f.write_str("has no free task slot"),
            Self::Port(port) => write!(f, "has port {port} taken"),
            Self::DynamicPorts => f.write_str("has too few free ports"),
            Self::Disk(lack) => write!(f, "lacks {lack} of disk"),
            Self::Devices { kind, lack } => write!(f, "lacks {lack} free {kind}"),
            Self::Custom { name, lack } => write!(f, "lacks {lack} of {name}"),
            Self::Socket => f.write_str("has no socket with enough left"),
        }
    }

    /// Writes what is true of several nodes, after their number.
    fn write_many(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("are not known"),
            Self::Down => f.write_str("are down"),
            Self::Suspect => f.write_str("are suspect"),
            Self::Drained => f.write_str("are drained"),
            Self::Paused => f.write_str("are paused"),
            Self::Taint(taint) => write!(f, "have the taint {taint}"),
            Self::NoService(name) => write!(f, "lack service {name}, which does not exist"),
            Self::NoLabel(label) => write!(f, "lack the label {label}"),
            Self::Near { service, over } => {
                write!(f, "have no task of {} {}", Named(service), Around(over))
            }
            Self::Apart { service, over } => {
                write!(f, "have a task of {} {}", Named(service), Around(over))
            }
            Self::Repelled { service, over } => {
                let around = Around(over);
                write!(
                    f,
                    "have a task of {service} {around}, which keeps away from this service"
                )
            }
            Self::Skew { over, most } => {
                write!(
                    f,
                    "have {most} more of this service {} than another",
                    Around(over)
                )
            }
            Self::Kept => f.write_str("are kept for tasks of higher priority"),
            Self::Constraint(text) => write!(f, "do not meet {text}"),
            Self::MaxReplicas(most) => write!(f, "have {most} of this service, the most allowed"),
            Self::Cpu(lack) => write!(f, "lack {lack} CPU or more"),
            Self::Memory(lack) => write!(f, "lack {lack} of memory or more"),
            Self::Slots => f.write_str("have no free task slot"),
            Self::Port(port) => write!(f, "have port {port} taken"),
            Self::DynamicPorts => f.write_str("have too few free ports"),
            Self::Disk(lack) => write!(f, "lack {lack} of disk or more"),
            Self::Devices { kind, lack } => write!(f, "lack {lack} free {kind} or more"),
            Self::Custom { name, lack } => write!(f, "lack {lack} of {name} or more"),
            Self::Socket => f.write_str("have no socket with enough left"),
        }
    }
}

/// A service's name, or what stands for its own.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() || self.0 == "self" {
            "this service"
        } else {
            self.0
        })
    }
}

/// Where a task counts as near.
struct Around<'a>(&'a TopologyKey);

impl fmt::Display for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            TopologyKey::Node => f.write_str("on it"),
            TopologyKey::Label(label) => write!(f, "in its node.labels.{label}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_one(f)
    }
}

impl fmt::Display for Refusal {
    /// One line, as `service ps` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.nodes, self.fit) {
            (0, _) => return f.write_str("there is no node"),
            (1, 0) => f.write_str("the only node does not fit")?,
            (nodes, 0) => write!(f, "none of {nodes} nodes fits")?,
            (nodes, fit) => write!(f, "{fit} of {nodes} nodes fit")?,
        }
        for (place, Excluded { reason, nodes }) in self.excluded.iter().enumerate() {
            f.write_str(if place == 0 { ": " } else { "; " })?;
            write!(f, "{nodes} ")?;
            if *nodes == 1 {
                reason.write_one(f)?;
            } else {
                reason.write_many(f)?;
            }
        }
        // With one node and one reason it would say the same thing twice.
        match &self.nearest {
            Some(miss) if self.nodes > 1 || miss.lacks.len() > 1 => {
                write!(f, "; nearest: {}", miss.node)?;
                for (place, lack) in miss.lacks.iter().enumerate() {
                    f.write_str(if place == 0 { " " } else { " and " })?;
                    lack.write_one(f)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
