//! nginx as a target: one process on one core.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_test_ports::free_address;
use tempfile::TempDir;

use crate::child::{self, Daemon};

/// For it to come up or to say how many requests it had.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running nginx; it ends when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    daemon: Daemon,
    address: SocketAddr,
    status: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Starts one that answers every request itself, with a body of `body_bytes`.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn answering(body_bytes: usize, core: Option<usize>) -> Result<Self> {
        let body = "x".repeat(body_bytes);
        Self::start(core, &format!("return 200 \"{body}\";"))
    }

    fn start(core: Option<usize>, location: &str) -> Result<Self> {
        let program = super::find("nginx").context("nginx is not installed")?;
        let folder = tempfile::tempdir().context("a folder")?;
        let (address, status) = (free_address(), free_address());
        let http = format!(
            "  server {{ listen {address} backlog=16384; location / {{ {location} }} }}
  server {{ listen {status}; location / {{ stub_status; }} }}
"
        );
        let config = config(&folder.path().display().to_string(), &http);
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).context("nginx.conf")?;
        let log = folder.path().join("log");
        let mut command = child::command(program, core);
        command.arg("-c").arg(&file).arg("-p").arg(folder.path());
        let daemon = Daemon::start(&mut command, std::fs::File::create(&log)?)?;
        let mut nginx = Self {
            daemon,
            address,
            status,
            _folder: folder,
        };
        let began = Instant::now();
        while nginx.requests().is_err() {
            let ended = nginx.daemon.ended();
            if ended.is_some() || began.elapsed() > DEADLINE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("nginx does not come up: {ended:?} {said}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(nginx)
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Returns how many requests it has had, by its own books; each call is one of them.
    ///
    /// # Errors
    /// It does not answer.
    pub fn requests(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(self.status).context("nginx's status")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("nginx's status")?;
        requests_in(&text).with_context(|| format!("nginx's status is {text}"))
    }
}

/// Returns a configuration of one process that keeps what it writes in `folder`, and has `http` in
/// its part of that name.
pub fn config(folder: &str, http: &str) -> String {
    // One process: a worker of its own would outlive a master that is killed.
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{http}}}
"
    )
}

/// Reads `server accepts handled requests\n A H R` out of what `stub_status` says.
fn requests_in(text: &str) -> Option<u64> {
    let (_, counts) = text.split_once("accepts handled requests")?;
    counts.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_out_of_the_status() {
        let text = "Active connections: 1 \nserver accepts handled requests\n 5 5 77 \nReading: 0";
        assert_eq!(requests_in(text), Some(77));
        assert_eq!(requests_in("404"), None);
    }

    #[test]
    fn nginx_answers_and_counts() {
        if super::super::find("nginx").is_none() {
            eprintln!("SKIP: nginx is not installed");
            return;
        }
        let nginx = Nginx::answering(128, None).expect("starts");
        let before = nginx.requests().expect("counts");
        let mut stream = TcpStream::connect(nginx.address()).expect("connects");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.ends_with(&"x".repeat(128)), "{text}");
        assert_eq!(nginx.requests().expect("counts"), before + 2);
    }
}
