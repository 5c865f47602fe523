//! Where a figure comes from.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

/// Returns the commit that was built, with `+` if files differ from it.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let dirty = git(&["status", "--porcelain", "-uno"]).is_none_or(|changes| !changes.is_empty());
    format!("{commit}{}", if dirty { "+" } else { "" })
}

/// Returns processor, cores, memory, kernel and how busy the machine is.
pub fn describe() -> Value {
    let line = |path: &str, name: &str| {
        let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .trim_start_matches([':', ' ', '\t'])
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({
        "processor": line("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": line("/proc/meminfo", "MemTotal:"),
        "kernel": line("/proc/sys/kernel/osrelease", ""),
        "load_before": line("/proc/loadavg", ""),
    })
}

/// Returns how many descriptors a process may have open.
pub fn descriptors() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::from(u32::MAX))
}

/// Returns how long this thread has been on a processor: what a busy machine does not distort.
/// Zero where the kernel does not say.
pub fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next();
    Duration::from_nanos(nanos.and_then(|text| text.parse().ok()).unwrap_or(0))
}
