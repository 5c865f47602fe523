//! HAProxy beside us: the same target program, checks every 100 ms, one failure is enough.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::rig::{Fault, HEALS_WITHIN, ledger, window};
use crate::cluster::{Cluster, Process, Signal};

/// Where it listens, on the ingress's host.
pub const PORT: u16 = 8090;
/// Ports of its backends, one after the other.
const BACKENDS: u16 = 9001;
/// Between two looks at its table.
const POLL: Duration = Duration::from_millis(1);

/// A running HAProxy with its backends, which we restart ourselves as soon as they have died.
pub struct HaProxy<'a> {
    cluster: &'a Cluster,
    process: Process,
    backends: Vec<Process>,
    socket: PathBuf,
}

impl<'a> HaProxy<'a> {
    /// Starts it; none if it is not installed.
    ///
    /// # Errors
    /// If it or its backends do not come up.
    pub fn start(cluster: &'a Cluster, backends: u16) -> Result<Option<Self>> {
        let Some(program) = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| Path::new(path).is_file())
        else {
            return Ok(None);
        };
        let socket = cluster.dir().join("haproxy.sock");
        let file = cluster.dir().join("haproxy.cfg");
        std::fs::write(&file, config(cluster, backends, &socket)).context("haproxy.cfg")?;
        let processes = (0..backends)
            .map(|index| backend(cluster, index))
            .collect::<Result<_>>()?;
        let process = cluster.ingress(0).spawn(
            "haproxy",
            Command::new(program).args(["-db", "-f"]).arg(&file),
        )?;
        let started = Self {
            cluster,
            process,
            backends: processes,
            socket,
        };
        cluster.wait_until("HAProxy holds every backend up", HEALS_WITHIN, |_| {
            started
                .up()
                .is_ok_and(|up| up.len() == usize::from(backends) && up.iter().all(|up| *up))
        })?;
        Ok(Some(started))
    }

    /// Returns which backends its table holds up.
    fn up(&self) -> Result<Vec<bool>> {
        let mut stream = UnixStream::connect(&self.socket).context("HAProxy's socket")?;
        stream
            .write_all(b"show servers state web\n")
            .context("asking HAProxy")?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .context("reading HAProxy's answer")?;
        // be_id be_name srv_id srv_name srv_addr srv_op_state …; 2 is running.
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        Ok(words
            .filter(|words| words.get(1) == Some(&"web"))
            .map(|words| words.get(5) == Some(&"2"))
            .collect())
    }

    fn wait(&self, from: Instant, wanted: impl Fn(&[bool]) -> bool) -> Option<Duration> {
        while from.elapsed() < HEALS_WITHIN {
            if self.up().is_ok_and(|up| wanted(&up)) {
                return Some(from.elapsed());
            }
            std::thread::sleep(POLL);
        }
        None
    }

    /// Signals a backend, waits until HAProxy has it down, and starts it again.
    ///
    /// # Errors
    /// If HAProxy or the backend has gone.
    pub fn hurt(&mut self, nth: usize, signal: Signal) -> Result<Fault> {
        if let Some(status) = self.process.ended() {
            bail!("HAProxy ended with {status}: {}", self.process.log());
        }
        let index = nth % self.backends.len();
        let began = Instant::now();
        self.backends[index].signal(signal)?;
        // Nobody restarts it for HAProxy: we do, once it is out, so that the check is measured and
        // not how soon a restart hides the failure.
        let out = self.wait(began, |up| !up[index]);
        self.backends[index].kill()?;
        self.backends[index] = backend(self.cluster, u16::try_from(index).context("few")?)?;
        let whole = self.wait(began, |up| up.iter().all(|up| *up));
        Ok(Fault {
            out,
            answering: None,
            whole,
            window: window(began),
        })
    }
}

fn backend(cluster: &Cluster, index: u16) -> Result<Process> {
    let host = cluster
        .agents()
        .nth(usize::from(index) % cluster.agents().count());
    let hello = cluster.bin("ballast-hello")?;
    host.context("an agent's host")?.spawn(
        &format!("haproxy-backend-{index}"),
        Command::new(hello)
            .env("PORT", (BACKENDS + index).to_string())
            .env("BALLAST_SLOT", index.to_string())
            .env("HELLO_LEDGER", ledger(cluster)),
    )
}

fn config(cluster: &Cluster, backends: u16, socket: &Path) -> String {
    let hosts: Vec<_> = cluster.agents().collect();
    let servers: Vec<String> = (0..backends)
        .map(|index| {
            let host = hosts[usize::from(index) % hosts.len()];
            format!("  server s{index} {}", host.address(BACKENDS + index))
        })
        .collect();
    format!(
        "global
  stats socket {socket} mode 600 level admin
  maxconn 4096
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  retries 3
  option redispatch 1
  retry-on all-retryable-errors
frontend web
  bind {address}
  http-request disable-l7-retry unless METH_GET
  default_backend web
backend web
  balance leastconn
  option httpchk GET /healthz
  default-server check inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
{servers}
",
        socket = socket.display(),
        address = cluster.ingress(0).address(PORT),
        servers = servers.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rig;
    use crate::cluster::{Isolation, isolation};

    /// An opponent that is set up badly would flatter us.
    #[test]
    fn cluster_haproxy_loses_no_get_at_a_kill() -> Result<()> {
        if let Isolation::Loopback(reason) = isolation() {
            eprintln!("SKIP: {reason}");
            return Ok(());
        }
        let cluster = Cluster::builder().agents(3).build()?;
        let Some(mut haproxy) = HaProxy::start(&cluster, 5)? else {
            eprintln!("SKIP: haproxy is not installed");
            cluster.finish();
            return Ok(());
        };
        let load = rig::drive(&cluster, PORT, "t")?;
        let faults = [
            haproxy.hurt(0, Signal::KILL)?,
            haproxy.hurt(1, Signal::STOP)?,
        ];
        let (zero, outcome) = rig::finish(load)?;
        for fault in &faults {
            let harm = fault.harm(zero, &outcome.records);
            eprintln!("{fault:?} {harm:?}");
            assert!(fault.out.is_some() && fault.whole.is_some());
            assert_eq!(harm.gets, 0, "{:?}", outcome.report.errors);
        }
        drop(haproxy);
        cluster.finish();
        Ok(())
    }
}
