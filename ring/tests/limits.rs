//! What happens when descriptors, ports or locked memory run out.
//!
//! Limits are the process's, so each test runs itself again as a child that has the lower one.

mod common;

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;

use ballast_ring::{Backend, ConnectOptions, IoError, Options, Ring, RingError};
use common::{DEADLINE, Event, Log, connect, listener, ring, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in children.
const CHILD: &str = "BALLAST_RING_LIMITED";

/// Returns whether this is the child; otherwise runs it, and passes on how it fares.
fn is_child(name: &str) -> bool {
    is_child_of("exec \"$@\"", name)
}

/// As [`is_child`]; `shell` sets the scene, and executes its arguments.
fn is_child_of(shell: &str, name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", shell, "sh"])
        .arg(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    let fine = output.status.success() && (text.contains("1 passed") || text.contains("SKIP"));
    assert!(fine, "{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn limit(resource: Resource, to: u64) {
    let maximum = getrlimit(resource).maximum;
    let limit = Rlimit {
        current: Some(to),
        maximum,
    };
    setrlimit(resource, limit).expect("limits may be lowered");
}

/// Leaves so many descriptors to be opened.
fn descriptors_left(count: usize) {
    limit(Resource::Nofile, 100);
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - count);
    // They stay open.
    std::mem::forget(files);
}

fn driver(name: &str) -> Options {
    let backend = match name.split_once("::") {
        Some(("io_uring", _)) => Backend::IoUring,
        _ => Backend::Epoll,
    };
    common::options(backend)
}

macro_rules! limited {
    ($(fn $name:ident($options:ident) $body:block)*) => {
        mod epoll {
            use super::*;
            $(#[test] fn $name() {
                let name = concat!("epoll::", stringify!($name));
                if is_child(name) {
                    let $options = driver(name);
                    $body
                }
            })*
        }
        mod io_uring {
            use super::*;
            $(#[test] fn $name() {
                let name = concat!("io_uring::", stringify!($name));
                let $options = driver(name);
                if !common::skipped(&$options) && is_child(name) {
                    $body
                }
            })*
        }
    };
}

limited! {
    fn listener_without_descriptors_says_so_and_goes_on(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let token = ring.io().listen(listener).expect("a slot");
        let mut clients: Vec<TcpStream> =
            (0..5).map(|_| TcpStream::connect(address).expect("connects")).collect();
        descriptors_left(2);
        until(&mut ring, &mut log, |_, log| {
            log.count(|event| matches!(event, Event::AcceptFailed(..))) > 1
        });
        let Some(Event::AcceptFailed(of, error)) =
            log.events.iter().find(|event| matches!(event, Event::AcceptFailed(..)))
        else {
            unreachable!("just counted");
        };
        assert_eq!(*of, token);
        assert_eq!(error.raw_os_error(), Some(24), "too many open files");
        assert_eq!(log.connections().len(), 2);
        let mut served = 0;
        while served < 5 {
            until(&mut ring, &mut log, |_, log| log.connections().len() > served);
            let socket = log.connections()[served];
            assert!(ring.io().send(socket, b"served"));
            until(&mut ring, &mut log, |io, _| io.unsent(socket) == 0);
            ring.io().close(socket);
            served += 1;
        }
        drop(ring);
        for client in &mut clients {
            client.set_read_timeout(Some(DEADLINE)).expect("a socket");
            let mut all = String::new();
            client.read_to_string(&mut all).expect("ends");
            assert_eq!(all, "served");
        }
    }

    fn connect_without_descriptors_says_so_at_once(options) {
        let mut ring = ring(&options);
        let mut log = Log::default();
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        descriptors_left(2);
        let first = connect(&mut ring, address);
        let _second = connect(&mut ring, address);
        let third = ring.io().connect(address, &ConnectOptions::default());
        assert!(matches!(third, Err(IoError::Descriptors(_))), "{third:?}");
        assert_eq!(ring.io().sockets(), 2);
        until(&mut ring, &mut log, |_, log| log.connection(first) == Some(Ok(())));
        ring.io().close(first);
        until(&mut ring, &mut log, |io, _| io.connect(address, &ConnectOptions::default()).is_ok());
    }

    fn ring_without_descriptors_says_so(options) {
        descriptors_left(1);
        assert!(matches!(Ring::new(&options), Err(RingError::Descriptors { .. })));
    }
}

#[test]
fn connect_without_ports_says_so_at_once() {
    // A network of its own with four ports.
    let shell = "unshare -n sh -c 'ip link set lo up && \
        echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"' sh \"$@\" \
        || { test $? -eq 101 && exit 101; echo SKIP: no network of its own without root; }";
    if !is_child_of(shell, "connect_without_ports_says_so_at_once") {
        return;
    }
    let mut ring = ring(&common::options(Backend::Epoll));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 1234)).expect("a port");
    let address = listener.local_addr().expect("bound");
    for source in [None, Some(Ipv4Addr::new(127, 0, 0, 9).into())] {
        let options = ConnectOptions {
            source,
            ..ConnectOptions::default()
        };
        for _ in 0..4 {
            ring.io()
                .connect(address, &options)
                .expect("a port is left");
        }
        let refused = ring.io().connect(address, &options);
        assert!(matches!(refused, Err(IoError::Ports(_))), "{refused:?}");
    }
    assert_eq!(ring.io().sockets(), 8);
}

#[test]
fn auto_falls_back_and_says_why() {
    let name = "auto_falls_back_and_says_why";
    if !is_child(name) {
        return;
    }
    // More memory than there can be locked, for anybody who is not root; root is not limited.
    limit(Resource::Memlock, 0);
    let options = Options {
        backend: Backend::Auto,
        ..Options::default()
    };
    let ring = Ring::new(&options).expect("epoll is always to be had");
    match ring.backend() {
        Backend::Epoll => assert!(ring.fallback().is_some()),
        _ => assert!(ring.fallback().is_none()),
    }
}
