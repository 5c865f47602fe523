//! The hot engine against servers that do what servers must not, on both of its backends.
//!
//! Each request is accounted for exactly once, with the right class, and the run ends.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::{EngineChoice, Plan};
use ballast_loadgen::run::{Outcome, start};

/// Requests of one run.
const REQUESTS: u64 = 60;
/// For a run to end, on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_mins(1);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers each request on a thread per connection, through `answer`, which says whether to go on.
fn server(answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("accepts"), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("clones"));
                while read_head(&mut reader) {
                    if !answer(&mut stream) {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn read_head(reader: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line.trim_end().is_empty() => return true,
            Ok(_) => {}
        }
    }
}

fn says(text: impl Into<Vec<u8>>) -> impl Fn(&mut TcpStream) -> bool {
    let text = text.into();
    move |stream: &mut TcpStream| stream.write_all(&text).is_ok()
}

fn plan(address: SocketAddr, engine: EngineChoice) -> Plan {
    let plan = Plan::http(&format!("http://{address}/")).expect("a plan");
    let mut plan = plan.at_rate(200.0);
    plan.duration = Duration::from_millis(REQUESTS * 5);
    plan.connections = 4;
    plan.timeouts.connect = Duration::from_secs(5);
    plan.timeouts.request = Duration::from_secs(5);
    plan.records = true;
    plan.engine = engine;
    plan
}

fn run(plan: Plan) -> Outcome {
    let running = start(plan).expect("starts");
    let begin = Instant::now();
    while !running.is_finished() {
        assert!(begin.elapsed() < DEADLINE, "it hangs");
        park_timeout(Duration::from_millis(5));
    }
    running.join().expect("runs")
}

/// Calls `check` with each backend that there is here.
fn on_both(check: impl Fn(EngineChoice)) {
    check(EngineChoice::Epoll);
    match ballast_loadgen::engine::probe() {
        Ok(()) => check(EngineChoice::Uring),
        Err(error) => println!("SKIP io_uring: {error}"),
    }
}

/// Runs against `address` on both backends; each request must end as `expected` says.
fn expect(address: SocketAddr, expected: Option<ErrorClass>, change: impl Fn(&mut Plan)) {
    on_both(|engine| {
        let mut plan = plan(address, engine);
        change(&mut plan);
        let outcome = run(plan);
        let counts = outcome.recorder.counts();
        assert_eq!((counts.released, counts.done), (REQUESTS, REQUESTS));
        for record in &outcome.records {
            assert_eq!(record.failure(), expected, "{engine:?}: {record:?}");
        }
        assert_eq!(outcome.records.len() as u64, REQUESTS);
    });
}

fn short_timeout(plan: &mut Plan) {
    plan.timeouts.request = Duration::from_millis(100);
}

#[test]
fn nobody_listening_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    drop(listener);
    expect(address, Some(ErrorClass::Refused), |_| {});
}

#[test]
fn silence_is_a_timeout() {
    expect(server(|_| true), Some(ErrorClass::Timeout), short_timeout);
}

#[test]
fn garbage_is_a_protocol_error() {
    let address = server(says("SSH-2.0-OpenSSH_9.2\r\n"));
    expect(address, Some(ErrorClass::Protocol), |_| {});
    let address = server(says(vec![0xff; 100]));
    expect(address, Some(ErrorClass::Protocol), |_| {});
}

#[test]
fn what_the_first_failure_was_is_told() {
    let garbage = server(says("SSH-2.0-OpenSSH_9.2\r\n"));
    let short = server(|stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
        let _shut = stream.shutdown(std::net::Shutdown::Both);
        false
    });
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (address, class, words) in [
        (garbage, "protocol", "not HTTP"),
        (short, "reset", "closed the connection before"),
        (nobody, "refused", "connecting: "),
    ] {
        for engine in [
            EngineChoice::Auto,
            EngineChoice::Epoll,
            EngineChoice::TokioUring,
        ] {
            let outcome = start(plan(address, engine)).and_then(ballast_loadgen::Running::join);
            let Ok(outcome) = outcome else {
                println!("SKIP {engine:?}: it is not to be had here");
                continue;
            };
            let told = &outcome.report.error_reasons;
            assert!(
                told.get(class).is_some_and(|why| why.contains(words)),
                "{engine:?} {class}: {told:?}"
            );
        }
    }
}

#[test]
fn endless_head_is_a_protocol_error() {
    let address = server(|stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-More: and more and more\r\n").is_ok() {}
        false
    });
    expect(address, Some(ErrorClass::Protocol), |_| {});
}

#[test]
fn endless_body_is_a_timeout() {
    for head in ["", "Transfer-Encoding: chunked\r\n"] {
        let address = server(move |stream| {
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n");
            let chunk = [&b"1000\r\n"[..], &[b'x'; 4096], b"\r\n"].concat();
            while stream.write_all(&chunk).is_ok() {
                park_timeout(Duration::from_millis(1));
            }
            false
        });
        expect(address, Some(ErrorClass::Timeout), short_timeout);
    }
}

#[test]
fn answer_shorter_than_it_said_is_a_reset_and_a_longer_one_a_protocol_error() {
    let address = server(|stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        false
    });
    expect(address, Some(ErrorClass::Reset), |_| {});
    let address = server(says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"));
    expect(address, Some(ErrorClass::Protocol), |_| {});
}

#[test]
fn rst_in_the_middle_of_a_body_is_a_reset() {
    let address = server(|stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).expect("lingers");
        false
    });
    expect(address, Some(ErrorClass::Reset), |_| {});
}

#[test]
fn connection_that_says_it_closes_is_opened_anew_for_each_request() {
    let address = server(|stream| {
        let _gone = stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        false
    });
    expect(address, None, |_| {});
    let address = server(|stream| {
        let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nas long as it lasts");
        false
    });
    expect(address, None, |_| {});
}

#[test]
fn connection_that_closes_without_a_word_loses_no_request_from_the_books() {
    let address = server(|stream| {
        let _gone = stream.write_all(OK);
        false
    });
    on_both(|engine| {
        let outcome = run(plan(address, engine));
        let counts = outcome.recorder.counts();
        assert_eq!((counts.released, counts.done), (REQUESTS, REQUESTS));
        // A request that meets the FIN on its way is lost for any client.
        for class in outcome
            .records
            .iter()
            .filter_map(ballast_loadgen::Record::failure)
        {
            assert_eq!(class, ErrorClass::Reset, "{engine:?}");
        }
        assert!(counts.answered > REQUESTS / 2, "{engine:?}: {counts:?}");
    });
}

#[test]
fn server_that_accepts_and_closes_is_a_reset_and_is_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    on_both(|engine| {
        let outcome = run(plan(address, engine));
        let counts = outcome.recorder.counts();
        assert_eq!((counts.released, counts.done), (REQUESTS, REQUESTS));
        for record in &outcome.records {
            assert_eq!(record.failure(), Some(ErrorClass::Reset), "{engine:?}");
        }
        assert!(counts.opened < 4 * REQUESTS, "{engine:?}: {counts:?}");
    });
}

#[test]
fn interim_answers_and_slow_drips_are_no_errors() {
    let address = server(says([b"HTTP/1.1 100 Continue\r\n\r\n", OK].concat()));
    expect(address, None, |_| {});
    let address = server(|stream| {
        stream.set_nodelay(true).expect("a socket");
        OK.iter().all(|byte| {
            park_timeout(Duration::from_micros(50));
            stream.write_all(&[*byte]).is_ok()
        })
    });
    expect(address, None, |_| {});
}

#[test]
fn pipelined_answers_come_in_order_and_one_that_closes_takes_the_others_with_it() {
    let address = server(says(OK));
    let pipelined = |plan: &mut Plan| {
        plan.protocol = ballast_loadgen::plan::Protocol::Http1 { pipeline: 8 };
        plan.connections = 1;
    };
    expect(address, None, pipelined);
    on_both(|engine| {
        let address = server(|stream| {
            let _gone = stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            false
        });
        let mut plan = plan(address, engine);
        pipelined(&mut plan);
        let outcome = run(plan);
        assert_eq!(outcome.recorder.counts().done, REQUESTS);
        for class in outcome
            .records
            .iter()
            .filter_map(ballast_loadgen::Record::failure)
        {
            assert_eq!(class, ErrorClass::Reset);
        }
    });
}

#[test]
fn large_bodies_are_read_to_their_end() {
    let body = vec![b'x'; 300_000];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let address = server(says([head.as_bytes(), &body].concat()));
    on_both(|engine| {
        let outcome = run(plan(address, engine));
        let counts = outcome.recorder.counts();
        assert_eq!((counts.done, counts.answered), (REQUESTS, REQUESTS));
        assert_eq!(counts.errors.iter().sum::<u64>(), 0);
        assert_eq!(
            counts.received_bytes,
            REQUESTS * (head.len() + body.len()) as u64
        );
    });
}

#[test]
fn run_that_is_aborted_ends_at_once_and_one_that_is_stopped_ends_its_requests() {
    let address = server(|_| true);
    on_both(|engine| {
        for abort in [true, false] {
            let mut plan = plan(address, engine);
            plan.duration = Duration::from_hours(1);
            plan.timeouts.request = Duration::from_secs(if abort { 3600 } else { 1 });
            let running = start(plan).expect("starts");
            let begin = Instant::now();
            let released = |running: &ballast_loadgen::run::Running| {
                running.board().look(|seen| seen.counts.released)
            };
            while released(&running) == 0 {
                assert!(begin.elapsed() < DEADLINE, "nothing is released");
                park_timeout(Duration::from_millis(5));
            }
            if abort {
                running.abort();
            } else {
                running.stop();
            }
            while !running.is_finished() {
                assert!(begin.elapsed() < DEADLINE, "it hangs");
                park_timeout(Duration::from_millis(5));
            }
            let outcome = running.join().expect("runs");
            let counts = outcome.recorder.counts();
            assert_eq!(counts.done, if abort { 0 } else { counts.released });
        }
    });
}
