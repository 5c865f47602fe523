//! What a lane's thread itself was given by the kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

/// CPU time used and CPU time waited for, of one thread, since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Ran for this long.
    pub cpu_ns: u64,
    /// Could have run for this long, but no core was free. 0 where the kernel does not tell.
    pub wait_ns: u64,
}

/// Reads [`Own`] of the thread that asks first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// `/proc/thread-self/schedstat`, opened once: opening costs ten times what reading does.
    schedstat: Option<Arc<File>>,
    opened: bool,
}

impl Watch {
    /// Returns what the thread has used so far; always asked by the same thread.
    pub fn read(&mut self) -> Own {
        if !self.opened {
            self.opened = true;
            self.schedstat = File::open("/proc/thread-self/schedstat").map(Arc::new).ok();
        }
        Own {
            cpu_ns: thread_cpu_ns(),
            wait_ns: self.wait_ns().unwrap_or(0),
        }
    }

    fn wait_ns(&self) -> Option<u64> {
        let mut text = [0; 96];
        let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        waited(std::str::from_utf8(&text[..length]).ok()?)
    }
}

/// Returns the second of schedstat's numbers: nanoseconds on a run queue.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_sees_its_own_work() {
        let mut watch = Watch::default();
        let before = watch.read();
        let mut sum = 0_u64;
        while thread_cpu_ns() - before.cpu_ns < 2_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        let after = watch.read();
        assert!(after.cpu_ns >= before.cpu_ns + 2_000_000, "{after:?}");
        assert!(after.wait_ns >= before.wait_ns);
    }

    #[test]
    fn schedstat_is_read_by_place() {
        assert_eq!(waited("123 456 7\n"), Some(456));
        assert_eq!(waited(""), None);
    }
}
