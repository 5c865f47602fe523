//! TCP echo and TCP connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_loadgen::ErrorClass;
use ballast_loadgen::control::Control;
use ballast_loadgen::plan::{Churn, Pacing, Protocol, Think};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{
    Count, drivers, errors, nobody, none, only, plan, run, run_with, server, with_body,
};

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.ok();
}

/// Sends back `size` bytes at a time.
async fn echo_messages(
    mut stream: TcpStream,
    size: usize,
    mut change: impl FnMut(&mut [u8]) -> bool,
) {
    let mut message = vec![0; size];
    while stream.read_exact(&mut message).await.is_ok() {
        if !change(&mut message) || stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

#[test]
fn every_echo_comes_back_whatever_its_size() {
    let address = server(echo);
    for driver in drivers() {
        for size in [1, 100, 16 * 1024, 16 * 1024 + 1, 3_000_000] {
            let plan = with_body(
                plan(&format!("tcp://{address}"), 200.0, 20),
                &"x".repeat(size),
            );
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none(), "{driver:?} {size}");
            let counts = recorder.counts();
            assert_eq!(counts.done, 20);
            assert_eq!(counts.received_bytes, 20 * size as u64);
            assert_eq!(counts.sent_bytes, 20 * size as u64);
            assert_eq!(counts.opened, 4);
        }
    }
}

/// The kernel registers 1,024 buffers: the 513th socket has others.
#[test]
fn sockets_past_the_registered_buffers_echo_too() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const SOCKETS: u64 = 600;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        eprintln!("SKIP: the limit of descriptors cannot be raised");
        return;
    }
    let address = server(echo);
    for driver in drivers() {
        let mut plan = plan(&format!("tcp://{address}"), 3000.0, SOCKETS * 2);
        plan.connections = usize::try_from(SOCKETS).expect("fits");
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none(), "{driver:?}");
        assert_eq!(recorder.counts().opened, SOCKETS);
    }
}

#[test]
fn targets_share_requests_and_connections_by_weight() {
    let (light, heavy) = (server(echo), server(echo));
    for driver in drivers() {
        let mut plan = plan(&format!("tcp://{light}"), 500.0, 200);
        let mut second = plan.targets[0].clone();
        second.addresses = vec![heavy];
        second.weight = 3;
        plan.targets.push(second);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        assert_eq!(recorder.counts().opened, 4, "one and three");
        let [light, heavy] = [0, 1].map(|target| recorder.targets()[target].done);
        assert_eq!(light + heavy, 200);
        assert!((25..=75).contains(&light), "{driver:?}: {light}");
    }
}

#[test]
fn closed_loop_asks_until_its_end_and_thinks_in_between() {
    let address = server(echo);
    for driver in drivers() {
        let mut plan = plan(&format!("tcp://{address}"), 1.0, 1);
        plan.duration = Duration::from_millis(300);
        plan.pacing = Pacing::Closed { think: Think::None };
        let busy = run(driver, &plan);
        assert_eq!(errors(&busy), none());
        assert!(busy.counts().done > 100, "{}", busy.counts().done);
        // 4 connections × 300 ms ÷ 10 ms.
        plan.pacing = Pacing::Closed {
            think: Think::Constant(Duration::from_millis(10)),
        };
        let thinking = run(driver, &plan);
        assert_eq!(errors(&thinking), none());
        let done = thinking.counts().done;
        assert!((4..=124).contains(&done), "{done}");
    }
}

#[test]
fn changed_echo_fails_its_check_and_costs_the_connection() {
    for driver in drivers() {
        let seen = Count::default();
        let count = seen.clone();
        let address = server(move |stream| {
            let count = count.clone();
            echo_messages(stream, 16, move |message| {
                if count.up() % 5 == 4 {
                    message[7] ^= 1;
                }
                true
            })
        });
        let recorder = run(driver, &plan(&format!("tcp://{address}"), 500.0, 100));
        assert_eq!(errors(&recorder), only(ErrorClass::Check, 20), "{driver:?}");
        assert_eq!(seen.get(), 100, "each request was sent once");
        assert!(recorder.counts().opened > 4);
    }
}

#[test]
fn connection_that_ends_instead_of_answering_is_reset() {
    for driver in drivers() {
        let seen = Count::default();
        let count = seen.clone();
        let address = server(move |stream| {
            let count = count.clone();
            echo_messages(stream, 16, move |_| count.up() % 4 != 3)
        });
        let recorder = run(driver, &plan(&format!("tcp://{address}"), 500.0, 100));
        assert_eq!(errors(&recorder), only(ErrorClass::Reset, 25), "{driver:?}");
        assert_eq!(seen.get(), 100);
    }
}

#[test]
fn idle_connection_that_its_peer_closes_is_replaced_without_an_error() {
    for driver in drivers() {
        let address = server(|mut stream| async move {
            let mut message = [0; 16];
            if stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await.ok();
            }
        });
        let mut plan = plan(&format!("tcp://{address}"), 20.0, 10);
        plan.connections = 1;
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none(), "{driver:?}");
        assert_eq!(recorder.counts().opened, 10, "a connection each");
    }
}

#[test]
fn port_without_a_listener_refuses_every_request() {
    let address = nobody();
    for driver in drivers() {
        for protocol in [Protocol::TcpEcho, Protocol::TcpConnect] {
            let mut plan = plan(&format!("tcp://{address}"), 500.0, 50);
            plan.protocol = protocol;
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), only(ErrorClass::Refused, 50));
            assert_eq!(recorder.counts().opened, 0);
            // A closed loop does not ask as fast as it can.
            plan.pacing = Pacing::Closed { think: Think::None };
            let recorder = run(driver, &plan);
            let done = recorder.counts().done;
            assert_eq!(errors(&recorder), only(ErrorClass::Refused, done));
            assert!(done <= 4 * 11, "{done}");
        }
    }
}

/// A read that nobody answers must not keep its descriptor: tokio-uring would.
#[test]
fn mute_server_times_out_and_its_connections_are_closed() {
    for driver in drivers() {
        let (open, most) = (Count::default(), Count::default());
        let (now, peak) = (open.clone(), most.clone());
        let address = server(move |mut stream| {
            let (now, peak) = (now.clone(), peak.clone());
            async move {
                peak.max(now.up() + 1);
                let mut sink = [0; 1024];
                while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
                now.down();
            }
        });
        let mut plan = plan(&format!("tcp://{address}"), 200.0, 80);
        plan.timeouts.request = Duration::from_millis(30);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), only(ErrorClass::Timeout, 80));
        assert!(recorder.counts().opened >= 8);
        assert!(most.get() <= 12, "{driver:?}: {} open at once", most.get());
    }
}

#[test]
fn what_waits_for_a_connection_too_long_times_out_with_those_in_flight() {
    let mute = server(|mut stream| async move {
        while stream
            .read(&mut [0; 1024])
            .await
            .is_ok_and(|count| count > 0)
        {}
    });
    for driver in drivers() {
        let mut plan = plan(&format!("tcp://{mute}"), 1000.0, 500);
        plan.connections = 1;
        plan.timeouts.request = Duration::from_millis(200);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), only(ErrorClass::Timeout, 500));
        // One after the other they would take 100 s.
        assert!(recorder.last_done_ns() < 20_000_000_000, "{driver:?}");
    }
}

#[test]
fn connections_are_opened_and_closed_one_for_each_request() {
    for driver in drivers() {
        for reset in [false, true] {
            let (fins, rsts) = (Count::default(), Count::default());
            let (fin, rst) = (fins.clone(), rsts.clone());
            let address = server(move |mut stream| {
                let (fin, rst) = (fin.clone(), rst.clone());
                async move {
                    match stream.read(&mut [0; 1]).await {
                        Ok(_) => fin.up(),
                        Err(_) => rst.up(),
                    };
                }
            });
            let mut plan = plan(&format!("tcp://{address}"), 500.0, 100);
            plan.protocol = Protocol::TcpConnect;
            plan.churn.reset = reset;
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none());
            assert_eq!(recorder.counts().opened, 100);
            let deadline = Instant::now() + Duration::from_secs(20);
            while fins.get() + rsts.get() < 100 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let expected = if reset { (0, 100) } else { (100, 0) };
            assert_eq!((fins.get(), rsts.get()), expected, "{driver:?}");
        }
    }
}

#[test]
fn churn_renews_connections_by_requests_and_by_time() {
    let address = server(echo);
    for driver in drivers() {
        for reset in [false, true] {
            let mut plan = plan(&format!("tcp://{address}"), 500.0, 100);
            plan.connections = 1;
            plan.churn = Churn {
                requests_per_connection: Some(10),
                reset,
                ..Churn::default()
            };
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none());
            assert_eq!(recorder.counts().opened, 10, "{driver:?}");
        }
        let mut plan = plan(&format!("tcp://{address}"), 500.0, 200);
        plan.connections = 2;
        plan.churn.connections_per_second = Some(50.0);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        let opened = recorder.counts().opened;
        assert!((5..=22).contains(&opened), "{driver:?}: {opened}");
    }
}

#[test]
fn stop_ends_a_run_and_abort_gives_up_what_is_in_flight() {
    let mute = server(|mut stream| async move {
        while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
    });
    let address = server(echo);
    for driver in drivers() {
        let mut endless = plan(&format!("tcp://{address}"), 1000.0, 1000);
        endless.duration = Duration::from_hours(1);
        for closed in [false, true] {
            if closed {
                endless.pacing = Pacing::Closed {
                    think: Think::Constant(Duration::from_secs(1000)),
                };
            }
            let control = Arc::new(Control::default());
            let stopper = control.clone();
            let stop = std::thread::spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(30);
                while stopper.done() < 4 && Instant::now() < deadline {
                    std::thread::yield_now();
                }
                stopper.stop();
            });
            let recorder = run_with(driver, &endless, &control);
            stop.join().expect("stops");
            assert_eq!(errors(&recorder), none());
            assert_eq!(control.done(), recorder.counts().done, "all are told of");
        }
        let mut stuck = plan(&format!("tcp://{mute}"), 1000.0, 1000);
        stuck.timeouts.request = Duration::from_hours(1);
        let control = Arc::new(Control::default());
        control.abort();
        let recorder = run_with(driver, &stuck, &control);
        assert_eq!(recorder.counts().done, 0, "given up, not counted");
    }
}
