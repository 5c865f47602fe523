//! A client, one or two balancers, reals; and what goes between them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ballast_ebpf_common::layout::{Address, Config, decap_flag, flag};
use ballast_ebpf_loader::{Attached, Mode, Program, Programs, Sizes};
use ballast_lb::RawConfig;
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

/// The longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The service's port.
pub const PORT: u16 = 8080;
/// Between two looks whether a server is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Says that a server is to tell its name.
const WHO: u8 = b'?';

/// Everything on one segment.
pub struct World {
    pub v4: bool,
    pub vip: IpAddr,
    _reals: Vec<RealHost>,
    pub rig: Arc<Rig>,
}

/// A host with servers and a decapsulator.
struct RealHost {
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
    _decap: (Programs, Attached),
}

impl Drop for RealHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
    }
}

/// A running ingress.
pub struct Running {
    stop: CancellationToken,
    /// Lets the process's runtime go down without a word.
    kill: mpsc::Sender<()>,
    thread: JoinHandle<()>,
    pub file: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Ends it in order, or as a crash does.
    pub fn stop(self, in_order: bool) {
        if in_order {
            self.stop.cancel();
        } else {
            let _ = self.kill.send(());
        }
        self.thread.join().expect("it ran");
    }
}

impl World {
    pub fn new(v4: bool, reals: &[&'static str]) -> Self {
        let hosts: Vec<&'static str> = ["c", "lb", "lb2"].iter().chain(reals).copied().collect();
        let rig = Arc::new(Rig::new(&hosts));
        let vip: IpAddr = if v4 {
            "10.99.0.100".parse().expect("an address")
        } else {
            "fd99::100".parse().expect("an address")
        };
        let world = Self {
            v4,
            vip,
            _reals: reals
                .iter()
                .map(|real| real_host(&rig, real, vip))
                .collect(),
            rig,
        };
        world.route("lb");
        world
    }

    /// Sends what the client has for the service to a balancer.
    pub fn route(&self, balancer: &str) {
        let to = self.rig.address(balancer, self.v4).to_string();
        let vip = self.vip.to_string();
        self.rig
            .ip("c", &["route", "replace", &vip, "via", &to, "mtu", "1500"]);
    }

    /// Returns a balancer's file.
    pub fn config(&self, mode: &str, protocol: &str, reals: &[&str], rest: &str) -> String {
        let (mode, encapsulation) = match mode {
            "dsr-gue" => ("dsr", "encapsulation: gue, "),
            other => (other, ""),
        };
        let reals: Vec<String> = reals
            .iter()
            .map(|real| match real.split_once('=') {
                Some((real, weight)) => (real, weight),
                None => (*real, "1"),
            })
            .map(|(real, weight)| {
                let address = self.rig.address(real, self.v4);
                format!("{{ address: \"{address}\", weight: {weight} }}")
            })
            .collect();
        format!(
            "services: {{}}\nadmin: off\nxdp: {{ run: kernel, pin: PIN, attach: native, \
             key: \"000102030405060708090a0b0c0d0e0f\" }}\nl4:\n  - {{ vip: \"{}\", port: {PORT}, \
             protocol: {protocol}, mode: {mode}, {encapsulation}interface: eth0, {rest}\
             check: {{ interval: 10ms, timeout: 1s }}, reals: [{}] }}\n",
            self.vip,
            reals.join(", ")
        )
    }

    /// Starts an ingress on a host, and waits until it has attached its program.
    pub fn balancer(&self, host: &str, config: &str) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("lb.yaml");
        self.start(host, config, folder, file)
    }

    /// Writes a file for a running ingress.
    pub fn write(&self, host: &str, file: &std::path::Path, config: &str) {
        let pin = self.rig.bpf.join(host);
        let config = config.replace("PIN", &pin.display().to_string());
        let temporary = file.with_extension("new");
        std::fs::write(&temporary, config).expect("written");
        std::fs::rename(temporary, file).expect("renamed");
    }

    fn start(
        &self,
        host: &str,
        config: &str,
        folder: tempfile::TempDir,
        file: std::path::PathBuf,
    ) -> Running {
        self.write(host, &file, config);
        let stop = CancellationToken::new();
        let (kill, killed) = mpsc::channel();
        let path = file.clone();
        let token = stop.clone();
        let thread = self.rig.within(host, move || {
            let config = RawConfig::from_file(&path).and_then(RawConfig::validate);
            let config = config.expect("the file is right");
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime");
            let ended = runtime.spawn(ballast_lb::run(config, token));
            loop {
                if ended.is_finished() {
                    let ended = runtime.block_on(ended).expect("no panic");
                    ended.expect("the balancer starts");
                    break;
                }
                if killed.recv_timeout(Duration::from_millis(5)).is_ok() {
                    break;
                }
            }
            runtime.shutdown_background();
        });
        let link = self.rig.bpf.join(host).join("link-eth0");
        wait("the program is attached", || {
            link.exists() || thread.is_finished()
        });
        assert!(link.exists(), "the balancer has ended");
        Running {
            stop,
            kill,
            thread,
            file,
            _folder: folder,
        }
    }

    /// Waits until a balancer's maps have that many reals that take new flows, and that many slots
    /// of rings that are somebody's.
    pub fn wait_active(&self, host: &str, active: usize) {
        let path = self.rig.bpf.join(host).join("BACKENDS");
        wait("the reals are what they are to be", || {
            ballast_ebpf_loader::pinned_backends(&path).is_ok_and(|backends| {
                let active_now = backends
                    .iter()
                    .filter(|backend| backend.state == ballast_ebpf_common::layout::state::ACTIVE);
                active_now.count() == active
            })
        });
    }

    /// Runs something in the client.
    pub fn client<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.rig.within("c", work).join().expect("it ran")
    }

    /// Returns where clients connect to.
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.vip, PORT)
    }

    /// Returns the names of all who answered `count` connections.
    pub fn names_seen(&self, count: usize) -> Vec<String> {
        let service = self.service();
        self.client(move || {
            let mut seen = BTreeSet::new();
            for _ in 0..count {
                let mut flow = connect(service);
                seen.insert(who(&mut flow).expect("a real answers"));
            }
            seen.into_iter().collect()
        })
    }
}

/// Connects, trying again until the deadline: a service that has just come may take a moment.
pub fn connect(service: SocketAddr) -> TcpStream {
    let until = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect_timeout(&service, Duration::from_secs(2)) {
            Ok(flow) => {
                flow.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                return flow;
            }
            Err(error) => assert!(Instant::now() < until, "{service}: {error}"),
        }
    }
}

/// Asks who answers on a connection.
pub fn who(flow: &mut TcpStream) -> std::io::Result<String> {
    flow.write_all(&[WHO])?;
    let mut name = [0; 8];
    flow.read_exact(&mut name)?;
    Ok(String::from_utf8_lossy(&name).trim().to_owned())
}

/// Waits for a condition.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn real_host(rig: &Arc<Rig>, host: &'static str, vip: IpAddr) -> RealHost {
    let prefix = if vip.is_ipv4() { 32 } else { 128 };
    rig.serve(host, &format!("{vip}/{prefix}"));
    let folder = rig.bpf.join(host);
    std::fs::create_dir_all(&folder).expect("a bpffs has folders");
    let own = [rig.address(host, true), rig.address(host, false)];
    let decap = rig.within(host, move || {
        let mut programs = Programs::load(&folder, Sizes::node()).expect("the object loads");
        let flags = decap_flag::IPIP | decap_flag::GUE | decap_flag::CHAIN;
        let addresses = own.map(|address| (Address::from(address), flags));
        programs.maps.set_decap(&addresses).expect("room");
        let mut config = Config::new([1, 2]);
        config.flags = flag::ENABLED | flag::DECAP;
        config.flow_mask = 1;
        config.nat_mask = 1;
        programs.maps.config.store(0, config);
        let attached = programs.attach(Program::Decap, "eth0", Mode::Native);
        let attached = attached.expect("a veth runs XDP");
        (programs, attached)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let tcp = {
        let stop = Arc::clone(&stop);
        rig.within(host, move || serve_tcp(host, vip, &stop))
    };
    let udp = {
        let stop = Arc::clone(&stop);
        rig.within(host, move || serve_udp(host, vip, &stop))
    };
    RealHost {
        stop,
        servers: vec![tcp, udp],
        _decap: decap.join().expect("it ran"),
    }
}

/// Answers a question mark with the host's name and echoes all else.
fn serve_tcp(host: &'static str, vip: IpAddr, stop: &AtomicBool) {
    let any: IpAddr = if vip.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((any, PORT)).await;
        let listener = listener.expect("a port of a host of its own");
        while !stop.load(Ordering::Relaxed) {
            let accepted = tokio::time::timeout(LOOK, listener.accept()).await;
            if let Ok(Ok((flow, _))) = accepted {
                tokio::spawn(answer(host, flow));
            }
        }
    });
}

async fn answer(host: &'static str, mut flow: tokio::net::TcpStream) {
    use tokio::io::AsyncWriteExt as _;
    // Read without a buffer of its own: there may be ten thousand.
    while flow.readable().await.is_ok() {
        let mut bytes = [0; 16 * 1024];
        let read = match flow.try_read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        let done = if bytes[..read] == [WHO] {
            flow.write_all(format!("{host:8}").as_bytes()).await
        } else {
            flow.write_all(&bytes[..read]).await
        };
        if done.is_err() {
            break;
        }
    }
}

/// Answers each datagram with the host's name.
fn serve_udp(host: &'static str, vip: IpAddr, stop: &AtomicBool) {
    // Bound to the service's address: answers must come from there.
    let socket = UdpSocket::bind((vip, PORT)).expect("a port of a host of its own");
    socket.set_read_timeout(Some(LOOK)).expect("it can");
    let mut datagram = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(host.as_bytes(), from);
        }
    }
}
