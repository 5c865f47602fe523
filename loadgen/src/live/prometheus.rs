//! An endpoint that Prometheus reads while a run goes on.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::record::ErrorClass;
use crate::recorder::{Board, Cells, Limit, Seen};

/// How soon a request is answered, and the end noticed.
const LOOK: Duration = Duration::from_millis(100);
/// How long a client may take to ask and to read: there is one thread for all of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a request's head that are read.
const MAX_HEAD: usize = 8 << 10;
/// Upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 22] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// Serves `/metrics` until it is dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Listens on `address` for those who want to see what is on `board`.
    ///
    /// # Errors
    /// The operating system's, if it cannot listen there.
    pub fn start(board: Arc<Board>, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("prometheus".to_owned())
            .spawn(move || serve(&listener, &board, &stopped))?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, board: &Board, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that goes away, or asks nonsense, is its own problem.
            Ok((stream, _)) => drop(answer(stream, &board.look(text))),
            Err(_) => std::thread::park_timeout(LOOK),
        }
    }
}

fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        match stream.read(&mut part)? {
            0 => break,
            length => head.extend_from_slice(&part[..length]),
        }
    }
    let found = head.starts_with(b"GET /metrics ") || head.starts_with(b"GET / ");
    let (status, body) = if found {
        ("200 OK", body)
    } else {
        ("404 Not Found", "only /metrics is here\n")
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes())
}

/// Returns the exposition of what was seen. The histogram holds whole seconds; the counters are as
/// of the lanes' last ticks.
#[allow(
    clippy::too_many_lines,
    reason = "a list of metrics, one after the other"
)]
fn text(seen: &Seen) -> String {
    let mut text = String::new();
    let counts = &seen.counts;
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
        let _ = writeln!(text, "# HELP ballast_loadgen_{name} {help}");
        let _ = writeln!(text, "# TYPE ballast_loadgen_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "ballast_loadgen_{name}{labels} {value}");
        }
    };
    let one = |value: String| vec![(String::new(), value)];
    family(
        "requests_total",
        "counter",
        "Requests that ended, failed ones included.",
        &one(counts.done.to_string()),
    );
    family(
        "released_total",
        "counter",
        "Requests that became due.",
        &one(counts.released.to_string()),
    );
    let errors: Vec<_> = ErrorClass::ALL
        .into_iter()
        .zip(counts.errors)
        .map(|(class, count)| (format!("{{class=\"{}\"}}", class.name()), count.to_string()))
        .collect();
    family(
        "errors_total",
        "counter",
        "Failed requests by class.",
        &errors,
    );
    family(
        "received_bytes_total",
        "counter",
        "Bytes of answers.",
        &one(counts.received_bytes.to_string()),
    );
    family(
        "sent_bytes_total",
        "counter",
        "Bytes of requests.",
        &one(counts.sent_bytes.to_string()),
    );
    family(
        "connections_opened_total",
        "counter",
        "Connections opened.",
        &one(counts.opened.to_string()),
    );
    let limits: Vec<_> = Limit::ALL
        .into_iter()
        .zip(counts.limits)
        .map(|(limit, count)| (format!("{{limit=\"{}\"}}", limit.name()), count.to_string()))
        .collect();
    family(
        "limits_total",
        "counter",
        "How often the generator ran out of something.",
        &limits,
    );
    family(
        "in_flight",
        "gauge",
        "Requests due and not ended.",
        &one(counts.released.saturating_sub(counts.done).to_string()),
    );
    family(
        "cpu_seconds_total",
        "counter",
        "CPU time of the lanes' threads.",
        &one(seconds(counts.cpu_ns)),
    );
    let last = seen.series.points().last();
    let lag = last.map_or(0.0, |point| point.mean_lag_ns() / 1e9);
    family(
        "lag_seconds",
        "gauge",
        "Mean lag of the generator in the last second.",
        &one(format!("{lag:.9}")),
    );
    family(
        "latency_seconds",
        "histogram",
        "From when requests were due to their ends.",
        &buckets(&seen.latency, seen.latency_sum_ns),
    );
    text
}

fn seconds(ns: u64) -> String {
    format!("{:.9}", ns as f64 / 1e9)
}

/// Returns the samples of the histogram: a cell counts where its middle is.
fn buckets(latency: &Cells, sum_ns: u64) -> Vec<(String, String)> {
    let all = latency.count();
    let mut samples: Vec<_> = BUCKETS
        .iter()
        .map(|end| {
            let below = latency
                .spans()
                .filter(|(start, stop, _)| start.midpoint(*stop) as f64 <= end * 1e9)
                .map(|(_, _, count)| count)
                .sum::<u64>();
            (format!("_bucket{{le=\"{end}\"}}"), below.to_string())
        })
        .collect();
    samples.push(("_bucket{le=\"+Inf\"}".to_owned(), all.to_string()));
    samples.push(("_sum".to_owned(), seconds(sum_ns)));
    samples.push(("_count".to_owned(), all.to_string()));
    samples
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::recorder::Recorder;
    use crate::sample::Sample;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(request.as_bytes()).expect("asks");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reads");
        text
    }

    #[test]
    fn counters_and_histogram_are_served_while_a_run_goes_on() {
        let board = Board::new(1);
        let mut recorder = Recorder::new().seen_on(&board, 0);
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let exporter = Exporter::start(board.clone(), local).expect("listens");
        for number in 0..100_u64 {
            recorder.done(&Sample {
                number,
                target: 0,
                request: 0,
                due_ns: 0,
                sent_ns: 0,
                first_byte_ns: 4_000_000,
                done_ns: 4_000_000,
                received_bytes: 3,
                sent_bytes: 2,
                outcome: if number == 7 {
                    Err(ErrorClass::Timeout)
                } else {
                    Ok(200)
                },
            });
        }
        recorder.tick(1_000_000_000);
        let deadline = Instant::now() + Duration::from_secs(20);
        let text = loop {
            let text = ask(exporter.address(), "GET /metrics HTTP/1.1\r\n\r\n");
            if text.contains("ballast_loadgen_latency_seconds_count 100") {
                break text;
            }
            assert!(Instant::now() < deadline, "{text}");
        };
        for line in [
            "ballast_loadgen_requests_total 100",
            "ballast_loadgen_errors_total{class=\"timeout\"} 1",
            "ballast_loadgen_received_bytes_total 300",
            "# TYPE ballast_loadgen_latency_seconds histogram",
            "ballast_loadgen_latency_seconds_bucket{le=\"0.003\"} 0",
            "ballast_loadgen_latency_seconds_bucket{le=\"0.005\"} 100",
            "ballast_loadgen_latency_seconds_bucket{le=\"+Inf\"} 100",
            "ballast_loadgen_latency_seconds_sum 0.400000000",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(ask(exporter.address(), "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    }
}
