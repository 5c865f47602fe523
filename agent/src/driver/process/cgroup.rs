//! Limits for CPU and memory, and the exact list of what a task has started: cgroups, v1 and v2.
//!
//! Below the agent's own cgroup there is one named after the node and in it one for each
//! assignment, kept over its tries. In v1 (also where v2 is mounted beside it, "hybrid") the `cpu`
//! hierarchy is always used, as the list of processes, and `memory` where there is a limit.
//!
//! Joining: in v1 a task writes `0` to `tasks`, which moves the calling thread alone and so spares
//! it the kernel's lock over all processes, which `cgroup.procs` waits for (milliseconds). v2 has
//! only `cgroup.procs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ballast_model::{AssignmentId, NodeId, Resources};

/// The period over which CPU is rationed, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The least quota that the kernel takes, in microseconds.
const LEAST_QUOTA_US: u64 = 1000;

/// Where this node's cgroups are.
#[derive(Debug, Clone)]
pub enum Cgroups {
    /// One hierarchy each.
    V1 {
        /// In the `cpu` hierarchy.
        cpu: PathBuf,
        /// In the `memory` hierarchy, if it can be written.
        memory: Option<PathBuf>,
    },
    /// One for all.
    V2(PathBuf),
    /// None can be written; why.
    Unavailable(String),
}

impl Cgroups {
    /// Finds out what can be used here and makes this node's folder in it.
    pub fn detect(node: NodeId) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("ballast-{node}");
        if let Some(cpu) = v1_folder(&mounts, &own, "cpu") {
            let cpu = cpu.join(&name);
            if let Err(error) = make(&cpu) {
                return Self::Unavailable(describe(&cpu, &error));
            }
            let memory = v1_folder(&mounts, &own, "memory").map(|memory| memory.join(&name));
            let memory = memory.filter(|memory| make(memory).is_ok());
            return Self::V1 { cpu, memory };
        }
        let Some(parent) = v2_folder(&mounts, &own) else {
            return Self::Unavailable("no cgroup hierarchy is mounted".to_owned());
        };
        match prepare_v2(&parent, &name) {
            Ok(folder) => Self::V2(folder),
            Err(error) => Self::Unavailable(describe(&parent, &error)),
        }
    }

    /// Makes the cgroup of an assignment with its limits, and returns the files that its processes
    /// write a `0` to in order to join it.
    ///
    /// # Errors
    /// If a limit cannot be set: a task never runs with less of a limit than was asked for.
    pub fn prepare(
        &self,
        assignment: AssignmentId,
        limits: &Resources,
    ) -> io::Result<Vec<PathBuf>> {
        let name = assignment.to_string();
        let quota = (u64::from(limits.cpu.0) * (PERIOD_US / 1000)).max(LEAST_QUOTA_US);
        match self {
            Self::Unavailable(_) => Ok(Vec::new()),
            Self::V1 { cpu, memory } => {
                let cpu = cpu.join(&name);
                make(&cpu)?;
                if limits.cpu.0 > 0 {
                    fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
                    // A share of what is idle in one period may be used in the next. Older kernels
                    // do not have it.
                    let _ = fs::write(cpu.join("cpu.cfs_burst_us"), quota.to_string());
                }
                let mut files = vec![cpu.join("tasks")];
                if let Some(memory) = memory.as_ref().filter(|_| limits.memory.0 > 0) {
                    let memory = memory.join(&name);
                    make(&memory)?;
                    let limit = limits.memory.0.to_string();
                    fs::write(memory.join("memory.limit_in_bytes"), limit)?;
                    files.push(memory.join("tasks"));
                }
                Ok(files)
            }
            Self::V2(folder) => {
                let folder = folder.join(&name);
                make(&folder)?;
                if limits.cpu.0 > 0 {
                    fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
                    let _ = fs::write(folder.join("cpu.max.burst"), quota.to_string());
                }
                if limits.memory.0 > 0 {
                    fs::write(folder.join("memory.max"), limits.memory.0.to_string())?;
                    // A program of which one process is gone is broken: all of it goes.
                    let _ = fs::write(folder.join("memory.oom.group"), "1");
                }
                Ok(vec![folder.join("cgroup.procs")])
            }
        }
    }

    /// Returns whether the processes of an assignment can be listed.
    pub const fn can_list(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }

    /// Returns the processes that are in an assignment's cgroup.
    pub fn processes(&self, assignment: AssignmentId) -> Vec<u32> {
        let Some(folder) = self.tracking(assignment) else {
            return Vec::new();
        };
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Removes the cgroup of an assignment; it is empty.
    pub fn remove(&self, assignment: AssignmentId) {
        let name = assignment.to_string();
        let folders = match self {
            Self::Unavailable(_) => vec![],
            Self::V2(folder) => vec![folder.join(&name)],
            Self::V1 { cpu, memory } => {
                let memory = memory.as_ref().map(|memory| memory.join(&name));
                std::iter::once(cpu.join(&name)).chain(memory).collect()
            }
        };
        for folder in folders {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(folder = %folder.display(), %error, "cannot remove a cgroup");
                }
                _ => {}
            }
        }
    }

    /// Removes this node's own folders; those of assignments are gone.
    pub fn remove_node(&self) {
        // Whatever is still in there keeps them; the next life of the agent uses them again.
        match self {
            Self::Unavailable(_) => {}
            Self::V2(folder) => drop(fs::remove_dir(folder)),
            Self::V1 { cpu, memory } => {
                drop(fs::remove_dir(cpu));
                if let Some(memory) = memory {
                    drop(fs::remove_dir(memory));
                }
            }
        }
    }

    /// Returns a line for people on what limits work here.
    pub fn notice(&self) -> Option<String> {
        match self {
            Self::Unavailable(reason) => Some(format!(
                "cgroups cannot be written ({reason}): CPU and memory are reserved for tasks, but not limited"
            )),
            Self::V1 { memory: None, .. } => Some(
                "the memory cgroup cannot be written: memory is reserved for tasks, but not limited"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn tracking(&self, assignment: AssignmentId) -> Option<PathBuf> {
        match self {
            Self::Unavailable(_) => None,
            Self::V1 { cpu: folder, .. } | Self::V2(folder) => {
                Some(folder.join(assignment.to_string()))
            }
        }
    }
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Returns our own folder in the hierarchy of a v1 controller.
fn v1_folder(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let ours = fields.get(2) == Some(&"cgroup")
            && fields.get(3)?.split(',').any(|option| option == controller);
        ours.then(|| PathBuf::from(fields[1]))
    })?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let ours = fields.next()?.split(',').any(|name| name == controller);
        ours.then(|| fields.next())?
    })?;
    Some(below(&mount, path))
}

fn v2_folder(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(below(&mount, path))
}

/// Joins a path that may name a folder that is not visible here (in a container).
fn below(mount: &Path, path: &str) -> PathBuf {
    let folder = mount.join(path.trim_start_matches('/'));
    if folder.is_dir() {
        folder
    } else {
        mount.to_owned()
    }
}

/// Makes the node's folder with the controllers on. A cgroup with processes in it cannot hand
/// controllers down (the root aside), so the agent moves into a leaf of its own if it must.
fn prepare_v2(parent: &Path, name: &str) -> io::Result<PathBuf> {
    const CONTROLLERS: &str = "+cpu +memory";
    let control = |folder: &Path| fs::write(folder.join("cgroup.subtree_control"), CONTROLLERS);
    if let Err(error) = control(parent) {
        if error.kind() != io::ErrorKind::ResourceBusy {
            return Err(error);
        }
        let leaf = parent.join("ballast-agent");
        make(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0")?;
        control(parent)?;
    }
    let folder = parent.join(name);
    make(&folder)?;
    control(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_folders_are_found_in_both_versions() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /tmp/none/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup2 /tmp/none/unified cgroup2 rw 0 0\n";
        let own = "4:cpu,cpuacct:/a\n0::/b\n";
        let cpu = v1_folder(mounts, own, "cpu");
        assert_eq!(cpu, Some(PathBuf::from("/tmp/none/cpu,cpuacct")));
        assert_eq!(v1_folder(mounts, own, "memory"), None);
        assert_eq!(
            v2_folder(mounts, own),
            Some(PathBuf::from("/tmp/none/unified"))
        );
    }
}
