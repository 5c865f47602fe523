//! Proxies, ours and others', each alone on one core before the same sink.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_test_ports::free_address;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::proxies;
use crate::child::{self, Daemon};

/// For a proxy to come up.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Every proxy that is known, ours first: name, and how it is made.
const ALL: [(&str, Make); 5] = [
    ("ballast", proxies::ballast_epoll),
    ("ballast uring", proxies::ballast_uring),
    ("nginx", proxies::nginx),
    ("haproxy", proxies::haproxy),
    ("envoy", proxies::envoy),
];

/// What counts the instructions of a program.
const CALLGRIND: &[&str] = &[
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
];

/// Returns what starts a proxy, or why it cannot be started.
type Make = fn(&Setup<'_>, &Entries) -> Result<Recipe>;

/// What proxies are put before, and where.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Where requests go.
    pub sink: SocketAddr,
    /// The core that each is pinned to.
    pub core: Option<usize>,
    /// For the entry by TLS.
    pub certificate: &'a Certificate,
}

/// A way into a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// HTTP/1.1 in plain text.
    Plain,
    /// HTTP/2 in plain text, known beforehand.
    H2c,
    /// TLS 1.3, with HTTP/1.1 or HTTP/2 by ALPN.
    Tls,
}

/// Where each entry is.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    /// HTTP/1.1 in plain text.
    pub plain: SocketAddr,
    /// HTTP/2 in plain text; the same address if a proxy tells them apart itself.
    pub h2c: SocketAddr,
    /// TLS.
    pub tls: SocketAddr,
}

impl Entries {
    fn free() -> Self {
        Self {
            plain: free_address(),
            h2c: free_address(),
            tls: free_address(),
        }
    }
}

/// What starts a proxy.
#[derive(Debug)]
pub struct Recipe {
    /// What runs.
    pub program: PathBuf,
    /// Before the name of the configuration.
    pub args: Vec<String>,
    /// Its name in the proxy's folder.
    pub file: &'static str,
    /// What it says.
    pub config: String,
    /// Environment.
    pub env: Vec<(&'static str, String)>,
    /// Whether HTTP/2 in plain text comes in where HTTP/1.1 does.
    pub one_entry: bool,
    /// Words in its log that say that it is not what was asked for.
    pub refuses: &'static [&'static str],
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    name: &'static str,
    entries: Entries,
    folder: TempDir,
    file: PathBuf,
    program: PathBuf,
    daemon: Daemon,
}

impl Proxy {
    /// Starts every proxy that is there, ours first; returns why each of the rest is not.
    pub fn all(setup: &Setup<'_>) -> (Vec<Self>, Vec<String>) {
        Self::those(setup, |_| true)
    }

    /// Starts the proxies that `wanted` names; returns why each that is not there is not.
    pub fn those(setup: &Setup<'_>, wanted: impl Fn(&str) -> bool) -> (Vec<Self>, Vec<String>) {
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (name, make) in ALL.iter().filter(|(name, _)| wanted(name)) {
            match Self::start(name, *make, setup, &[]) {
                Ok(proxy) => there.push(proxy),
                Err(error) => missing.push(format!("{name}: {error:#}")),
            }
        }
        (there, missing)
    }

    /// Starts the proxy of that name under callgrind, which says what it counted in the log.
    ///
    /// # Errors
    /// It is not there, or does not come up.
    pub fn counted(name: &str, setup: &Setup<'_>) -> Result<Self> {
        let known = ALL.iter().find(|(known, _)| *known == name);
        let (name, make) = known.with_context(|| format!("there is no proxy `{name}`"))?;
        Self::start(name, *make, setup, CALLGRIND)
    }

    /// Starts the ingress with a configuration of the caller's, which may leave the entry by TLS
    /// out.
    ///
    /// # Errors
    /// It is not built, or does not come up.
    pub fn ballast(setup: &Setup<'_>, config: impl FnOnce(&Entries) -> String) -> Result<Self> {
        let entries = Entries::free();
        let recipe = Recipe {
            config: config(&entries),
            ..proxies::ballast_epoll(setup, &entries)?
        };
        Self::begin("ballast", entries, recipe, setup, &[])
    }

    fn start(name: &'static str, make: Make, setup: &Setup<'_>, under: &[&str]) -> Result<Self> {
        let entries = Entries::free();
        let recipe = make(setup, &entries)?;
        Self::begin(name, entries, recipe, setup, under)
    }

    fn begin(
        name: &'static str,
        mut entries: Entries,
        recipe: Recipe,
        setup: &Setup<'_>,
        under: &[&str],
    ) -> Result<Self> {
        if recipe.one_entry {
            entries.h2c = entries.plain;
        }
        if !recipe.config.contains(&entries.tls.port().to_string()) {
            entries.tls = entries.plain;
        }
        let folder = tempfile::tempdir().context("a folder")?;
        let file = folder.path().join(recipe.file);
        // What a proxy keeps beside its configuration is in its own folder.
        let config = recipe
            .config
            .replace("{folder}", &folder.path().display().to_string());
        std::fs::write(&file, config).context("its configuration")?;
        let mut words = under
            .iter()
            .map(OsStr::new)
            .chain([recipe.program.as_os_str()]);
        let first = words.next().context("a program")?;
        let mut command = child::command(first, setup.core);
        command.args(words).args(&recipe.args).arg(&file);
        command.envs(recipe.env.iter().map(|(name, value)| (name, value)));
        let daemon = spawn(&mut command, &folder.path().join("log"))?;
        let mut proxy = Self {
            name,
            entries,
            folder,
            file,
            program: recipe.program,
            daemon,
        };
        proxy.await_entries(recipe.refuses)?;
        Ok(proxy)
    }

    fn await_entries(&mut self, refuses: &[&str]) -> Result<()> {
        let began = Instant::now();
        let Entries { plain, h2c, tls } = self.entries;
        for address in [plain, h2c, tls] {
            while TcpStream::connect(address).is_err() {
                if self.daemon.ended().is_some() || began.elapsed() > DEADLINE {
                    // The folder is another each time, and what happened is the same.
                    let folder = self.folder.path().display().to_string();
                    let said = self.log().replace(&folder, "");
                    let mut lines = said.lines().rev();
                    let last = lines.find(|line| !line.is_empty() && !line.starts_with("=="));
                    bail!("it does not come up: {}", last.unwrap_or("it says nothing"));
                }
                std::thread::sleep(LOOK);
            }
        }
        let said = self.log();
        let refusal = said
            .lines()
            .find(|line| refuses.iter().any(|word| line.contains(word)));
        refusal.map_or(Ok(()), |line| bail!("it says: {line}"))
    }

    /// Returns its name, as figures have it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether it is ours.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("ballast")
    }

    /// Returns whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.daemon.ended().is_some()
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Returns where an entry is.
    pub fn address(&self, entry: Entry) -> SocketAddr {
        match entry {
            Entry::Plain => self.entries.plain,
            Entry::H2c => self.entries.h2c,
            Entry::Tls => self.entries.tls,
        }
    }

    /// Returns the URL of an entry.
    pub fn url(&self, entry: Entry) -> String {
        let scheme = if entry == Entry::Tls { "https" } else { "http" };
        format!("{scheme}://{}/", self.address(entry))
    }

    /// Returns the program that runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns where its configuration is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the folder that goes when it does.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns all that it has written to its standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Returns the CPU time that it has used.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        child::cpu(self.pid()).with_context(|| self.has_ended())
    }

    /// Returns the memory that is its own, without files: bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn own_bytes(&self) -> Result<u64> {
        child::own_bytes(self.pid()).with_context(|| self.has_ended())
    }

    fn has_ended(&self) -> String {
        let mut text = format!("{} has ended", self.name);
        if let Some(line) = self.log().lines().last() {
            let _ = write!(text, ": {line}");
        }
        text
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Daemon> {
    let output = std::fs::File::create(log).context("its log")?;
    Daemon::start(command, output)
}
