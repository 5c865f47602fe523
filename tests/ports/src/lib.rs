//! Ports on loopback for tests, each given to one test process at a time.
//!
//! To bind port 0, note the number and close the socket is no way to get a port: until it is bound
//! again, the kernel gives it to the next who asks, to an outgoing connection or to a test that
//! runs beside, and sockets with `SO_REUSEPORT` then share their connections without an error.
//!
//! Here a port is a locked file: whoever holds the lock owns the port for the life of the process,
//! and the kernel takes the lock back however that ends. The numbers are below those that the
//! kernel gives to outgoing connections.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;

/// The first port that is given, above what services have by custom.
const FIRST: u16 = 12_000;
/// One more than the last: Linux gives ports from 32,768 on to outgoing connections, and tests of
/// agents let tasks have those from 20,000 on.
const END: u16 = 20_000;

/// The locks that this process holds, until it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
/// How many ports this process has looked at.
static LOOKED: AtomicU16 = AtomicU16::new(0);

/// Returns an address on loopback where nobody listens, over TCP or UDP, and that no other test
/// process gets before this one ends.
///
/// # Panics
/// If all ports are taken, or files cannot be locked in the folder for temporary ones.
pub fn free_address() -> SocketAddr {
    let folder = std::env::temp_dir().join("ballast-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder for locks can be made");
    // Each process begins somewhere else, so that few look at the same file.
    let begin = std::process::id().wrapping_mul(61);
    for _ in FIRST..END {
        let nth = u32::from(LOOKED.fetch_add(1, Ordering::Relaxed));
        let offset = begin.wrapping_add(nth) % u32::from(END - FIRST);
        let port = FIRST + u16::try_from(offset).expect("less than a port");
        let Some(lock) = lock(folder.join(port.to_string())) else {
            continue;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if nobody_listens(address) {
            let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
            held.push(lock);
            return address;
        }
    }
    panic!("no port from {FIRST} to {END} is free for a test");
}

fn nobody_listens(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// Locks a file, unless somebody else has.
fn lock(path: PathBuf) -> Option<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        // Whoever runs tests after us may lock it, too.
        .mode(0o666)
        .open(path)
        .expect("a lock can be opened");
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_those_of_others_are_not_given() {
        let mut given: Vec<SocketAddr> = (0..50).map(|_| free_address()).collect();
        for address in &given {
            let path = std::env::temp_dir()
                .join("ballast-test-ports")
                .join(address.port().to_string());
            // A second description of the file stands for another process.
            assert!(lock(path).is_none(), "{address}");
        }
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 50);
    }

    #[test]
    fn somebody_who_listens_is_seen_over_tcp_and_udp() {
        let (tcp, udp) = (free_address(), free_address());
        assert!(nobody_listens(tcp) && nobody_listens(udp));
        let _listener = TcpListener::bind(tcp).expect("it is free");
        let _socket = UdpSocket::bind(udp).expect("it is free");
        assert!(!nobody_listens(tcp) && !nobody_listens(udp));
    }
}
