//! Programs that are started to be measured: pinned, accounted for, and never left behind.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

/// Between two looks at a program that runs.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at its memory.
const MEMORY_LOOK: Duration = Duration::from_millis(100);

/// Returns a command that runs `program` on `core` alone, or anywhere, and that ends with us,
/// however we end.
pub fn command(program: impl AsRef<OsStr>, core: Option<usize>) -> Command {
    // Both replace themselves by what they start: the process id stays the same.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(core) = core {
        command.args(["taskset", "-c", &core.to_string()]);
    }
    command.arg(program);
    command.stdin(Stdio::null());
    command
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it; what it prints is thrown away but for errors, which go to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, log: std::fs::File) -> Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        Ok(Self(child.with_context(|| name(command))?))
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns how it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself: nothing is lost then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program that ran to its end printed and used.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
    /// How it ended.
    pub status: ExitStatus,
    /// CPU time of all its threads, by the kernel.
    pub cpu: Duration,
    /// How long it ran.
    pub took: Duration,
    /// Resident memory, looked at while it ran: when, since its start, and bytes.
    pub memory: Vec<(Duration, u64)>,
}

impl Finished {
    /// Returns the most memory that it was seen with, in MiB.
    pub fn peak_mib(&self) -> f64 {
        let peak = self.memory.iter().map(|(_, bytes)| *bytes).max();
        peak.unwrap_or_default() as f64 / f64::from(1 << 20)
    }
}

/// Runs a program to its end, or kills it at the deadline.
///
/// # Errors
/// It cannot be started, or it did not end in time.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Finished> {
    run_with(command, deadline, |_| Ok(()))
}

/// Runs a program to its end as [`run`] does; `meanwhile` is called once, with its process id, as
/// soon as it runs.
///
/// # Errors
/// It cannot be started, it did not end in time, or `meanwhile` failed.
pub fn run_with(
    command: &mut Command,
    deadline: Duration,
    meanwhile: impl FnOnce(u32) -> Result<()>,
) -> Result<Finished> {
    let before = children_cpu()?;
    let began = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Daemon(child.spawn().with_context(|| name(command))?);
    let output = reader(child.0.stdout.take());
    let errors = reader(child.0.stderr.take());
    meanwhile(child.pid())?;
    let mut memory: Vec<(Duration, u64)> = Vec::new();
    let status = loop {
        if let Some(status) = child.0.try_wait().context("waiting")? {
            break status;
        }
        let now = began.elapsed();
        if now > deadline {
            bail!("`{}` did not end within {deadline:?}", name(command));
        }
        if memory
            .last()
            .is_none_or(|(at, _)| now.saturating_sub(*at) > MEMORY_LOOK)
            && let Some(bytes) = resident_bytes(child.pid())
        {
            memory.push((now, bytes));
        }
        std::thread::sleep(LOOK);
    };
    let took = began.elapsed();
    let text = |thread: JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Finished {
        output: text(output),
        errors: text(errors),
        status,
        cpu: children_cpu()?.saturating_sub(before),
        took,
        memory,
    })
}

fn name(command: &Command) -> String {
    let words = command.get_args().skip(3).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks has ended: what came before it is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Returns the CPU time of every child that has been waited for.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the usage of children")?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let sum = micros(usage.user_time()) + micros(usage.system_time());
    Ok(Duration::from_micros(u64::try_from(sum).context("a time")?))
}

/// Returns the CPU time that all threads of a process have used; none if it has ended.
pub fn cpu(pid: u32) -> Option<Duration> {
    // Nanoseconds per thread, exact where `stat` counts ticks of 10 ms.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanos = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanos.sum()))
}

/// Returns the resident memory of a process in bytes; none if it has ended.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// Returns the part of its resident memory that is no file's, in bytes; none if it has ended.
pub fn own_bytes(pid: u32) -> Option<u64> {
    memory(pid, "RssAnon:")
}

/// Returns how many descriptors a process has open; none are seen of one that has ended.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns the processes that a process has started and that run; none of one that has ended.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Returns whether a process has said what to do on a signal.
pub fn catches(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn memory(pid: u32, which: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_accounted_for_and_its_words_are_kept() {
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exit 3";
        let mut shell = command("sh", Some(0));
        let finished = run(shell.args(["-c", spin]), Duration::from_mins(1)).expect("runs");
        assert_eq!(finished.output, "done\n");
        assert_eq!(finished.status.code(), Some(3));
        assert!(
            finished.cpu > Duration::from_millis(5),
            "{:?}",
            finished.cpu
        );
        assert!(finished.cpu <= finished.took, "one core gives no more");
    }

    #[test]
    fn program_that_does_not_end_is_killed() {
        let mut forever = command("sleep", None);
        let began = Instant::now();
        let mut pid = 0;
        let result = run_with(forever.arg("1000"), Duration::from_millis(50), |it| {
            pid = it;
            Ok(())
        });
        assert!(result.is_err_and(|error| error.to_string().contains("sleep 1000")));
        assert!(began.elapsed() < Duration::from_mins(1));
        assert!(resident_bytes(pid).is_none(), "it is gone");
    }
}
