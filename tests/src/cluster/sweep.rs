//! Leaves nothing behind: what a cluster started, and what a killed one could not end.
//!
//! Every namespace, folder and cgroup of a cluster carries its owner's pid in its name. A watchdog
//! process ends a cluster whose owner was killed; a sweep at the next start ends what even the
//! watchdog did not.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ballast_link::Credentials;
use ballast_model::NodeId;

use super::network::{PREFIX, ip, pids_in};
use super::process::{alive, kill_pid};

/// Ends the cluster when its input closes without a word, which is what the owner's death does.
///
/// A shell: a program of our own would have to be built and found first, and must not outlive a
/// rebuild. `$1` is the folder, the rest are namespaces.
const WATCHDOG: &str = r#"
read -r word && exit 0
dir=$1; shift
for round in 1 2 3; do
  for space in "$@"; do for pid in $(ip netns pids "$space" 2>/dev/null); do kill -9 "$pid"; done; done
  for proc in /proc/[0-9]*; do
    case "$(readlink "$proc/fd/1") $(readlink "$proc/fd/2") $(readlink "$proc/cwd")" in
      *"$dir"/*) kill -9 "${proc#/proc/}";;
    esac
  done
done
for space in "$@"; do ip netns del "$space"; done
"#;

/// The process that outlives the owner by a moment.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    pub fn start(dir: &Path, namespaces: &[String]) -> Result<Self> {
        Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(dir)
            .args(namespaces)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to the owner's group must not reach it.
            .process_group(0)
            .spawn()
            .map(Self)
            .context("starting the watchdog")
    }

    /// Tells it that the owner has cleaned up itself.
    pub fn dismiss(&mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = input.write_all(b"done\n");
        }
        let _ = self.0.wait();
    }
}

/// Ends what dead owners left: processes, namespaces, cgroups and, unless kept for a look, folders.
pub(super) fn sweep() {
    for namespace in names_in(Path::new("/run/netns")) {
        if owner_is_dead(&namespace) {
            for pid in pids_in(&namespace) {
                let _ = kill_pid(pid);
            }
            let _ = ip(&["netns", "del", &namespace]);
        }
    }
    for name in names_in(&std::env::temp_dir()) {
        let dir = std::env::temp_dir().join(&name);
        if owner_is_dead(&name) {
            kill_marked(&dir);
            unmount(&dir);
            remove_cgroups(&dir);
            if !is_kept(&dir) {
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }
}

/// The file that marks a folder whose logs somebody wants to read.
const KEPT: &str = "kept";
/// After which nobody does any more.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Keeps a failed cluster's folder from the next sweeps.
pub(super) fn keep(dir: &Path) {
    if let Err(error) = std::fs::write(dir.join(KEPT), "") {
        eprintln!("{} will be swept: {error}", dir.display());
    }
}

fn is_kept(dir: &Path) -> bool {
    std::fs::metadata(dir.join(KEPT))
        .and_then(|data| data.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < KEPT_FOR))
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

fn owner_is_dead(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse().ok())
        .is_some_and(|pid: u32| !alive(pid))
}

/// Returns the processes that write to or work in a folder: tasks outlive their agents and are no
/// children of ours.
pub(super) fn marked(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            ["fd/1", "fd/2", "cwd"].iter().any(|link| {
                std::fs::read_link(format!("/proc/{pid}/{link}"))
                    .is_ok_and(|target| target.starts_with(dir))
            })
        })
        .collect()
}

/// Kills them, and what they start meanwhile.
pub(super) fn kill_marked(dir: &Path) {
    for _ in 0..10 {
        let pids = marked(dir);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill_pid(pid);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Unmounts what tests have mounted below a folder.
pub(super) fn unmount(dir: &Path) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        // Lazily: a process that is just ending may still be on it.
        let _ = Command::new("umount").args(["-l", point]).status();
    }
}

/// Removes the cgroups of a cluster's nodes, whose names carry the id in the node's certificate.
pub(super) fn remove_cgroups(dir: &Path) {
    let Ok(hosts) = std::fs::read_dir(dir.join("data")) else {
        return;
    };
    let nodes: Vec<String> = hosts
        .flatten()
        .filter_map(|host| Credentials::load(&host.path().join("credentials")).ok()?)
        .map(|credentials| format!("ballast-{}", NodeId::from_bits(credentials.identity.id)))
        .collect();
    // An agent makes them below the cgroups that it was started in, which are ours.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: Vec<&str> = own
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .map(|path| path.trim_start_matches('/'))
        .filter(|path| !path.is_empty())
        .collect();
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    for mount in mounts.lines() {
        let mut fields = mount.split(' ');
        if let (_, Some(path), Some("cgroup" | "cgroup2")) =
            (fields.next(), fields.next(), fields.next())
        {
            for node in &nodes {
                remove_tree(&Path::new(path).join(node));
                for own in &own {
                    remove_tree(&Path::new(path).join(own).join(node));
                }
            }
        }
    }
}

/// A cgroup's files cannot be removed, its folders can, leaves first.
fn remove_tree(dir: &Path) {
    let children: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    for child in children.iter().filter(|child| child.is_dir()) {
        remove_tree(child);
    }
    let _ = std::fs::remove_dir(dir);
}
