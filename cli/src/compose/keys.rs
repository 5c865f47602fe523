//! Every key of a Compose file that Ballast knows, and what becomes of it.
//!
//! Honoured: it does here what it does in Compose, or what `docs/compose.md` says.
//! Skipped, with a warning: without it the services do the same work.
//! Refused: without it they would see other files, other networks or other rights than the file
//! says, or not the program at all.

use Verdict::{Honoured, Refused, Skipped};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Honoured,
    Skipped(&'static str),
    Refused(&'static str),
}

/// The keys of one kind of map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys(&'static [(&'static str, Verdict)]);

impl Keys {
    pub(super) fn verdict(self, key: &str) -> Option<Verdict> {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map(|(_, verdict)| *verdict)
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Returns the honoured ones, for messages.
    pub(super) fn list(self) -> String {
        let honoured = self.0.iter().filter(|(_, verdict)| *verdict == Honoured);
        let names: Vec<&str> = honoured.map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

const FILES: &str = "a process sees the node's own files; keep data in a folder of the node and name it in the command";
const NETWORK: &str = "a process uses the node's network; services reach each other through published ports and routes";
const RIGHTS: &str =
    "a process has the rights of its `user`; what the file asks for would not hold";
const NAMESPACES: &str = "a process shares the node's namespaces";
const CGROUP: &str = "only `deploy.resources` sets limits";

/// Of the whole file.
pub(super) const TOP: Keys = Keys(&[
    ("services", Honoured),
    ("version", Skipped("it is obsolete in Compose, too")),
    (
        "name",
        Skipped("the stack's name is given with the command"),
    ),
    (
        "networks",
        Skipped("it only declares; a service that uses one is refused"),
    ),
    (
        "volumes",
        Skipped("it only declares; a service that uses one is refused"),
    ),
    (
        "configs",
        Skipped("it only declares; a service that uses one is refused"),
    ),
    (
        "secrets",
        Skipped("it only declares; a service that uses one is refused"),
    ),
    ("include", Refused("write the services into one file")),
    ("models", Refused("there are no models here")),
]);

/// Of a service.
pub(super) const SERVICE: Keys = Keys(&[
    ("command", Honoured),
    ("entrypoint", Honoured),
    ("image", Honoured),
    ("build", Honoured),
    ("environment", Honoured),
    ("env_file", Honoured),
    ("ports", Honoured),
    ("healthcheck", Honoured),
    ("working_dir", Honoured),
    ("user", Honoured),
    ("ulimits", Honoured),
    ("stop_grace_period", Honoured),
    ("stop_signal", Honoured),
    ("labels", Honoured),
    ("deploy", Honoured),
    ("restart", Honoured),
    ("scale", Honoured),
    ("cpus", Honoured),
    ("mem_limit", Honoured),
    ("x-ballast", Honoured),
    // What only matters to Docker or to people.
    ("container_name", Skipped("tasks are named SERVICE.SLOT")),
    ("hostname", Skipped("a task has its node's host name")),
    ("domainname", Skipped("a task has its node's domain name")),
    (
        "depends_on",
        Skipped("services start together; one takes traffic when its health check passes"),
    ),
    (
        "expose",
        Skipped("a task's ports are reachable on its node as they are"),
    ),
    (
        "logging",
        Skipped("agents keep and rotate what tasks print; see `ballast service logs`"),
    ),
    ("annotations", Skipped("use labels")),
    (
        "attach",
        Skipped("`ballast service logs --follow` shows what tasks print"),
    ),
    ("develop", Skipped("nothing watches files here")),
    ("init", Skipped("the agent reaps what a task leaves behind")),
    (
        "platform",
        Skipped("there is no image to choose; use deploy.placement.constraints"),
    ),
    ("pull_policy", Skipped("there is no image to pull")),
    ("stdin_open", Skipped("a service has no terminal")),
    ("tty", Skipped("a service has no terminal")),
    ("mem_reservation", Skipped("what is limited is reserved")),
    // What would change what the services see or may do.
    ("volumes", Refused(FILES)),
    ("volumes_from", Refused(FILES)),
    ("tmpfs", Refused(FILES)),
    ("configs", Refused(FILES)),
    ("secrets", Refused(FILES)),
    ("read_only", Refused(FILES)),
    ("storage_opt", Refused(FILES)),
    ("shm_size", Refused(FILES)),
    ("label_file", Refused("write the labels into the file")),
    ("networks", Refused(NETWORK)),
    ("network_mode", Refused(NETWORK)),
    ("links", Refused(NETWORK)),
    ("external_links", Refused(NETWORK)),
    ("extra_hosts", Refused(NETWORK)),
    ("dns", Refused(NETWORK)),
    ("dns_opt", Refused(NETWORK)),
    ("dns_search", Refused(NETWORK)),
    ("mac_address", Refused(NETWORK)),
    ("cap_add", Refused(RIGHTS)),
    ("cap_drop", Refused(RIGHTS)),
    ("privileged", Refused(RIGHTS)),
    ("security_opt", Refused(RIGHTS)),
    ("group_add", Refused(RIGHTS)),
    ("credential_spec", Refused(RIGHTS)),
    ("devices", Refused(RIGHTS)),
    ("device_cgroup_rules", Refused(RIGHTS)),
    ("gpus", Refused(RIGHTS)),
    ("use_api_socket", Refused(RIGHTS)),
    ("sysctls", Refused(NAMESPACES)),
    ("ipc", Refused(NAMESPACES)),
    ("pid", Refused(NAMESPACES)),
    ("uts", Refused(NAMESPACES)),
    ("userns_mode", Refused(NAMESPACES)),
    ("isolation", Refused(NAMESPACES)),
    ("runtime", Refused("there is no container runtime")),
    ("cgroup", Refused(CGROUP)),
    ("cgroup_parent", Refused(CGROUP)),
    ("blkio_config", Refused(CGROUP)),
    ("cpu_count", Refused(CGROUP)),
    ("cpu_percent", Refused(CGROUP)),
    ("cpu_shares", Refused(CGROUP)),
    ("cpu_period", Refused(CGROUP)),
    ("cpu_quota", Refused(CGROUP)),
    ("cpu_rt_period", Refused(CGROUP)),
    ("cpu_rt_runtime", Refused(CGROUP)),
    ("cpuset", Refused(CGROUP)),
    ("mem_swappiness", Refused(CGROUP)),
    ("memswap_limit", Refused(CGROUP)),
    ("oom_kill_disable", Refused(CGROUP)),
    ("oom_score_adj", Refused(CGROUP)),
    ("pids_limit", Refused(CGROUP)),
    (
        "extends",
        Refused("write the service out, or use YAML anchors"),
    ),
    (
        "profiles",
        Refused("every service of the file is deployed; keep optional ones in another file"),
    ),
    ("post_start", Refused("nothing is run besides the command")),
    ("pre_stop", Refused("nothing is run besides the command")),
    ("provider", Refused("only programs are run")),
    ("models", Refused("there are no models here")),
]);

/// Of `deploy`.
pub(super) const DEPLOY: Keys = Keys(&[
    ("mode", Honoured),
    ("replicas", Honoured),
    ("resources", Honoured),
    ("restart_policy", Honoured),
    ("placement", Honoured),
    ("update_config", Honoured),
    ("labels", Honoured),
    ("endpoint_mode", Honoured),
    (
        "rollback_config",
        Skipped("a rollback follows update_config"),
    ),
]);

/// Of `deploy.resources`.
pub(super) const RESOURCES: Keys = Keys(&[("limits", Honoured), ("reservations", Honoured)]);

/// Of `deploy.resources.limits` and `.reservations`.
pub(super) const LIMITS: Keys = Keys(&[
    ("cpus", Honoured),
    ("memory", Honoured),
    ("pids", Refused("use ulimits.nproc")),
    ("devices", Honoured),
    ("generic_resources", Honoured),
]);

/// Of one of `deploy.resources.reservations.devices`.
pub(super) const DEVICE: Keys = Keys(&[
    ("capabilities", Honoured),
    ("count", Honoured),
    (
        "driver",
        Skipped("nodes name their devices by kind and model"),
    ),
    (
        "device_ids",
        Refused("devices are chosen when a task is placed"),
    ),
    ("options", Skipped("nothing reads them")),
]);

/// Of one of `deploy.resources.reservations.generic_resources`.
pub(super) const GENERIC: Keys = Keys(&[("discrete_resource_spec", Honoured)]);

/// Of `discrete_resource_spec`.
pub(super) const DISCRETE: Keys = Keys(&[("kind", Honoured), ("value", Honoured)]);

/// Of `deploy.restart_policy`.
pub(super) const RESTART: Keys = Keys(&[
    ("condition", Honoured),
    ("delay", Honoured),
    ("max_attempts", Honoured),
    ("window", Honoured),
]);

/// Of `deploy.placement`.
pub(super) const PLACEMENT: Keys = Keys(&[
    ("constraints", Honoured),
    ("preferences", Honoured),
    ("max_replicas_per_node", Honoured),
]);

/// Of one of `deploy.placement.preferences`.
pub(super) const PREFERENCE: Keys = Keys(&[("spread", Honoured)]);

/// Of `deploy.update_config`.
pub(super) const UPDATE: Keys = Keys(&[
    ("parallelism", Honoured),
    ("delay", Honoured),
    ("order", Honoured),
    ("failure_action", Honoured),
    (
        "monitor",
        Skipped("a new task is watched until it is healthy"),
    ),
    (
        "max_failure_ratio",
        Skipped("the first task that fails counts"),
    ),
]);

/// Of `healthcheck`.
pub(super) const HEALTHCHECK: Keys = Keys(&[
    ("test", Honoured),
    ("interval", Honoured),
    ("timeout", Honoured),
    ("retries", Honoured),
    ("start_period", Honoured),
    ("disable", Honoured),
    (
        "start_interval",
        Skipped("a starting task is probed every few milliseconds"),
    ),
]);

/// Of one of `ports`, in the long syntax.
pub(super) const PORT: Keys = Keys(&[
    ("target", Honoured),
    ("published", Honoured),
    ("protocol", Honoured),
    ("app_protocol", Honoured),
    ("name", Honoured),
    ("mode", Honoured),
    (
        "host_ip",
        Refused("the ingress's --bind says on which address ports are published"),
    ),
]);

/// Of one of `ulimits`, in the long syntax.
pub(super) const ULIMIT: Keys = Keys(&[("soft", Honoured), ("hard", Honoured)]);

/// Of one of `env_file`, in the long syntax.
pub(super) const ENV_FILE: Keys = Keys(&[
    ("path", Honoured),
    ("required", Honoured),
    ("format", Refused("only the usual format is read")),
]);

/// Of `x-ballast`.
pub(super) const EXTENSION: Keys = Keys(&[
    ("ports", Honoured),
    ("balance", Honoured),
    ("routes", Honoured),
    ("health", Honoured),
    ("drain", Honoured),
    ("spread", Honoured),
    ("placement", Honoured),
    ("resources", Honoured),
    ("restart_max_delay", Honoured),
]);

/// Of `x-ballast.placement`.
pub(super) const EXTENSION_PLACEMENT: Keys = Keys(&[
    ("affinities", Honoured),
    ("near", Honoured),
    ("apart", Honoured),
    ("spread", Honoured),
    ("tolerations", Honoured),
    ("policy", Honoured),
    ("sockets", Honoured),
    ("priority", Honoured),
    ("preempts", Honoured),
    ("max_disrupted", Honoured),
    ("gang", Honoured),
    ("rebalance", Honoured),
]);

/// Of `x-ballast.resources`.
pub(super) const EXTENSION_RESOURCES: Keys = Keys(&[
    ("disk", Honoured),
    ("device", Honoured),
    ("custom", Honoured),
]);

/// Of one of `x-ballast.ports`.
pub(super) const EXTENSION_PORT: Keys = Keys(&[
    ("name", Honoured),
    ("target", Honoured),
    ("published", Honoured),
    ("protocol", Honoured),
    ("balance", Honoured),
]);

/// Of one of `x-ballast.routes`.
pub(super) const EXTENSION_ROUTE: Keys =
    Keys(&[("host", Honoured), ("path", Honoured), ("port", Honoured)]);

/// Of `x-ballast.health`.
pub(super) const EXTENSION_HEALTH: Keys = Keys(&[
    ("http", Honoured),
    ("tcp", Honoured),
    ("command", Honoured),
    ("port", Honoured),
    ("status", Honoured),
    ("interval", Honoured),
    ("timeout", Honoured),
    ("retries", Honoured),
    ("successes", Honoured),
    ("start_period", Honoured),
]);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_key_is_listed_twice() {
        for keys in [
            TOP,
            SERVICE,
            DEPLOY,
            LIMITS,
            UPDATE,
            HEALTHCHECK,
            PORT,
            EXTENSION,
        ] {
            let names: BTreeSet<&str> = keys.names().collect();
            assert_eq!(names.len(), keys.0.len(), "{}", keys.list());
        }
    }
}
