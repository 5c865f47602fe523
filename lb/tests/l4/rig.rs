//! Hosts made of network namespaces on one segment, and threads that live in them.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use ballast_ebpf_loader::{Attached, Mode, Program, Programs, Sizes, bpffs, leave_no_checksums};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Larger than what clients send, for what is put around it.
const MTU: &str = "1600";
static RIGS: AtomicU32 = AtomicU32::new(0);

/// Says why these tests cannot run here, if so.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if let Err(error) = ballast_ebpf_loader::requirements() {
        return Some(error.to_string());
    }
    let made = Command::new("ip").args(["-V"]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return Some("needs ip (iproute2)".to_owned());
    }
    None
}

/// Returns how many flows this process may have, both of whose ends are its own.
pub fn flows_max() -> usize {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(1_000) / 2).unwrap_or(usize::MAX)
}

/// Hosts on one segment. Each has `10.77.0.N` and `fd77::N` on `eth0`.
pub struct Rig {
    prefix: String,
    hosts: Vec<&'static str>,
    pub bpf: PathBuf,
    /// What passes everything at the other ends, for as long as it lives.
    pass: Vec<(Programs, Vec<Attached>)>,
}

impl Rig {
    pub fn new(hosts: &[&'static str]) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("anybody may up to the hard limit");
        let number = RIGS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("bl{}-{number}-", std::process::id());
        let bpf = std::env::temp_dir().join(format!("{prefix}bpf"));
        let bpf = bpffs::folder(Some(&bpf)).expect("root may mount");
        let mut rig = Self {
            prefix,
            hosts: hosts.to_vec(),
            bpf,
            pass: Vec::new(),
        };
        rig.make();
        rig
    }

    fn make(&mut self) {
        let switch = self.name("sw");
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "mtu", MTU, "up"]);
        for (at, host) in self.hosts.clone().into_iter().enumerate() {
            let name = self.name(host);
            ip(&["netns", "add", &name]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            ip(&[
                "-n", &name, "link", "add", "eth0", "mtu", MTU, "type", "veth", "peer", "name",
                host, "netns", &switch, "mtu", MTU,
            ]);
            ip(&["-n", &switch, "link", "set", host, "master", "br0", "up"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
            let four = format!("10.77.0.{}/24", at + 1);
            ip(&["-n", &name, "addr", "add", &four, "dev", "eth0"]);
            let six = format!("fd77::{}/64", at + 1);
            ip(&["-n", &name, "addr", "add", &six, "dev", "eth0", "nodad"]);
            self.within(host, || leave_no_checksums("eth0").expect("a veth can"))
                .join()
                .expect("it ran");
        }
        let hosts = self.hosts.clone();
        let pass = self.bpf.join("pass");
        std::fs::create_dir_all(&pass).expect("a bpffs has folders");
        let pass = self.within("sw", move || {
            let mut programs = Programs::load(&pass, Sizes::node()).expect("the object loads");
            let attached = hosts
                .iter()
                .map(|host| {
                    leave_no_checksums(host).expect("a veth can");
                    programs
                        .attach(Program::Pass, host, Mode::Native)
                        .expect("a veth runs XDP")
                })
                .collect();
            (programs, attached)
        });
        self.pass.push(pass.join().expect("it ran"));
    }

    fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// Returns the address of a host.
    pub fn address(&self, host: &str, v4: bool) -> IpAddr {
        let at = self.hosts.iter().position(|known| *known == host);
        let at = at.expect("the host is in the rig") + 1;
        let text = if v4 {
            format!("10.77.0.{at}")
        } else {
            format!("fd77::{at}")
        };
        text.parse().expect("an address")
    }

    /// Runs `ip` in a host.
    pub fn ip(&self, host: &str, args: &[&str]) {
        let name = self.name(host);
        ip(&[&["-n", &name], args].concat());
    }

    /// Gives a host a service's address, and lets it take packets that come decapsulated.
    pub fn serve(&self, host: &str, vip: &str) {
        self.ip(host, &["addr", "add", vip, "dev", "lo"]);
        self.within(host, || {
            for name in ["all", "eth0"] {
                let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
                std::fs::write(path, "0").expect("root may");
            }
        })
        .join()
        .expect("it ran");
    }

    /// Runs a thread in a host.
    pub fn within<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = Path::new("/run/netns").join(self.name(host));
        std::thread::spawn(move || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let space = rustix::fs::open(&path, flags, FileMode::empty()).expect("it was made");
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(space.as_fd(), network).expect("root may");
            work()
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.pass.clear();
        for host in self.hosts.iter().chain(&["sw"]) {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(host)])
                .status();
        }
        let _ = rustix::mount::unmount(&self.bpf, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.bpf);
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip is there");
    assert!(status.success(), "ip {}", args.join(" "));
}
