//! One host: its place in the network, its role's process, and the faults it can suffer.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::network::Place;
use super::process::{Process, kill_pid, tail};
use super::{bins, sweep};

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Decides.
    Manager,
    /// Runs tasks.
    Agent,
    /// Routes.
    Ingress,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manager => "manager",
            Self::Agent => "agent",
            Self::Ingress => "ingress",
        })
    }
}

/// A host and the process of its role.
#[derive(Debug)]
pub struct Host {
    name: String,
    role: Option<Role>,
    place: Place,
    /// The role's data.
    data: PathBuf,
    logs: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    process: Option<Process>,
}

impl Host {
    pub(super) fn new(name: &str, role: Option<Role>, place: Place, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            role,
            place,
            data: dir.join("data").join(name),
            logs: dir.join("logs"),
            state: Mutex::default(),
        }
    }

    /// Returns its name, which is its node's name as well.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it does; none for the client.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Returns its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Returns its address with a port.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.place.address), port)
    }

    /// Returns its network namespace, if it has one of its own.
    pub fn namespace(&self) -> Option<&str> {
        self.place.namespace()
    }

    /// Returns its role's data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Returns the file that its role's output goes to, over all its starts.
    pub fn log_path(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    /// Returns all that its role has written.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Runs `work` on this host: what it starts and opens lives there.
    ///
    /// # Errors
    /// If the host's namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.place.inside(work)
    }

    pub(super) fn share_place(&self) -> Result<Place> {
        self.place.share()
    }

    /// Starts any program on this host; its output goes to `logs/NAME.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.logs.join(format!("{name}.log"));
        self.inside(|| Process::start(command, &log))?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not keep the cluster from being cleaned up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the arguments of `ballast` for the next starts.
    pub fn set_args<S: Into<OsString>>(&self, args: impl IntoIterator<Item = S>) {
        self.state().args = args.into_iter().map(Into::into).collect();
    }

    /// Returns those arguments.
    pub fn args(&self) -> Vec<OsString> {
        self.state().args.clone()
    }

    /// Sets an environment variable for the next starts.
    pub fn set_env(&self, key: &str, value: impl Into<OsString>) {
        self.state().env.push((key.to_owned(), value.into()));
    }

    /// Returns its role's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut state = self.state();
        let process = state.process.as_mut()?;
        process.ended().is_none().then(|| process.pid())
    }

    /// Starts its role.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn start(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(process) = &mut state.process
            && process.ended().is_none()
        {
            bail!("{} runs already", self.name);
        }
        let mut command = Command::new(bins::bin("ballast")?);
        command
            .args(&state.args)
            .envs(state.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/");
        let process = self.spawn(&self.name, &mut command)?;
        state.process = Some(process);
        Ok(())
    }

    /// Kills its role's process with SIGKILL; tasks of an agent live on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        let process = state.process.as_mut().context("was never started")?;
        if let Some(status) = process.ended() {
            bail!("{} has already ended with {status}", self.name);
        }
        process.kill()?;
        Ok(())
    }

    /// Asks its role's process to end with SIGTERM; returns how it did.
    ///
    /// # Errors
    /// If it does not run, or does not end within `deadline`.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        let mut state = self.state();
        let process = state.process.as_mut().context("was never started")?;
        process.signal(Signal::TERM)?;
        process.wait(deadline)
    }

    /// Returns how its role's process ended, if it does within `deadline`.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait_end(&self, deadline: Duration) -> Result<ExitStatus> {
        let mut state = self.state();
        let process = state.process.as_mut().context("was never started")?;
        process.wait(deadline)
    }

    /// Freezes its role's process with SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub fn hang(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends its role's process a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut state = self.state();
        let process = state.process.as_mut().context("was never started")?;
        process.signal(signal)
    }

    /// Kills its role's process if it runs, and starts it again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&self) -> Result<()> {
        if self.pid().is_some() {
            self.kill()?;
        }
        self.start()
    }

    /// Drops every packet from and to this host, silently.
    ///
    /// # Errors
    /// If hosts are loopback addresses.
    pub fn cut_off(&self) -> Result<()> {
        self.place.set_connected(false)
    }

    /// Lets packets through again.
    ///
    /// # Errors
    /// If hosts are loopback addresses.
    pub fn reconnect(&self) -> Result<()> {
        self.place.set_connected(true)
    }

    /// Kills the whole host, as a lost power supply does: nobody is told, its role's process and
    /// all tasks end at once. On loopback the kernel still closes their connections.
    ///
    /// # Errors
    /// If it cannot be taken off the network.
    pub fn kill_node(&self) -> Result<()> {
        if self.place.namespace().is_some() {
            self.cut_off()?;
        }
        // The agent first: it must not see its tasks die and start them again.
        if self.pid().is_some() {
            self.kill()?;
        }
        self.kill_everything();
        Ok(())
    }

    /// Brings a killed host back: its network, then its role's process.
    ///
    /// # Errors
    /// If that cannot be started.
    pub fn revive(&self) -> Result<()> {
        if self.place.namespace().is_some() {
            self.reconnect()?;
        }
        self.start()
    }

    /// Returns the processes on this host except its role's.
    pub fn task_pids(&self) -> Vec<u32> {
        let own = self.pid();
        let mut pids = self.place.pids();
        if self.place.namespace().is_none() {
            pids = sweep::marked(&self.data);
        }
        pids.retain(|pid| Some(*pid) != own);
        pids
    }

    /// Kills its role's process and every other one on this host.
    pub(super) fn kill_everything(&self) {
        self.state().process = None;
        // A process may be between fork and exec: look again until none is left.
        for _ in 0..20 {
            let pids = self.task_pids();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // It may have ended since.
                let _ = kill_pid(pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn show_log_tail(&self) {
        let path = self.log_path();
        eprintln!("--- {} ({})\n{}", self.name, path.display(), tail(&path));
    }
}
