//! UDP echo.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::{Pacing, Think};

use crate::rig::{Count, drivers, errors, none, only, plan, run, with_body};

/// Answers each datagram with what `answer` makes of it, if anything.
fn server(mut answer: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = socket.local_addr().expect("has an address");
    std::thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        while let Ok((count, from)) = socket.recv_from(&mut datagram) {
            answer(&socket, &datagram[..count], from);
        }
    });
    address
}

fn back(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    socket.send_to(datagram, to).expect("sends");
}

#[test]
fn every_datagram_comes_back_to_its_request() {
    let address = server(back);
    for driver in drivers() {
        let plan = with_body(
            plan(&format!("udp://{address}"), 500.0, 100),
            "{{letters:100}}",
        );
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        assert_eq!(recorder.counts().received_bytes, 100 * 108);
        let mut closed = plan.clone();
        closed.duration = Duration::from_millis(200);
        closed.pacing = Pacing::Closed { think: Think::None };
        let recorder = run(driver, &closed);
        assert_eq!(errors(&recorder), none());
        assert!(recorder.counts().done > 50);
    }
}

#[test]
fn lost_datagrams_time_out_and_keep_nobody_waiting() {
    for driver in drivers() {
        let mut seen = 0;
        let address = server(move |socket, datagram, from| {
            seen += 1;
            if seen % 10 != 0 {
                back(socket, datagram, from);
            }
        });
        let mut plan = plan(&format!("udp://{address}"), 500.0, 200);
        plan.connections = 1;
        plan.timeouts.request = Duration::from_millis(1500);
        let recorder = run(driver, &plan);
        assert_eq!(
            errors(&recorder),
            only(ErrorClass::Timeout, 20),
            "{driver:?}"
        );
        assert_eq!(recorder.counts().late, 0);
        // One connection, twenty losses: had each been waited for, it would have taken 30 s.
        assert!(recorder.last_done_ns() < 15_000_000_000);
    }
}

#[test]
fn answers_after_the_timeout_are_late_and_strays_are_nothing() {
    for driver in drivers() {
        let mut held = Vec::new();
        let address = server(move |socket, datagram, from| {
            socket.send_to(b"stray", from).expect("sends");
            socket.send_to(b"", from).expect("sends");
            back(socket, &[0xff; 20], from);
            held.push(datagram.to_vec());
            // The last one of all sets the others free; they have timed out by then.
            if held.len() == 20 {
                held.drain(..).for_each(|one| back(socket, &one, from));
            }
        });
        let mut plan = plan(&format!("udp://{address}"), 40.0, 20);
        plan.connections = 1;
        plan.timeouts.request = Duration::from_millis(100);
        let recorder = run(driver, &plan);
        let timeouts = errors(&recorder)[&ErrorClass::Timeout];
        assert!((10..=20).contains(&timeouts), "{driver:?}: {timeouts}");
        assert_eq!(recorder.counts().late, timeouts);
    }
}

#[test]
fn changed_datagram_fails_its_check() {
    let count = Count::default();
    let address = server(move |socket, datagram, from| {
        let mut changed = datagram.to_vec();
        if count.up() % 4 == 0 {
            changed.push(b'!');
        }
        back(socket, &changed, from);
    });
    for driver in drivers() {
        let recorder = run(driver, &plan(&format!("udp://{address}"), 500.0, 100));
        assert_eq!(errors(&recorder), only(ErrorClass::Check, 25));
    }
}

#[test]
fn port_without_a_listener_refuses() {
    let address = ballast_test_ports::free_address();
    for driver in drivers() {
        let mut plan = plan(&format!("udp://{address}"), 200.0, 40);
        plan.timeouts.request = Duration::from_secs(5);
        let recorder = run(driver, &plan);
        assert_eq!(
            errors(&recorder),
            only(ErrorClass::Refused, 40),
            "{driver:?}"
        );
    }
}
