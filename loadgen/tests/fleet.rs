//! A coordinator and workers, each a process of its own.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::Server;

/// A worker process; ends with the test.
struct Worker {
    child: Child,
    address: SocketAddr,
}

impl Worker {
    fn start(more: &[&str]) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("ballast-loadgen"))
            .args(["worker", "--listen", "127.0.0.1:0", "--cores", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        let address = line.split(' ').nth(2).expect("an address");
        Self {
            address: address.parse().expect("an address"),
            child,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn coordinate(workers: &[&Worker], args: &[&str]) -> Command {
    let names: Vec<String> = workers.iter().map(|it| it.address.to_string()).collect();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ballast-loadgen"));
    // Tests run beside others: what they measure is not the clock.
    command
        .args([
            "--workers",
            &names.join(","),
            "--clock-bound",
            "10s",
            "--json",
            "-",
        ])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn report(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

#[test]
fn merged_result_is_the_sum_of_what_the_server_counted() {
    let server = Server::start(Duration::ZERO);
    let workers = [Worker::start(&[]), Worker::start(&[])];
    let output = coordinate(
        &[&workers[0], &workers[1]],
        &[
            "--rate",
            "301",
            "--duration",
            "2s",
            "--connections",
            "5",
            "--arrivals",
            "constant",
        ],
    )
    .args(["--request-ids", &format!("{}{{{{counter}}}}", server.url())])
    .output()
    .expect("runs");
    let report = report(&output);
    assert_eq!(report["requests"], 602, "{report}");
    assert_eq!(server.count(), 602);
    // Shown meanwhile: what all workers did, second by second.
    let shown = String::from_utf8_lossy(&output.stderr);
    let lines = shown.lines().filter(|line| line.contains(" /s  p50 "));
    assert!(lines.count() > 0, "{shown}");
    assert_eq!(
        report["engine"]
            .as_str()
            .map(|it| it.starts_with("2 workers")),
        Some(true)
    );
    // Each number once, whichever worker had it.
    let mut numbers: Vec<u64> = server
        .asked()
        .iter()
        .map(|asked| asked.line["GET /".len()..].parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..602), "{numbers:?}");
}

#[test]
fn worker_that_dies_makes_the_result_invalid_and_is_named() {
    let server = Server::start(Duration::ZERO);
    let (mut dying, living) = (Worker::start(&[]), Worker::start(&[]));
    let coordinator = coordinate(
        &[&dying, &living],
        &[
            "--rate",
            "200",
            "--duration",
            "1h",
            "--connections",
            "4",
            &server.url(),
        ],
    )
    .spawn()
    .expect("starts");
    server.wait_for(100);
    dying.child.kill().expect("kills");
    let output = coordinator.wait_with_output().expect("ends");
    let report = report(&output);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(report["verdict"], "invalid");
    let reason = report["reason"].as_str().expect("a reason");
    let named = format!("the worker {} was lost", dying.address);
    assert!(reason.starts_with(&named), "{reason}");
    assert!(
        report["requests"].as_u64().is_some_and(|it| it > 0),
        "the other's are kept"
    );
}

/// Starts a coordinator of a run that ends only when something ends it.
fn start_long_run(worker: &Worker, server: &Server) -> Child {
    let url = server.url();
    let run = ["--rate", "200", "--duration", "1h", "--connections", "4"];
    coordinate(&[worker], &[&run[..], &[&url]].concat())
        .spawn()
        .expect("starts")
}

#[test]
fn interrupt_ends_all_workers_and_their_results_are_kept() {
    let server = Server::start(Duration::ZERO);
    let worker = Worker::start(&["--once"]);
    let coordinator = start_long_run(&worker, &server);
    server.wait_for(100);
    let pid = rustix::process::Pid::from_child(&coordinator);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    let output = coordinator.wait_with_output().expect("ends");
    let report = report(&output);
    assert_eq!(
        report["requests"].as_u64(),
        Some(server.count()),
        "{report}"
    );
}

#[test]
fn coordinator_that_is_gone_ends_the_load() {
    let server = Server::start(Duration::ZERO);
    let worker = Worker::start(&[]);
    let mut coordinator = start_long_run(&worker, &server);
    server.wait_for(50);
    coordinator.kill().expect("kills");
    coordinator.wait().expect("ends");
    // The worker takes another run as soon as it has given up the first.
    let deadline = std::time::Instant::now() + support::PATIENCE;
    loop {
        let output = coordinate(
            &[&worker],
            &["--rate", "50", "--duration", "200ms", &server.url()],
        )
        .output()
        .expect("runs");
        if output.status.code() != Some(2) {
            assert_eq!(report(&output)["requests"], 10);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{output:?}");
    }
}

#[test]
fn worker_refuses_a_second_run_and_strangers() {
    let server = Server::start(Duration::ZERO);
    let worker = Worker::start(&["--token", "secret"]);
    let slow = ["--rate", "200", "--duration", "1h", "--token", "secret"];
    let mut first = coordinate(&[&worker], &slow)
        .arg(server.url())
        .spawn()
        .expect("starts");
    server.wait_for(50);
    // Twice: a refusal must not make room for the next one.
    for _ in 0..2 {
        let second = coordinate(&[&worker], &slow)
            .arg(server.url())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(2), "{error}");
        assert!(error.contains("another run is going on"), "{error}");
    }
    for args in [&["--token", "wrong"][..], &[]] {
        let stranger = coordinate(&[&worker], args)
            .arg(server.url())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&stranger.stderr).into_owned();
        assert!(error.contains("the token is not the worker's"), "{error}");
    }
    first.kill().expect("kills");
    first.wait().expect("ends");
}

#[test]
fn worker_sends_other_versions_and_other_protocols_away() {
    let worker = Worker::start(&[]);
    let mut other = TcpStream::connect(worker.address).expect("connects");
    let hello = br#"{"ask":"hello","version":99,"token":null,"news":1}"#;
    let length = u32::try_from(hello.len()).expect("short");
    other.write_all(&length.to_be_bytes()).expect("writes");
    other.write_all(hello).expect("writes");
    let mut answer = String::new();
    other.read_to_string(&mut answer).expect("reads");
    assert!(answer.contains("the coordinator 99"), "{answer}");

    let mut browser = TcpStream::connect(worker.address).expect("connects");
    browser
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("writes");
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = browser.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn worker_that_others_reach_needs_a_token() {
    let output = support::loadgen()
        .args(["worker", "--listen", "0.0.0.0:0"])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--token"), "{error}");
}

#[test]
fn clock_that_is_not_known_well_enough_is_refused() {
    let worker = Worker::start(&[]);
    let output = coordinate(&[&worker], &["--rate", "5", "http://127.0.0.1:1/"])
        .env_remove("NOTHING")
        .output()
        .expect("runs");
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    let names = worker.address.to_string();
    let output = support::loadgen()
        .args([
            "--workers",
            &names,
            "--clock-bound",
            "1ns",
            "--rate",
            "5",
            "http://127.0.0.1:1/",
        ])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("known only to within"), "{error}");
}
