//! The last thing between the agent and a task's program: a fresh process of our own binary that
//! puts itself where the task belongs and then becomes the program.
//!
//! No `unsafe` code may run between fork and exec, and what is to be done there (session, cgroup,
//! limits, user) is more than the standard library can do for us; so the agent starts
//! `/proc/self/exe task-exec`, which does it as a program of its own.
//!
//! The specification comes in through standard input, one end of a socket pair. The agent reads
//! the other end: nothing means that the program runs (the socket closed itself at exec), a text
//! is why it does not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Gid, Resource, Rlimit, Uid};
use serde::{Deserialize, Serialize};

use super::user::User;

/// The subcommand that [`run_if_asked`] answers to.
pub const SUBCOMMAND: &str = "task-exec";

/// Bytes of a specification: command and environment are at most 128 KiB each.
pub const SPEC_BYTES: u64 = 1 << 20;

/// What a program is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub working_dir: PathBuf,
    /// Whom it runs as; the agent's user if not given.
    pub user: Option<User>,
    /// Limits by name.
    pub limits: Vec<(String, u64, u64)>,
    /// Files of cgroups that a `0` is written to in order to join them.
    pub cgroup_files: Vec<PathBuf>,
}

/// Becomes the program if this process was started to; returns otherwise. The first thing that
/// `main` calls.
pub fn run_if_asked() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == SUBCOMMAND).then(main)
}

fn main() -> ExitCode {
    let Ok(inherited) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        return ExitCode::FAILURE;
    };
    let mut agent = UnixStream::from(inherited);
    let Err(reason) = become_program(&mut agent);
    // Nobody is left to tell if the agent has gone.
    let _ = agent.write_all(reason.as_bytes());
    ExitCode::FAILURE
}

/// Returns only if it fails.
fn become_program(agent: &mut UnixStream) -> Result<std::convert::Infallible, String> {
    let mut bytes = Vec::new();
    let mut bounded = agent.take(SPEC_BYTES);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read its specification: {error}"))?;
    let spec: ExecSpec =
        ballast_wire::from_bytes(&bytes).map_err(|error| format!("bad specification: {error}"))?;
    // A session of its own: no terminal's Ctrl-C reaches it, and its group can be killed whole.
    // It fails only for a group's leader, which already has what is wanted here.
    let _ = rustix::process::setsid();
    // Our allocator turns huge pages off for this process, and that would pass to the program; the
    // system's own setting is to hold for it. Kernels without huge pages do not know the switch.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    for file in &spec.cgroup_files {
        fs::write(file, "0").map_err(|error| format!("cannot join {}: {error}", file.display()))?;
    }
    for (name, soft, hard) in &spec.limits {
        limit(name, *soft, *hard)?;
    }
    if let Some(user) = &spec.user {
        change_user(user)?;
    }
    std::env::set_current_dir(&spec.working_dir)
        .map_err(|error| describe_dir(&spec.working_dir, &error))?;
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err("the command names no program".to_owned());
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&spec.env)
        .stdin(Stdio::null())
        .exec();
    Err(describe_exec(program, &error))
}

fn change_user(user: &User) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| {
        let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
        format!("cannot become user `{name}`: {error}")
    };
    if rustix::process::geteuid().as_raw() == user.uid
        && rustix::process::getegid().as_raw() == user.gid
    {
        return Ok(());
    }
    let groups: Vec<Gid> = user.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    // Groups before user: afterwards it may no longer change them. This process has one thread.
    rustix::thread::set_thread_groups(&groups).map_err(failed)?;
    rustix::thread::set_thread_gid(Gid::from_raw(user.gid)).map_err(failed)?;
    rustix::thread::set_thread_uid(Uid::from_raw(user.uid)).map_err(failed)
}

fn limit(name: &str, soft: u64, hard: u64) -> Result<(), String> {
    const UNLIMITED: u64 = u64::MAX;
    let resource = resource(name).ok_or_else(|| format!("no such limit `{name}`"))?;
    let value = |limit: u64| (limit != UNLIMITED).then_some(limit);
    let rlimit = Rlimit {
        current: value(soft),
        maximum: value(hard),
    };
    rustix::process::setrlimit(resource, rlimit)
        .map_err(|error| format!("cannot set limit `{name}` to {soft}:{hard}: {error}"))
}

/// Returns the resource that a limit is named after, as ulimit(1) and Compose name them.
fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

fn describe_dir(dir: &std::path::Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("no such working directory `{}`", dir.display()),
        _ => format!("working directory `{}`: {error}", dir.display()),
    }
}

fn describe_exec(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("no such program `{program}` (or the interpreter in its first line is missing)")
        }
        io::ErrorKind::NotFound => format!("no such program `{program}` in PATH"),
        io::ErrorKind::PermissionDenied => format!("`{program}` is not executable: {error}"),
        _ => format!("cannot run `{program}`: {error}"),
    }
}
