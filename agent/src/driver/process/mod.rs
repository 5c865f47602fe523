//! Programs as processes of this machine: started, watched, signalled, and never left over.
//!
//! * [`exec`]: the last step from the agent's binary to the task's program
//! * [`cgroup`], [`user`], [`mod@env`]: what it runs in, as whom, and with what around it
//! * [`exit`]: how its end is seen
//! * [`procfs`]: what the kernel says of it

pub mod cgroup;
pub mod env;
mod error;
pub mod exec;
pub mod exit;
pub mod procfs;
pub mod user;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ballast_model::{AssignmentId, NodeId, Protocol, TaskId};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal};
use socket2::{Domain, Socket, Type};

pub use cgroup::Cgroups;
pub use error::StartError;

use crate::worker::{Bound, Process};
use exec::ExecSpec;

/// The longest wait for a new process to become its program. It reads one message and makes a
/// dozen system calls; past this the machine is out of breath, and another node may do better.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The longest wait for what was killed to be gone.
const SWEEP_LIMIT: Duration = Duration::from_secs(2);

/// Where tasks are run from.
#[derive(Debug)]
pub struct ProcessDriver {
    /// Becomes the task's program; `/proc/self/exe` unless in tests.
    pub executable: PathBuf,
    /// Holds a folder for each assignment.
    pub folder: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Limits.
    pub cgroups: Cgroups,
    /// The limit of open files, soft and hard, that tasks get unless they ask for another.
    pub nofile: Option<(u64, u64)>,
}

/// A program that was started: its process, and the descriptor that says when it has ended.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub process: Process,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// The files of one assignment.
#[derive(Debug, Clone)]
pub struct Files {
    /// Holds all of them.
    pub folder: PathBuf,
    /// Where its tries start, unless told otherwise.
    pub work: PathBuf,
    /// Standard output of all its tries.
    pub stdout: PathBuf,
    /// Standard error of all its tries.
    pub stderr: PathBuf,
}

impl Files {
    /// Names the files of an assignment below the driver's folder.
    pub fn of(tasks: &Path, assignment: AssignmentId) -> Self {
        let folder = tasks.join(assignment.to_string());
        Self {
            work: folder.join("work"),
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
            folder,
        }
    }
}

impl ProcessDriver {
    /// Starts a try, and returns once its program runs. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// [`StartError`]; nothing of it is left then.
    pub fn start(&self, bound: &Bound, task: TaskId) -> Result<Started, StartError> {
        check_ports(bound)?;
        let template = &bound.template.task;
        let user = template.user.as_deref().map(user::find).transpose()?;
        let own = rustix::process::geteuid();
        if user
            .as_ref()
            .is_some_and(|user| !own.is_root() && user.uid != own.as_raw())
        {
            return Err(StartError::NotRoot);
        }
        let files = Files::of(&self.folder, bound.assignment.assignment);
        let (stdout, stderr) = prepare_files(&files, user.as_ref())?;
        let assignment = bound.assignment.assignment;
        let claim = &bound.assignment.claim.resources;
        let cgroup_files = self
            .cgroups
            .prepare(assignment, claim)
            .map_err(StartError::Cgroup)?;
        let spec = self.spec(bound, task, user, &files, cgroup_files);
        self.spawn(&spec, stdout, stderr)
    }

    /// Returns what a program of this try is started with: the task's own, or a probe command.
    pub fn spec_for_command(
        &self,
        bound: &Bound,
        task: TaskId,
        argv: &[String],
    ) -> Result<ExecSpec, StartError> {
        let user = bound
            .template
            .task
            .user
            .as_deref()
            .map(user::find)
            .transpose()?;
        let files = Files::of(&self.folder, bound.assignment.assignment);
        let claim = &bound.assignment.claim.resources;
        let assignment = bound.assignment.assignment;
        let cgroup_files = self
            .cgroups
            .prepare(assignment, claim)
            .map_err(StartError::Cgroup)?;
        let mut spec = self.spec(bound, task, user, &files, cgroup_files);
        spec.argv = argv
            .iter()
            .map(|argument| env::expand(argument, &spec.env))
            .collect();
        Ok(spec)
    }

    fn spec(
        &self,
        bound: &Bound,
        task: TaskId,
        user: Option<user::User>,
        files: &Files,
        cgroup_files: Vec<PathBuf>,
    ) -> ExecSpec {
        let template = &bound.template.task;
        let mut env = env::compose(bound, task, self.node, &self.node_name);
        add_user_env(&mut env, user.as_ref());
        let argv = template
            .command
            .iter()
            .map(|argument| env::expand(argument, &env))
            .collect();
        let limits = template.ulimits.iter();
        let limits = limits.map(|(name, limit)| (name.clone(), limit.soft, limit.hard));
        let default = self
            .nofile
            .filter(|_| !template.ulimits.contains_key("nofile"));
        let default = default.map(|(soft, hard)| ("nofile".to_owned(), soft, hard));
        ExecSpec {
            argv,
            working_dir: template
                .working_dir
                .as_ref()
                .map_or(files.work.clone(), PathBuf::from),
            user,
            limits: default.into_iter().chain(limits).collect(),
            cgroup_files,
            env,
        }
    }

    /// Starts a process that becomes `spec`'s program; its descriptors are the given ones.
    ///
    /// # Errors
    /// [`StartError`]; the process is gone then.
    pub fn spawn(
        &self,
        spec: &ExecSpec,
        stdout: File,
        stderr: File,
    ) -> Result<Started, StartError> {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Spawn)?;
        let mut child = Command::new(&self.executable)
            .arg(exec::SUBCOMMAND)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(StartError::Spawn)?;
        match hand_over(ours, spec).and_then(|()| identify(&child)) {
            Ok(started) => Ok(started),
            Err(error) => {
                // It may have forked nothing yet: it is still our own binary.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Sends a signal to the process of a try, unless it has ended.
    pub fn signal(&self, process: Process, name: &str) {
        signal_process(process, name);
    }

    /// Kills all that a try has started: its group and what is in its cgroup.
    pub fn kill(&self, assignment: AssignmentId, process: Process) {
        if procfs::is_alive(process) {
            kill_group(process);
        }
        send(process, Signal::KILL);
        for other in self.cgroups.processes(assignment) {
            kill_pid(other);
        }
    }

    /// Kills what a dead try has left behind, and waits until it is gone. Returns how many there
    /// were. Blocks.
    pub fn sweep(&self, assignment: AssignmentId, dead: Process) -> usize {
        let begun = Instant::now();
        let mut most = 0;
        loop {
            let left = self.leftovers(assignment, dead);
            most = most.max(left.len());
            if left.is_empty() || begun.elapsed() > SWEEP_LIMIT {
                return most;
            }
            for pid in left {
                kill_pid(pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the processes that a dead try has left behind: those in its cgroup, else those of
    /// its session and those that carry its marks (a daemon makes a session of its own).
    pub fn leftovers(&self, assignment: AssignmentId, dead: Process) -> Vec<u32> {
        if self.cgroups.can_list() {
            return self.cgroups.processes(assignment);
        }
        let ours = |&pid: &u32| {
            pid != dead.pid
                && procfs::Stat::read(pid).is_some_and(|stat| {
                    !stat.is_zombie()
                        && (stat.session == dead.pid && stat.start_time >= dead.start_time
                            || procfs::Marks::read(pid).is_some_and(|marks| {
                                marks.assignment == assignment && marks.node == self.node
                            }))
                })
        };
        procfs::pids().filter(ours).collect()
    }

    /// Returns the programs of this node that run, by what they say of themselves: each leads the
    /// session that it was started in.
    pub fn find_running(&self) -> BTreeMap<AssignmentId, (TaskId, Process)> {
        let mut found = BTreeMap::new();
        for pid in procfs::pids() {
            let Some(marks) = procfs::Marks::read(pid).filter(|marks| marks.node == self.node)
            else {
                continue;
            };
            if let Some(stat) = procfs::Stat::read(pid)
                && stat.session == pid
                && !stat.is_zombie()
            {
                let process = Process {
                    pid,
                    start_time: stat.start_time,
                };
                found.insert(marks.assignment, (marks.task, process));
            }
        }
        found
    }

    /// Removes the cgroup of an assignment that is over.
    pub fn forget(&self, assignment: AssignmentId) {
        self.cgroups.remove(assignment);
    }
}

/// Lets the agent open as many files as it may, two for each task among them, and returns the
/// limits from before, which are right for tasks.
pub fn raise_nofile() -> Option<(u64, u64)> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    Some((before.current?, before.maximum.unwrap_or(u64::MAX)))
}

/// Returns the open descriptor of a process that an earlier life of the agent started.
///
/// # Errors
/// If it has ended, or its pid is another process by now.
pub fn adopt(process: Process) -> io::Result<OwnedFd> {
    let gone = || io::Error::from(rustix::io::Errno::SRCH);
    let target = pid(process.pid).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::NONBLOCK)?;
    // Checked after opening: from here on the descriptor cannot mean another process.
    if procfs::is_alive(process) {
        Ok(pidfd)
    } else {
        Err(gone())
    }
}

/// Sends a signal, by name, to a process unless it has ended.
pub fn signal_process(process: Process, name: &str) {
    send(process, signal_by_name(name).unwrap_or(Signal::TERM));
}

/// Sends SIGKILL to a process alone unless it has ended.
pub fn kill_process(process: Process) {
    send(process, Signal::KILL);
}

/// Kills the group of a process that is alive or has not been waited for.
pub fn kill_group(process: Process) {
    if let Some(group) = pid(process.pid) {
        // An empty group is none: nothing was left.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}

/// Signals a process by a descriptor, so that a recycled pid is never hit.
fn send(process: Process, signal: Signal) {
    if let Ok(pidfd) = adopt(process) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
    }
}

fn kill_pid(raw: u32) {
    if let Some(pid) = pid(raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Returns the signal of this name, with or without `SIG`.
pub fn signal_by_name(name: &str) -> Option<Signal> {
    let upper = name.trim().to_ascii_uppercase();
    Some(match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        "ALRM" => Signal::ALARM,
        "ABRT" => Signal::ABORT,
        "CONT" => Signal::CONT,
        "STOP" => Signal::STOP,
        _ => return None,
    })
}

/// Proves that every port of a binding can be bound.
fn check_ports(bound: &Bound) -> Result<(), StartError> {
    for binding in &bound.assignment.ports {
        let mut specs = bound.template.ports.iter();
        let udp = specs.any(|spec| spec.name == binding.name && spec.protocol == Protocol::Udp);
        let kind = if udp { Type::DGRAM } else { Type::STREAM };
        match try_bind(binding.port, kind) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(StartError::PortInUse {
                    port: binding.port,
                    holder: procfs::listener(binding.port),
                });
            }
            Err(source) => {
                return Err(StartError::Port {
                    port: binding.port,
                    source,
                });
            }
        }
    }
    Ok(())
}

fn try_bind(port: u16, kind: Type) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    if kind == Type::STREAM {
        // As a server does: connections that were closed a moment ago do not matter.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
}

fn prepare_files(files: &Files, user: Option<&user::User>) -> Result<(File, File), StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Files { path, source }
    };
    if !files.work.is_dir() {
        fs::create_dir_all(&files.work).map_err(failed(&files.work))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&files.work, Some(user.uid), Some(user.gid))
                .map_err(failed(&files.work))?;
        }
    }
    let open = |path: &Path| {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o640);
        options.open(path).map_err(failed(path))
    };
    Ok((open(&files.stdout)?, open(&files.stderr)?))
}

/// Sets what a login would: whose home, under what name.
fn add_user_env(env: &mut BTreeMap<String, String>, user: Option<&user::User>) {
    let inherited = |name: &str| std::env::var(name).ok();
    let (home, name) = match user {
        Some(user) => (user.home.clone(), user.name.clone()),
        None => (inherited("HOME"), inherited("USER")),
    };
    env.entry("HOME".to_owned())
        .or_insert_with(|| home.unwrap_or_else(|| "/".to_owned()));
    if let Some(name) = name {
        env.entry("USER".to_owned()).or_insert_with(|| name.clone());
        env.entry("LOGNAME".to_owned()).or_insert(name);
    }
}

/// Sends the specification and waits for the answer: nothing if the program runs.
fn hand_over(mut agent: UnixStream, spec: &ExecSpec) -> Result<(), StartError> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => StartError::Stalled(START_LIMIT),
        _ => StartError::Exec(format!(
            "the process that was to become it went away: {error}"
        )),
    };
    let bytes =
        ballast_wire::to_bytes(spec).map_err(|error| StartError::Exec(error.to_string()))?;
    agent.set_write_timeout(Some(START_LIMIT)).map_err(broken)?;
    agent.set_read_timeout(Some(START_LIMIT)).map_err(broken)?;
    agent.write_all(&bytes).map_err(broken)?;
    agent.shutdown(Shutdown::Write).map_err(broken)?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer).map_err(broken)?;
    if answer.is_empty() {
        Ok(())
    } else {
        Err(StartError::Exec(answer))
    }
}

/// Returns the identity of a child that nobody has waited for yet: its pid cannot be recycled.
fn identify(child: &Child) -> Result<Started, StartError> {
    let gone = || StartError::Spawn(io::Error::from(rustix::io::Errno::SRCH));
    let target = pid(child.id()).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::NONBLOCK)
        .map_err(|error| StartError::Spawn(error.into()))?;
    let stat = procfs::Stat::read(child.id()).ok_or_else(gone)?;
    Ok(Started {
        process: Process {
            pid: child.id(),
            start_time: stat.start_time,
        },
        pidfd,
    })
}
