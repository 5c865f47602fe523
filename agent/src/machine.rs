//! What this machine has: capacity and attributes.

use std::collections::BTreeMap;
use std::fs;

use ballast_model::{Bytes, Capacity, MilliCpu};

use crate::config::Config;

/// Memory that is not given to tasks: the kernel, the agent and what else runs need some.
const RESERVE_PERCENT: u64 = 5;

/// Returns what tasks may use here: what the configuration says, else what there is.
pub(crate) fn capacity(config: &Config) -> Capacity {
    Capacity {
        task_slots: config.task_slots,
        ports: config.ports,
        ..Capacity::of(
            config.cpu.unwrap_or_else(cpus),
            config.memory.unwrap_or_else(memory),
        )
    }
}

fn cpus() -> MilliCpu {
    // Respects the affinity and the CPU quota of the agent itself.
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    MilliCpu::from_cores(u32::try_from(count).unwrap_or(u32::MAX))
}

fn memory() -> Bytes {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0u64);
    let total = kib.saturating_mul(1024);
    Bytes(total - total / 100 * RESERVE_PERCENT)
}

/// Returns what can be asked for in constraints: `os`, `arch`, `kernel`, `version`.
pub(crate) fn attributes() -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy().into_owned();
    [
        ("os", std::env::consts::OS.to_owned()),
        ("arch", std::env::consts::ARCH.to_owned()),
        ("kernel", kernel),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_has_something_to_give() {
        assert!(cpus() >= MilliCpu::from_cores(1));
        assert!(memory() > Bytes::from_mib(64));
        assert_eq!(attributes()["os"], "linux");
    }
}
