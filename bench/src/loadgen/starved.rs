//! Whether the generator says so when its figures are its own and not the target's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Stage;
use crate::Bench;
use crate::child::{self, Daemon};
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load, Report};
use crate::target::{Behaviour, Stall, Target};

const CONNECTIONS: usize = 64;
const BODY_BYTES: usize = 128;
/// A rate that the generator keeps easily when it is let.
const RATE: f64 = 20_000.0;
const RUN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// The part of a core that the quota leaves: too little for the rate.
const QUOTA_US: u32 = 5_000;
const PERIOD_US: u32 = 100_000;

/// What is done to the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torment {
    Nothing,
    /// The target stalls: its fault, not the generator's.
    TargetStalls,
    /// Programs that want all of its core.
    BusyLoops,
    /// A CPU quota on it.
    Quota,
    /// It is stopped in the middle.
    Stopped,
}

const TORMENTS: [Torment; 5] = [
    Torment::Nothing,
    Torment::TargetStalls,
    Torment::BusyLoops,
    Torment::Quota,
    Torment::Stopped,
];

impl Torment {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "left alone",
            Self::TargetStalls => "its target stalls",
            Self::BusyLoops => "beside busy loops on its core",
            Self::Quota => "under a CPU quota of 5 %",
            Self::Stopped => "stopped for 300 ms",
        }
    }

    fn is_starvation(self) -> bool {
        !matches!(self, Self::Nothing | Self::TargetStalls)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a case may fail, this one says what did"
)]
pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let rounds = stage.options.runs.unwrap_or(stage.options.size(ROUNDS, 1));
    for generator in &stage.ours {
        for torment in TORMENTS {
            let mut verdicts = Vec::new();
            let mut reasons = Vec::new();
            for _ in 0..rounds {
                match once(stage, generator, torment) {
                    Ok(report) => {
                        verdicts.push(f64::from(u8::from(report.invalid.is_some())));
                        reasons.push(report.invalid);
                    }
                    Err(error) => {
                        let (name, what) = (generator.name(), torment.name());
                        bench.missing(format!("verdict of {name} {what}: {error:#}"));
                        break;
                    }
                }
            }
            if verdicts.is_empty() {
                continue;
            }
            let of = (format!("generator {}", torment.name()), generator.name());
            let figure = Figure::new(of, "says INVALID", "share of runs");
            let figure = figure.values(verdicts);
            bench.push(if torment.is_starvation() {
                figure.goal_at_least(Stat::Min, 1.0)
            } else {
                figure.goal(Stat::Max, 0.0)
            });
            bench.raw["starved"][torment.name()][generator.name()] = json!(reasons);
        }
    }
    Ok(())
}

fn once(stage: &Stage<'_>, generator: &Generator, torment: Torment) -> Result<Report> {
    let duration = stage.options.size(RUN, Duration::from_millis(800));
    let stalls = match torment {
        Torment::TargetStalls => vec![Stall {
            at: duration / 3,
            lasts: duration / 10,
        }],
        _ => Vec::new(),
    };
    let target = Target::start(Behaviour {
        core: stage.cores.server,
        body_bytes: BODY_BYTES,
        stalls,
        ..Behaviour::default()
    })?;
    let url = format!("http://{}/", target.address());
    let rate = stage.options.size(RATE, RATE / 4.0);
    let load = Load::open(url, CONNECTIONS, duration, rate);
    let folder = tempfile::tempdir().context("a folder")?;
    let mut command = generator.command(&load, stage.cores.client, folder.path())?;
    let quota = (torment == Torment::Quota).then(Quota::new).transpose()?;
    let loops = match torment {
        Torment::BusyLoops => busy_loops(stage.cores.client)?,
        _ => Vec::new(),
    };
    let deadline = duration * 20 + Duration::from_secs(30);
    let finished = child::run_with(&mut command, deadline, |pid| {
        if let Some(quota) = &quota {
            quota.take(pid)?;
        }
        if torment == Torment::Stopped {
            stop_for_a_while(pid, duration)?;
        }
        Ok(())
    })?;
    drop(loops);
    generator.report(&finished, folder.path())
}

/// Starts programs that together leave the generator a small part of its core.
fn busy_loops(core: Option<usize>) -> Result<Vec<Daemon>> {
    let core = Some(core.context("it needs a core of its own")?);
    let spin = || {
        let mut shell = child::command("sh", core);
        let null = std::fs::File::create("/dev/null").context("/dev/null")?;
        Daemon::start(shell.args(["-c", "while :; do :; done"]), null)
    };
    (0..3).map(|_| spin()).collect()
}

/// Stops a process in the middle of its run, as a machine does that swaps or migrates it.
fn stop_for_a_while(pid: u32, duration: Duration) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("a process id")?;
    std::thread::sleep(duration / 3);
    kill_process(pid, Signal::STOP).context("stopping the generator")?;
    std::thread::sleep(Duration::from_millis(300));
    kill_process(pid, Signal::CONT).context("letting the generator go on")
}

/// A control group with a CPU quota; it goes when this is dropped.
#[derive(Debug)]
struct Quota(PathBuf);

impl Quota {
    fn new() -> Result<Self> {
        let name = format!("ballast-bench-{}", std::process::id());
        // Version 2, version 2 beside version 1, and version 1.
        let roots = [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/cpu",
        ];
        let mut why = None;
        for root in roots.map(Path::new) {
            let folder = Self(root.join(&name));
            match std::fs::create_dir(&folder.0).and_then(|()| folder.limit()) {
                Ok(()) => return Ok(folder),
                Err(error) => why = Some(error),
            }
        }
        Err(why.context("no control group")?).context("a control group with a CPU quota")
    }

    fn limit(&self) -> std::io::Result<()> {
        let max = self.0.join("cpu.max");
        if max.is_file() {
            return std::fs::write(max, format!("{QUOTA_US} {PERIOD_US}"));
        }
        let period = self.0.join("cpu.cfs_period_us");
        if !period.is_file() {
            // A folder in which nobody made any files: no control group, or one without this.
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        std::fs::write(period, PERIOD_US.to_string())?;
        std::fs::write(self.0.join("cpu.cfs_quota_us"), QUOTA_US.to_string())
    }

    fn take(&self, pid: u32) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        std::fs::write(path, pid.to_string()).context("moving the generator under the quota")
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Nobody is in it any more; a folder that stays does no harm.
        let _ = std::fs::remove_dir(&self.0);
    }
}
