//! What `/proc` says of a process.

use std::fs;

use ballast_model::{AssignmentId, NodeId, TaskId};

use crate::worker::Process;

/// The fields of `/proc/PID/stat` that are used here (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `T` (stopped), `Z` (zombie), …
    pub state: u8,
    /// Its session.
    pub session: u32,
    /// CPU time of the process and of its children that were waited for, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Returns what is known of a process; none if there is no such.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in the second field may hold spaces and parentheses: the last `)` ends it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            session: u32::try_from(number(3)?).ok()?,
            cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
            start_time: number(19)?,
        })
    }

    /// Returns whether it can run at all: stopped by a signal or a debugger it cannot answer.
    pub const fn is_stopped(self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Returns whether it has work to do: it is on a CPU or waits for one.
    pub const fn is_runnable(self) -> bool {
        self.state == b'R'
    }

    /// Returns whether it has ended and waits for its parent.
    pub const fn is_zombie(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Returns the process if it still is the one that was meant.
pub fn is_alive(process: Process) -> bool {
    Stat::read(process.pid)
        .is_some_and(|stat| stat.start_time == process.start_time && !stat.is_zombie())
}

/// Returns the ids of all processes.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What a process of ours says of itself in its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The node it was started on.
    pub node: NodeId,
    /// The binding.
    pub assignment: AssignmentId,
    /// The try.
    pub task: TaskId,
}

impl Marks {
    /// Returns the marks of a process; none if it is not ours or may not be read.
    pub fn read(pid: u32) -> Option<Self> {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |name: &str| {
            let mut vars = environ.split(|&byte| byte == 0);
            let value =
                vars.find_map(|var| var.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
            std::str::from_utf8(value).ok()
        };
        Some(Self {
            node: value(super::env::NODE_ID)?.parse().ok()?,
            assignment: value(super::env::ASSIGNMENT_ID)?.parse().ok()?,
            task: value(super::env::TASK_ID)?.parse().ok()?,
        })
    }
}

/// Returns what listens on a TCP port, in words, as far as `/proc` shows.
pub fn listener(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let (_, local) = fields.get(1)?.rsplit_once(':')?;
                let ours = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTEN;
                ours.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
            })
        })?;
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| {
                fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == &*inode)
            })
    };
    let pid = pids().find(holds)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_stat_reads_and_hostile_names_do_not_confuse_it() {
        let own = Stat::read(std::process::id()).expect("we run");
        assert!(!own.is_stopped() && own.start_time > 0);
        let line = "7 (a) Z 1 2 (x) ) T 1 7 9 0 -1 0 0 0 0 0 3 4 5 6 20 0 1 0 4242 1 1";
        let stat = Stat::parse(line).expect("parses");
        assert_eq!(
            (stat.session, stat.cpu_ticks, stat.start_time),
            (9, 18, 4242)
        );
        assert!(stat.is_stopped());
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn holder_of_a_port_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = socket.local_addr().expect("has an address").port();
        let holder = listener(port).expect("we may read our own descriptors");
        assert!(
            holder.contains(&format!("(pid {})", std::process::id())),
            "{holder}"
        );
    }
}
