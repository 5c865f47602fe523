//! The generator against servers that misbehave in known ways.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballast_loadgen::plan::{Request, Template};
use ballast_loadgen::{ErrorClass, Method, Plan, Verdict, start};

/// Answers every request on a thread per connection, through `answer`; returns the address.
fn server(
    answer: impl Fn(&mut TcpStream, &[String]) -> bool + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("accepts"), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("clones"));
                while let Some(head) = read_head(&mut reader) {
                    if !answer(&mut stream, &head) {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line);
    }
}

fn ok(stream: &mut TcpStream) -> bool {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .is_ok()
}

fn load(address: SocketAddr) -> Plan {
    let plan = Plan::http(&format!("http://{address}/")).expect("a plan");
    let mut plan = plan.at_rate(500.0);
    plan.duration = Duration::from_secs(2);
    plan.connections = 4;
    plan.records = true;
    plan
}

#[test]
fn stall_of_the_server_shows_in_full() {
    let begin = Instant::now();
    let stall_from = Duration::from_millis(700);
    let stall_to = Duration::from_millis(1200);
    let address = server(move |stream, _| {
        let now = begin.elapsed();
        if now > stall_from && now < stall_to {
            std::thread::sleep(stall_to.saturating_sub(now));
        }
        ok(stream)
    });
    let outcome = start(load(address)).expect("starts").join().expect("runs");
    let report = outcome.report;
    assert_eq!(report.requests, 1000, "every scheduled request is made");
    // A quarter of the requests were due within the 500 ms stall and waited 250 ms on average, so
    // p90 is about 300 ms. A closed loop would report 4 slow requests of 1000.
    assert!(report.latency_us.p90 > 150_000, "{report}");
    assert!(report.latency_us.max > 400_000, "{report}");
    assert!(
        report.service_time_us.p90 < report.latency_us.p90,
        "{report}"
    );
}

#[test]
fn dying_server_gives_resets_and_refusals_not_a_hang() {
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.local_addr().expect("has an address")
    };
    let outcome = start(load(dead)).expect("starts").join().expect("runs");
    assert_eq!(outcome.report.errors["refused"], 1000);
    assert_eq!(
        outcome.report.verdict,
        Verdict::Invalid,
        "nothing was answered"
    );

    let answered_once = AtomicBool::new(false);
    let address =
        server(move |stream, _| !answered_once.swap(true, Ordering::Relaxed) && ok(stream));
    let outcome = start(load(address)).expect("starts").join().expect("runs");
    assert_eq!(outcome.report.failed(), 999);
    assert_eq!(outcome.report.errors["reset"], 999);
}

#[test]
fn silent_server_gives_timeouts_and_stop_ends_the_run() {
    let address = server(|_, _| true);
    let mut load = load(address);
    load.timeouts.request = Duration::from_millis(50);
    load.duration = Duration::from_hours(1);
    load.connections = 64;
    let running = start(load).expect("starts");
    let deadline = Instant::now() + Duration::from_secs(10);
    while running.failed() < 20 {
        assert!(Instant::now() < deadline, "no timeout within ten seconds");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    running.stop();
    let outcome = running.join().expect("runs");
    assert!(
        outcome
            .records
            .iter()
            .all(|record| record.result == Err(ErrorClass::Timeout))
    );
}

#[test]
fn request_ids_are_distinct_and_methods_are_mixed() {
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let books = seen.clone();
    let address = server(move |stream, head| {
        let id = head
            .iter()
            .find_map(|line| line.strip_prefix("X-Request-Id: "))
            .expect("has an id");
        let method = head[0].split(' ').next().expect("has a method").to_owned();
        let before = books.lock().expect("locks").insert(id.to_owned(), method);
        assert_eq!(before, None, "{id} twice");
        ok(stream)
    });
    let mut load = load(address);
    load.request_ids = Some("t".to_owned());
    load.targets[0].requests.push(Request {
        method: http::Method::POST,
        ..Request::get(Template::literal("/"))
    });
    let outcome = start(load).expect("starts").join().expect("runs");
    let seen = seen.lock().expect("locks");
    assert_eq!(seen.len(), 1000);
    for record in &outcome.records {
        assert_eq!(seen[&format!("t-{}", record.number)], record.method.name());
    }
    let posts = outcome
        .records
        .iter()
        .filter(|record| record.method == Method::Post)
        .count();
    assert!((400..600).contains(&posts), "{posts}");
}
