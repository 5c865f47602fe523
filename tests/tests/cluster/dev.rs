//! `ballast dev`: everything in one process, without root.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_tests::cluster::{Signal, bin_dir, http, signal_pid};

use crate::scenario::DEADLINE;

/// `nobody` on every Linux we know of.
const NOBODY: u32 = 65_534;
/// Of this test only; published by the file it deploys.
const PORT: u16 = 18_431;

const FILE: &str = "
services:
  hello:
    command: [\"HELLO\"]
    ports: [\"18431:http\"]
    deploy: {replicas: 2}
";

struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn cluster_dev_without_root_answers_and_ends_with_its_tasks() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("ballast-dev-").tempdir()?;
    let programs = readable_programs(dir.path())?;
    let file = dir.path().join("hello.yaml");
    let hello = programs.join("ballast-hello").display().to_string();
    std::fs::write(&file, FILE.replace("HELLO", &hello))?;
    let home = dir.path().join("home");
    std::fs::create_dir(&home)?;
    let log = dir.path().join("dev.log");
    let output = std::fs::File::create(&log)?;
    let mut command = Command::new(programs.join("ballast"));
    command
        .arg("dev")
        .arg(&file)
        .arg("--data-dir")
        .arg(home.join("data"))
        .arg("--socket")
        .arg(home.join("api.sock"))
        .args(["--listen", "127.0.0.1:18430", "--ports", "28400-28499"])
        .env("HOME", &home)
        .current_dir(&home)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY))?;
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut dev = Dev(command.spawn().context("ballast dev")?);
    let text = || std::fs::read_to_string(&log).unwrap_or_default();

    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
    let start = Instant::now();
    loop {
        if http::over_tcp(address, "GET", "/", None).is_ok_and(|r| r.status == 200) {
            break;
        }
        if let Some(status) = dev.0.try_wait()? {
            bail!("ended with {status}: {}", text());
        }
        ensure!(start.elapsed() < DEADLINE, "does not answer: {}", text());
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("dev answers after {:?}", start.elapsed());

    // Ctrl-C.
    signal_pid(dev.0.id(), Signal::INT)?;
    let start = Instant::now();
    while dev.0.try_wait()?.is_none() {
        ensure!(start.elapsed() < DEADLINE, "does not end: {}", text());
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(
        std::net::TcpStream::connect(address).is_err(),
        "the port is closed"
    );
    let left = processes_of(&programs);
    ensure!(left.is_empty(), "tasks are left: {left:?}");
    Ok(())
}

/// Copies the programs to where another user may start them: a target folder may lie in a home.
fn readable_programs(dir: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let programs = dir.join("bin");
    std::fs::create_dir(&programs)?;
    for name in ["ballast", "ballast-hello"] {
        let from = bin_dir()?.join(name);
        std::fs::copy(&from, programs.join(name))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    for path in [dir, &programs] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(programs)
}

fn processes_of(programs: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok())
        .filter(|exe| exe.starts_with(programs))
        .map(|exe| exe.display().to_string())
        .collect()
}
