//! Every limit that more than one crate must agree on, with its unit and its reason.

use crate::Millis;

/// Characters of a service, stack, node or port name: one DNS label, because names become labels
/// of metrics, host names and file names.
pub const NAME_CHARS: usize = 63;
/// Replicas of one service. Past it the full assignment sets no longer fit one frame per node.
pub const REPLICAS_PER_SERVICE: u32 = 100_000;
/// Services in a cluster.
pub const SERVICES: usize = 10_000;
/// Nodes in a cluster: each has a link to the leader. The scheduler alone takes more.
pub const NODES: usize = 10_000;
/// Ports of one service: each costs a listener on every ingress.
pub const PORTS_PER_SERVICE: usize = 32;
/// Routes of one service.
pub const ROUTES_PER_SERVICE: usize = 128;
/// Bytes of one path, value or other text of a route.
pub const ROUTE_TEXT_BYTES: usize = 4096;
/// Conditions, header changes, shares and the like of one route, each: they are looked at one by
/// one for each request.
pub const ROUTE_RULES: usize = 64;
/// Sum of the weights of one split.
pub const SPLIT_WEIGHTS: u32 = 1_000_000;
/// Networks in the lists of one route, for the same reason.
pub const ROUTE_NETWORKS: usize = 1024;
/// Users with a password of one route.
pub const ROUTE_USERS: usize = 1024;
/// Bytes of one fixed answer's body: every ingress keeps it.
pub const ROUTE_ANSWER_BYTES: usize = 64 * 1024;
/// The longest span of a rate limit.
pub const LONGEST_RATE_SPAN: Millis = Millis::from_secs(24 * 3600);
/// Arguments of one command line, the program included.
pub const COMMAND_ARGS: usize = 1024;
/// Bytes of one command line or of one environment: the kernel's limit is 2 MiB for both together.
pub const COMMAND_BYTES: usize = 128 * 1024;
/// Variables in one environment.
pub const ENV_VARS: usize = 1024;
/// Placement constraints of one service.
pub const CONSTRAINTS: usize = 64;
/// Bytes of one constraint: a key and a few values of a label's length.
pub const CONSTRAINT_BYTES: usize = 4096;
/// Labels on one node or service.
pub const LABELS: usize = 128;
/// Bytes of one label's key or value.
pub const LABEL_BYTES: usize = 1024;
/// Bytes of a reason that travels with a task's state; longer ones are cut.
pub const MESSAGE_BYTES: usize = 512;
/// Tasks one node may run at once unless its agent says otherwise.
pub const DEFAULT_TASK_SLOTS: u32 = 4096;
/// CPU of one task: 1,024 cores.
pub const CPU_PER_TASK: crate::MilliCpu = crate::MilliCpu::from_cores(1024);
/// Memory of one task: 64 TiB.
pub const MEMORY_PER_TASK: crate::Bytes = crate::Bytes::from_mib(64 << 20);
/// Disk of one task: 4 PiB.
pub const DISK_PER_TASK: crate::Bytes = crate::Bytes::from_mib(4 << 30);
/// Devices of one node: a machine with 16 accelerators is the largest that is sold.
pub const DEVICES_PER_NODE: usize = 16;
/// Kinds of named resources of one node or task.
pub const CUSTOM_RESOURCES: usize = 16;
/// Sockets of one node.
pub const SOCKETS_PER_NODE: usize = 8;
/// Affinities, service affinities, spread rules or tolerations of one service, each.
pub const PLACEMENT_RULES: usize = 64;
/// Taints of one node.
pub const TAINTS: usize = 64;
/// The longest span a spec may hold (interval, delay, grace): a week.
pub const LONGEST_SPAN: Millis = Millis::from_secs(7 * 24 * 3600);
/// Ended tasks kept per slot, so that `service ps` shows what failed before.
pub const TASK_HISTORY_PER_SLOT: usize = 5;
/// Events kept by a manager; the oldest go first.
pub const EVENTS: usize = 10_000;

/// How often an agent tells each ingress and the leader that it lives.
pub const HEARTBEAT_INTERVAL: Millis = Millis(100);
/// Silence after which an ingress takes a node's endpoints out of its table. Five heartbeats: a
/// starved CPU may lose some.
pub const INGRESS_LEASE: Millis = Millis(500);
/// Silence after which the leader calls a node suspect, and places nothing there.
pub const NODE_SUSPECT_AFTER: Millis = Millis(500);
/// Silence after which the leader calls a node down and replaces its tasks. Rescheduling cannot
/// be taken back, so it waits longer than the ingress does.
pub const NODE_DOWN_AFTER: Millis = Millis(1000);

/// Heartbeats that a leader takes in a second from all agents together: each costs it some
/// microseconds. With more nodes each beats less often, and its silence counts later.
pub const HEARTBEATS_PER_SECOND: u64 = 20_000;

/// Returns how often an agent tells the leader that it lives if there are so many:
/// [`HEARTBEAT_INTERVAL`] up to 2,000 nodes, then as [`HEARTBEATS_PER_SECOND`] allows, in steps of
/// half of that, so that it seldom changes. Ingresses are told at [`HEARTBEAT_INTERVAL`] always.
pub const fn heartbeat_interval(nodes: usize) -> Millis {
    let step = HEARTBEAT_INTERVAL.0 / 2;
    let needed = (nodes as u64 * 1000).div_ceil(HEARTBEATS_PER_SECOND);
    let steps = needed.div_ceil(step);
    if steps <= 2 {
        HEARTBEAT_INTERVAL
    } else {
        Millis(steps * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_fleets_beat_less_often() {
        for (nodes, interval) in [
            (0, 100),
            (2000, 100),
            (2001, 150),
            (5000, 250),
            (10_000, 500),
        ] {
            assert_eq!(heartbeat_interval(nodes), Millis(interval), "{nodes}");
        }
    }
}
