//! Whether the machine is fit to measure, before and while a bench runs.
//!
//! A figure from a machine that was doing something else is not wrong, but it must say so: what is
//! found here stands in the result beside the figures.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Over which processors and processes are watched.
const SAMPLE: Duration = Duration::from_secs(1);
/// Share of one core that a process of somebody else may use.
const BUSY: f64 = 0.05;
/// Share of the machine that all others together may use.
const BUSY_ALL: f64 = 0.05;
/// Share of the time that the hypervisor may take away.
const STEAL: f64 = 0.01;
/// Processes waiting for each core, over the last minute, that are still quiet.
const LOAD: f64 = 0.5;
/// Ticks of `/proc` in a second: the kernel's ABI, whatever its own clock is.
const TICKS: f64 = 100.0;

/// What the machine was doing when nothing of ours ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitness {
    /// The load of the last minute.
    load: f64,
    cores: usize,
    /// The frequency governor; none where the machine has none, as virtual ones do.
    governor: Option<String>,
    /// Share of all cores that was in use.
    busy: f64,
    /// Share of the time that the hypervisor took away.
    steal: f64,
    /// Processes that used more than [`BUSY`] of a core, with what they used.
    processes: Vec<(String, f64)>,
}

impl Fitness {
    /// Returns how the machine is, watched for a second.
    pub fn look() -> Self {
        let (before, ran_before) = (Cpu::now(), processes());
        let began = Instant::now();
        std::thread::sleep(SAMPLE);
        let (spent, ran) = (Cpu::now().since(before), processes());
        let ticks = began.elapsed().as_secs_f64() * TICKS;
        let mut busy: Vec<(String, f64)> = ran
            .into_iter()
            .filter(|(pid, _)| *pid != std::process::id())
            .filter_map(|(pid, (name, used))| {
                let (_, earlier) = ran_before.get(&pid)?;
                let share = used.saturating_sub(*earlier) as f64 / ticks;
                (share > BUSY).then_some((name, share))
            })
            .collect();
        busy.sort_by(|one, other| other.1.total_cmp(&one.1));
        Self {
            load: load(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            governor: governor(Path::new("/sys/devices/system/cpu")),
            busy: spent.share(spent.busy),
            steal: spent.share(spent.steal),
            processes: busy,
        }
    }

    /// Returns how the machine is once it is fit, or when `patience` has passed.
    pub fn wait(patience: Duration) -> Self {
        let began = Instant::now();
        let mut said = false;
        loop {
            let fitness = Self::look();
            let complaints = fitness.complaints();
            if complaints.is_empty() || began.elapsed() >= patience {
                return fitness;
            }
            if !said {
                eprintln!(
                    "    waiting up to {} s for a quiet machine: {}",
                    patience.as_secs(),
                    complaints.join("; ")
                );
                said = true;
            }
        }
    }

    /// Returns what speaks against measuring now; nothing if it is fit.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> = self
            .processes
            .iter()
            .map(|(name, share)| format!("`{name}` uses {:.0} % of a core", share * 100.0))
            .collect();
        if complaints.is_empty() && self.busy > BUSY_ALL {
            complaints.push(format!("{:.0} % of the machine is busy", self.busy * 100.0));
        }
        if self.steal > STEAL {
            let percent = self.steal * 100.0;
            complaints.push(format!("the hypervisor takes {percent:.1} % of the time"));
        }
        if self.load > self.cores as f64 * LOAD {
            let (load, cores) = (self.load, self.cores);
            complaints.push(format!("the load is {load:.2} on {cores} cores"));
        }
        if let Some(governor) = &self.governor
            && governor != "performance"
        {
            complaints.push(format!("the frequency governor is `{governor}`"));
        }
        complaints
    }

    /// Returns it for the result.
    pub fn to_json(&self) -> Value {
        let complaints = self.complaints();
        json!({
            "fit": complaints.is_empty(),
            "complaints": complaints,
            "load_1m": self.load,
            "governor": self.governor,
            "busy_percent": self.busy * 100.0,
            "steal_percent": self.steal * 100.0,
            "busy_processes": self
                .processes
                .iter()
                .map(|(name, share)| json!({"name": name, "core_percent": share * 100.0}))
                .collect::<Vec<_>>(),
        })
    }
}

/// What the hypervisor takes away while a bench runs.
#[derive(Debug, Clone, Copy)]
pub struct Steal(Cpu);

impl Steal {
    /// Begins to watch.
    pub fn watch() -> Self {
        Self(Cpu::now())
    }

    /// Returns the share of the time that was taken away since, in percent.
    pub fn percent(self) -> f64 {
        let spent = Cpu::now().since(self.0);
        spent.share(spent.steal) * 100.0
    }
}

/// Ticks of all cores together.
#[derive(Debug, Clone, Copy, Default)]
struct Cpu {
    busy: u64,
    steal: u64,
    all: u64,
}

impl Cpu {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::read(text.lines().next().unwrap_or_default())
    }

    /// Reads `cpu user nice system idle iowait irq softirq steal …`.
    fn read(line: &str) -> Self {
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|word| word.parse().ok())
            .collect();
        let all = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let steal = ticks.get(7).copied().unwrap_or_default();
        Self {
            busy: all - idle - steal,
            steal,
            all,
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            steal: self.steal.saturating_sub(earlier.steal),
            all: self.all.saturating_sub(earlier.all),
        }
    }

    fn share(self, part: u64) -> f64 {
        part as f64 / self.all.max(1) as f64
    }
}

/// Returns the name of each process and the ticks that it has used.
fn processes() -> HashMap<u32, (String, u64)> {
    let Ok(folders) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    folders
        .flatten()
        .filter_map(|folder| {
            let pid = folder.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(folder.path().join("stat")).ok()?;
            Some((pid, ticks(&stat)?))
        })
        .collect()
}

/// Reads name, user and system ticks from `/proc/PID/stat`. The name may hold anything, blanks and
/// brackets included.
fn ticks(stat: &str) -> Option<(String, u64)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let mut fields = tail.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name.to_owned(), user + system))
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Returns the governor of the first core; it is the same on all of them unless someone took pains.
fn governor(cpus: &Path) -> Option<String> {
    let text = std::fs::read_to_string(cpus.join("cpu0/cpufreq/scaling_governor")).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Fitness {
        Fitness {
            load: 0.2,
            cores: 2,
            governor: None,
            busy: 0.01,
            steal: 0.0,
            processes: Vec::new(),
        }
    }

    #[test]
    fn quiet_machine_is_fit_and_each_disturbance_is_named() {
        assert_eq!(quiet().complaints(), Vec::<String>::new());
        let disturbed = Fitness {
            load: 3.0,
            governor: Some("powersave".to_owned()),
            steal: 0.05,
            processes: vec![("rustc".to_owned(), 0.9)],
            ..quiet()
        };
        let complaints = disturbed.complaints();
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        for word in ["rustc", "hypervisor", "load", "powersave"] {
            assert!(complaints.iter().any(|it| it.contains(word)), "{word}");
        }
        assert_eq!(disturbed.to_json()["fit"], false);
        assert_eq!(quiet().to_json()["fit"], true);
    }

    #[test]
    fn steal_and_busy_are_shares_of_all_ticks() {
        let cpu = Cpu::read("cpu  10 0 20 60 5 0 1 4 0 0");
        assert_eq!((cpu.busy, cpu.steal, cpu.all), (31, 4, 100));
        let later = Cpu::read("cpu  20 0 20 60 5 0 1 14 0 0").since(cpu);
        assert_eq!((later.busy, later.steal, later.all), (10, 10, 20));
        assert!((later.share(later.steal) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn name_of_a_process_may_hold_brackets_and_blanks() {
        let stat = "12 (a) (b c) S 1 12 12 0 -1 4194560 0 0 0 0 7 5 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(("a) (b c".to_owned(), 12)));
    }

    #[test]
    fn process_that_works_is_seen() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("a shell");
        let deadline = Instant::now() + Duration::from_secs(30);
        // Beside other work it may get less than its share in a sample.
        let seen = std::iter::repeat_with(Fitness::look)
            .take_while(|_| Instant::now() < deadline)
            .any(|fitness| {
                fitness
                    .processes
                    .iter()
                    .any(|(name, _)| name.contains("sh"))
            });
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(seen);
    }
}
