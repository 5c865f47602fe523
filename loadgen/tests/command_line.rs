//! What the command line says to nonsense, and what it writes.

mod support;

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Server, loadgen};

/// Runs with these arguments, which are refused; returns what was said.
fn refused(args: &[&str]) -> String {
    let output = loadgen().args(args).output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn each_nonsense_gets_an_error_that_says_what_would_be_right() {
    const URL: &str = "http://127.0.0.1:1/";
    let cases: &[&[&str]] = &[
        &[],
        &["127.0.0.1:80"],
        &["htp://a/"],
        &["http:///x"],
        &["http://a/{{countr}}"],
        &["--rate", "NaN", URL],
        &["--rate", "-5", URL],
        &["--rate", "1e12", URL],
        &["--rate", "fast", URL],
        &["--rat", "5", URL],
        &["--duration", "0s", URL],
        &["--duration", "10", URL],
        &["--duration", "9000h", URL],
        &["--arrivals", "poison", "--rate", "5", URL],
        &["--arrivals", "poisson", URL],
        &["--connections", "0", URL],
        &["--profile", "sawtoth:1..2/1s", URL],
        &["--profile", "spike:5@1s+1s", URL],
        &["--profile", "step:1,2", "--rate", "5", URL],
        &["--profile-file", "/nonexistent.csv", URL],
        &["--replay", "/nonexistent.log", URL],
        &["--replay", "/dev/null", "--rate", "5", URL],
        &["--think", "10ms", "--rate", "5", URL],
        &["--target", "wait=3,url=http://a/"],
        &["--header", "nonsense", URL],
        &["--check", "boddy~x", URL],
        &["--slo", "p98=5", URL],
        &["--find-max", URL],
        &["--pipeline", "4", "--http2", URL],
        &["--streams", "4", URL],
        &["--http2", "ws://127.0.0.1:1/"],
        &["--http2", "--grpc", URL],
        &["--insecure", URL],
        &["--udp-echo", "--check", "200", "udp://127.0.0.1:1"],
        &["grpc://127.0.0.1:1/"],
        &["tcp://127.0.0.1:1/path"],
        &[URL, "ws://127.0.0.1:1/"],
        &["--body", "a", "--body-file", "b", URL],
        &["--post-ratio", "1.5", URL],
        &["--cores", "none", URL],
        &["--json", "/nonexistent/x.json", URL],
        &["--json", "/", URL],
        &["--quiet", "compare", "a.json", "b.json"],
        &["http://127.0.0.1:99999/"],
        &["--prometheus", "9090", URL],
        &["--profile-file", "tests/bad-profile.csv", URL],
        &["--ca-file", "Cargo.toml", "https://127.0.0.1:1/"],
    ];
    let mut said = String::new();
    for args in cases {
        let error = refused(args);
        // What follows are the usage and hints that clap adds, the same everywhere.
        let error = error
            .split("\n\nUsage")
            .next()
            .unwrap_or_default()
            .trim_end();
        writeln!(said, "$ {}\n{error}\n", args.join(" ")).expect("writes");
    }
    insta::assert_snapshot!(said);
}

#[test]
fn more_lanes_than_connections_are_refused() {
    let cores = ballast_loadgen::plan::Cores::allowed().len();
    let error = refused(&[
        "--cores",
        "all",
        "--connections",
        "0",
        "http://127.0.0.1:1/",
    ]);
    assert!(
        error.contains(&format!("each of {cores} lanes needs one")),
        "{error}"
    );
    let error = refused(&["--cores", "100000", "http://127.0.0.1:1/"]);
    assert!(error.contains("100000 cores are asked for, but"), "{error}");
}

#[test]
fn help_names_every_flag_of_the_contract() {
    let output = loadgen().arg("--help").output().expect("runs");
    let help = String::from_utf8(output.stdout).expect("text");
    for flag in [
        "--rate",
        "--duration",
        "--connections",
        "--arrivals",
        "--http2",
        "--json",
        "--slo",
        "--find-max",
        "--replay",
        "--profile",
        "--check",
        "--engine",
        "--cores",
        "Exit status",
    ] {
        assert!(help.contains(flag), "{flag} is missing");
    }
}

#[test]
fn run_prints_its_report_and_writes_the_same_as_json() {
    let server = Server::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("run.json");
    let output = loadgen()
        .args([
            "--rate",
            "200",
            "--duration",
            "1s",
            "--connections",
            "4",
            "--json",
        ])
        .args([json.as_os_str(), server.url().as_ref()])
        .output()
        .expect("runs");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    assert_eq!(report["requests"], 200, "{output:?}");
    assert_eq!(server.count(), 200);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("200"),
        "{output:?}"
    );
}

#[test]
fn series_and_histograms_are_written_beside_the_report() {
    let server = Server::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("folder");
    let (csv, hlog) = (folder.path().join("a.csv"), folder.path().join("a.hlog"));
    let output = loadgen()
        .args(["--rate", "100", "--duration", "300ms", "--csv"])
        .args([
            csv.as_os_str(),
            "--hlog".as_ref(),
            hlog.as_os_str(),
            server.url().as_ref(),
        ])
        .output()
        .expect("runs");
    let csv = std::fs::read_to_string(&csv).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(
        csv.starts_with("start_s,") && csv.lines().count() >= 2,
        "{csv}"
    );
    let hlog = std::fs::read_to_string(&hlog).expect("written");
    assert!(hlog.contains("Tag=latency"), "{hlog}");
}

#[test]
fn json_to_standard_output_is_alone_there() {
    let server = Server::start(Duration::ZERO);
    let output = loadgen()
        .args([
            "--rate",
            "100",
            "--duration",
            "300ms",
            "--json",
            "-",
            &server.url(),
        ])
        .output()
        .expect("runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(report["requests"], 30);
}

#[test]
fn full_disk_loses_no_result_that_was_printed() {
    let server = Server::start(Duration::ZERO);
    let output = loadgen()
        .args([
            "--rate",
            "100",
            "--duration",
            "300ms",
            "--json",
            "/dev/full",
            &server.url(),
        ])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot write /dev/full"), "{error}");
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("30"),
        "{output:?}"
    );
}

#[test]
fn closed_standard_output_still_writes_the_file() {
    let server = Server::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("run.json");
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("opens");
    let output = Command::new(assert_cmd::cargo::cargo_bin!("ballast-loadgen"))
        .args(["--rate", "100", "--duration", "300ms", "--json"])
        .args([json.as_os_str(), server.url().as_ref()])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let written = std::fs::read(&json).expect("written");
    assert!(serde_json::from_slice::<serde_json::Value>(&written).is_ok());
}

/// Ends a run that would take an hour; returns its exit status and report.
fn interrupted(server: &Server, presses: usize) -> (Option<i32>, serde_json::Value) {
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("run.json");
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("ballast-loadgen"))
        .args([
            "--rate",
            "200",
            "--duration",
            "1h",
            "--timeout",
            "1h",
            "--json",
        ])
        .args([json.as_os_str(), server.url().as_ref()])
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    server.wait_for(50);
    let pid = rustix::process::Pid::from_child(&child);
    let deadline = std::time::Instant::now() + support::PATIENCE;
    let mut pressed = 0;
    let status = loop {
        // Each press is seen on its own only once the one before it was.
        if pressed < presses {
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
            pressed += 1;
        }
        let (_never, pause) = std::sync::mpsc::channel::<()>();
        let _ = pause.recv_timeout(Duration::from_millis(300));
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "it does not end");
    };
    let report = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    (status.code(), report)
}

#[test]
fn interrupt_ends_the_run_and_what_was_measured_is_written() {
    let server = Server::start(Duration::ZERO);
    let (_, report) = interrupted(&server, 1);
    let requests = report["requests"].as_u64().expect("a number");
    assert!(requests >= 50, "{report}");
    assert_eq!(requests, server.count());
}

#[test]
fn log_is_replayed_with_its_own_timing() {
    let server = Server::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("access.log");
    let lines = "100.0 GET /a\n100.4 POST /b\n100.4 GET /a\n102.0 DELETE /c?d=e\n";
    std::fs::write(&log, lines).expect("writes");
    let output = loadgen()
        .args(["--speed", "2", "--body", "x{{counter}}", "--replay"])
        .args([log.as_os_str(), server.url().as_ref()])
        .output()
        .expect("runs");
    assert!(output.status.code() != Some(2), "{output:?}");
    let mut asked = server.asked();
    asked.sort_by_key(|asked| asked.body.clone());
    let lines: Vec<_> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, ["GET /a", "POST /b", "GET /a", "DELETE /c?d=e"]);
    // Never early, and not so late that another timing would pass. Half a second is what a test
    // beside others' builds may be late.
    for (asked, expected) in asked.iter().zip([0, 200, 200, 1000]) {
        let at = asked.at.duration_since(asked_first(&server));
        let expected = Duration::from_millis(expected);
        assert!(
            at.abs_diff(expected) < Duration::from_millis(500),
            "{at:?} of {expected:?}"
        );
    }
}

fn asked_first(server: &Server) -> std::time::Instant {
    let asked = server.asked();
    asked.iter().map(|asked| asked.at).min().expect("asked")
}

#[test]
fn lenient_replay_says_what_it_left_out() {
    let server = Server::start(Duration::ZERO);
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("access.log");
    std::fs::write(&log, "0 GET /a\ngarbage\n0.1 GET /b\n").expect("writes");
    let path = log.to_str().expect("text");
    let error = refused(&["--replay", path, &server.url()]);
    assert!(error.contains("line 2: `garbage` is no time"), "{error}");
    let output = loadgen()
        .args(["--replay-lenient", "--replay", path, &server.url()])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("left out 1 lines (line 2: `garbage`"),
        "{error}"
    );
    assert_eq!(server.count(), 2);
}

#[test]
fn requests_are_what_the_flags_say() {
    let server = Server::start(Duration::ZERO);
    let url = format!("http://{}/{{{{counter}}}}", server.address);
    let output = loadgen()
        .args([
            "--rate",
            "100",
            "--duration",
            "200ms",
            "--method",
            "PUT",
            "--body",
            "b{{counter}}",
        ])
        .args([
            "-H",
            "X-A: v{{counter}}",
            "--request-ids",
            "--check",
            "body~nothing",
            "--json",
            "-",
        ])
        .arg(&url)
        .output()
        .expect("runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["errors"]["check"], 20, "{report}");
    let asked = server.asked();
    assert_eq!(asked.len(), 20);
    let mut ids = std::collections::BTreeSet::new();
    for asked in asked {
        let number = asked.line.strip_prefix("PUT /").expect("a PUT").to_owned();
        let header = |wanted: &str| {
            let lines = asked.head.iter().filter_map(|line| line.split_once(':'));
            let found = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found
                .map(|(_, value)| value.trim().to_owned())
                .next()
                .expect("there")
        };
        assert_eq!(asked.body, format!("b{number}").as_bytes());
        assert_eq!(header("x-a"), format!("v{number}"));
        assert!(ids.insert(header("x-request-id")), "an id twice");
    }
}

#[test]
fn second_interrupt_gives_up_what_is_in_flight() {
    // Answers take an hour: only giving up ends the run.
    let server = Server::start(Duration::from_hours(1));
    let (_, report) = interrupted(&server, usize::MAX);
    assert_eq!(report["verdict"], "invalid");
}

#[test]
fn search_ends_with_a_rate_and_writes_its_steps() {
    let server = Server::start(Duration::ZERO);
    let output = loadgen()
        .args([
            "--find-max",
            "--rate",
            "20",
            "--slo",
            "rate<100",
            "--duration",
            "1s",
        ])
        .args(["--connections", "2", "--json", "-", &server.url()])
        .output()
        .expect("runs");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        found["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() > 2),
        "{found}"
    );
}
