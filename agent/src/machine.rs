//! What this machine has: capacity and attributes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ballast_model::{Bytes, Capacity, Device, MilliCpu, Socket, limits};

use crate::config::Config;

/// Memory that is not given to tasks: the kernel, the agent and what else runs need some.
const RESERVE_PERCENT: u64 = 5;

/// Returns what tasks may use here: what the configuration says, else what there is.
pub(crate) fn capacity(config: &Config) -> Capacity {
    let all = cpus();
    // Of a part of the machine nobody has said which sockets it is made of.
    let whole = config.cpu.is_none() && config.memory.is_none();
    let sockets = if config.sockets.is_empty() && whole {
        sockets(Path::new("/sys/devices/system/node"), all)
    } else {
        config.sockets.clone()
    };
    Capacity {
        task_slots: config.task_slots,
        ports: config.ports,
        disk: config.disk,
        devices: config.devices.clone(),
        custom: config.resources.clone(),
        sockets,
        ..Capacity::of(
            config.cpu.unwrap_or(all),
            config.memory.unwrap_or_else(memory),
        )
    }
}

/// Returns the sockets that the kernel knows, if their cores are all that the agent may use.
fn sockets(folder: &Path, all: MilliCpu) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for number in 0..=limits::SOCKETS_PER_NODE {
        let node = folder.join(format!("node{number}"));
        let Ok(cpus) = fs::read_to_string(node.join("cpulist")) else {
            break;
        };
        let info = fs::read_to_string(node.join("meminfo")).unwrap_or_default();
        let memory = info.lines().find_map(|line| kib(line, "MemTotal:"));
        sockets.push(Socket {
            cpu: MilliCpu::from_cores(count_cpus(&cpus)),
            memory: less_reserve(memory.unwrap_or(0)),
        });
    }
    let sum: u64 = sockets.iter().map(|socket| u64::from(socket.cpu.0)).sum();
    if sockets.len() > limits::SOCKETS_PER_NODE || sum != u64::from(all.0) {
        return Vec::new();
    }
    sockets
}

/// Counts the numbers of a list such as `0-3,8`.
fn count_cpus(list: &str) -> u32 {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)?.saturating_add(1))
    };
    let parts = list.trim().split(',').filter_map(count);
    parts.fold(0, u32::saturating_add)
}

/// Returns the KiB of a line of `meminfo` that is about this.
fn kib(line: &str, about: &str) -> Option<u64> {
    let (_, rest) = line.split_once(about)?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn less_reserve(kib: u64) -> Bytes {
    let total = kib.saturating_mul(1024);
    Bytes(total - total / 100 * RESERVE_PERCENT)
}

fn cpus() -> MilliCpu {
    // Respects the affinity and the CPU quota of the agent itself.
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    MilliCpu::from_cores(u32::try_from(count).unwrap_or(u32::MAX))
}

fn memory() -> Bytes {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    less_reserve(
        info.lines()
            .find_map(|line| kib(line, "MemTotal:"))
            .unwrap_or(0),
    )
}

/// Returns what can be asked for in constraints: `os`, `arch`, `kernel`, `version`, and of each
/// kind of devices that are all of one model `KIND.model`.
pub(crate) fn attributes(devices: &[Device]) -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy().into_owned();
    let mut attributes: BTreeMap<String, String> = [
        ("os", std::env::consts::OS.to_owned()),
        ("arch", std::env::consts::ARCH.to_owned()),
        ("kernel", kernel),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for device in devices.iter().filter(|device| !device.model.is_empty()) {
        let alike = |other: &Device| other.kind != device.kind || other.model == device.model;
        if devices.iter().all(alike) {
            attributes.insert(format!("{}.model", device.kind), device.model.clone());
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_has_something_to_give() {
        assert!(cpus() >= MilliCpu::from_cores(1));
        assert!(memory() > Bytes::from_mib(64));
        assert_eq!(attributes(&[])["os"], "linux");
    }

    #[test]
    fn sockets_are_told_only_if_they_are_the_whole_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        for (number, cpus) in [(0, "0-3,8"), (1, "4-7,9")] {
            let node = folder.path().join(format!("node{number}"));
            fs::create_dir(&node).expect("made");
            fs::write(node.join("cpulist"), cpus).expect("written");
            let info =
                format!("Node {number} MemTotal:       1000 kB\nNode {number} MemFree: 1 kB");
            fs::write(node.join("meminfo"), info).expect("written");
        }
        let found = sockets(folder.path(), MilliCpu::from_cores(10));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].cpu, MilliCpu::from_cores(5));
        assert_eq!(found[1].memory, less_reserve(1000));
        let part = sockets(folder.path(), MilliCpu::from_cores(2));
        assert!(part.is_empty(), "the agent may use a part only");
    }

    #[test]
    fn model_is_an_attribute_if_all_of_a_kind_share_it() {
        let devices = ["T4", "T4"].map(|model| Device::of("gpu", model));
        assert_eq!(attributes(&devices)["gpu.model"], "T4");
        let mixed = ["T4", "P100"].map(|model| Device::of("gpu", model));
        assert!(!attributes(&mixed).contains_key("gpu.model"));
    }
}
