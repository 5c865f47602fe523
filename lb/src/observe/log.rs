//! The access log: lines are made by the threads that serve, and written by one of its own.
//!
//! A thread appends its lines to a buffer of its own under a lock that only the writer contends
//! for, a few times a second. A buffer that is full drops lines and counts them: no request waits
//! for a disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;

use super::{Entry, bound_of, line, writer};
use crate::metrics::thread_number;

/// Buffers: threads share them past this number, which costs time and loses nothing.
const SHARDS: usize = 16;
/// Bytes that wait in one buffer; past it lines are dropped. At 300 bytes a line and the 50 ms
/// between two writes it takes 70,000 lines a second and thread.
const SHARD_BYTES: usize = 1 << 20;
/// Bytes in one buffer that wake the writer before its time.
const WAKE_BYTES: usize = SHARD_BYTES / 2;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to; opened anew when it was moved away.
    File(PathBuf),
}

/// What the configuration asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Where to.
    pub to: LogTarget,
    /// The share of requests that get a line, 0 to 1.
    pub sample: f64,
    /// Whether requests answered with 500 or more get one in any case.
    pub failures: bool,
}

/// Counters of the log.
#[derive(Debug, Clone, Default)]
pub struct LogCounters {
    /// Lines written.
    pub lines: Counter,
    /// Lines dropped: the buffer was full, or writing failed.
    pub dropped: Counter,
}

/// The access log; off until told otherwise.
#[derive(Debug, Default)]
pub struct AccessLog {
    bound: AtomicU64,
    failures: AtomicBool,
    sink: ArcSwapOption<Sink>,
    counters: LogCounters,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    config: LogConfig,
    sink: Arc<Sink>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Makes one that is off, and counts here.
    pub fn new(counters: LogCounters) -> Self {
        Self {
            counters,
            ..Self::default()
        }
    }

    /// Takes a configuration. If the target stays, nothing is lost; if not, what was recorded is
    /// written to the old one.
    ///
    /// # Errors
    /// If the file cannot be opened; the log stays as it was.
    pub fn take(&self, config: Option<&LogConfig>) -> std::io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let target = running.as_ref().map(|running| &running.config.to);
        if target != config.map(|config| &config.to) {
            let next = config.map(|config| self.start(config)).transpose()?;
            self.sink
                .store(next.as_ref().map(|next| Arc::clone(&next.sink)));
            let old = std::mem::replace(&mut *running, next);
            end(old);
        }
        let bound = config.map_or(0, |config| bound_of(config.sample));
        self.bound.store(bound, Ordering::Relaxed);
        let failures = config.is_some_and(|config| config.failures);
        self.failures.store(failures, Ordering::Relaxed);
        Ok(())
    }

    fn start(&self, config: &LogConfig) -> std::io::Result<Running> {
        let output = writer::Output::open(&config.to)?;
        let sink = Arc::new(Sink::default());
        let counters = self.counters.clone();
        let thread = std::thread::Builder::new().name("ballast-log".to_owned());
        let theirs = Arc::clone(&sink);
        let thread = thread.spawn(move || writer::run(&theirs, output, &counters))?;
        let _ = sink.writer.set(thread.thread().clone());
        Ok(Running {
            config: config.clone(),
            sink,
            thread,
        })
    }

    /// Writes what was recorded, and is off from then on.
    pub fn close(&self) {
        // Nothing is opened, so nothing can fail.
        let _ = self.take(None);
    }

    /// Whether a request gets a line, by 64 random bits of its own.
    pub fn wants(&self, random: u64) -> bool {
        let bound = self.bound.load(Ordering::Relaxed);
        bound > 0 && random <= bound
    }

    /// The same for a request that was answered: failures may be wanted in any case.
    pub fn wants_answered(&self, random: u64, status: u16) -> bool {
        self.wants(random) || status >= 500 && self.failures.load(Ordering::Relaxed)
    }

    /// Records a request. Never waits: when the buffer is full, the line is dropped and counted.
    pub fn record(&self, entry: &Entry<'_>) {
        if let Some(sink) = &*self.sink.load()
            && !sink.append(entry)
        {
            self.counters.dropped.inc();
        }
    }
}

/// Writes what is left, and waits until that is done.
fn end(running: Option<Running>) {
    if let Some(running) = running {
        running.sink.ended.store(true, Ordering::Release);
        running.sink.wake();
        if running.thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

/// Lines between the threads that make them and the one that writes.
#[derive(Debug, Default)]
pub(super) struct Sink {
    shards: [Mutex<Lines>; SHARDS],
    /// Whether the writer has been woken for what is there.
    woken: AtomicBool,
    /// Nothing more is to be waited for.
    pub(super) ended: AtomicBool,
    writer: std::sync::OnceLock<Thread>,
}

/// Lines that wait.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

impl Sink {
    fn append(&self, entry: &Entry<'_>) -> bool {
        let mut lines = lock(&self.shards[thread_number() % SHARDS]);
        if lines.bytes.len() >= SHARD_BYTES {
            return false;
        }
        let before = lines.bytes.len();
        line::append(&mut lines.bytes, entry);
        lines.count += 1;
        let crossed = before < WAKE_BYTES && lines.bytes.len() >= WAKE_BYTES;
        drop(lines);
        // SeqCst, with `gather`: either the writer sees the line, or this sees that it must be
        // woken.
        if crossed || !self.woken.swap(true, Ordering::SeqCst) {
            self.wake();
        }
        true
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Whether lines may be waiting.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// Takes everything that waits out of each shard in turn, leaving `spare` in its place.
    pub(super) fn gather(&self, mut each: impl FnMut(Lines) -> Lines) {
        // SeqCst: see `append`.
        self.woken.store(false, Ordering::SeqCst);
        let mut spare = Lines::default();
        for shard in &self.shards {
            let mut lines = lock(shard);
            if lines.bytes.is_empty() {
                continue;
            }
            std::mem::swap(&mut *lines, &mut spare);
            drop(lines);
            spare = each(spare);
        }
    }
}

fn lock(shard: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    // A line that panicked half way is a broken line, not a broken log.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use ballast_model::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::metrics::Traffic;
    use crate::observe::Named;

    fn entry<'a>(named: &'a Named, target: &'a str) -> Entry<'a> {
        Entry {
            at: Timestamp(1),
            client: [192, 0, 2, 7].into(),
            tls: false,
            method: "GET",
            host: "a.test",
            target,
            version: "HTTP/1.1",
            status: 200,
            reason: "",
            service: "web",
            route: "",
            endpoint: None,
            attempts: 1,
            traffic: Traffic::default(),
            took: Duration::ZERO,
            first_byte: None,
            user_agent: b"",
            referer: b"",
            named,
        }
    }

    fn config(path: PathBuf) -> LogConfig {
        LogConfig {
            to: LogTarget::File(path),
            sample: 1.0,
            failures: false,
        }
    }

    #[test]
    fn every_line_of_every_thread_is_written_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("access.log");
        let counters = LogCounters::default();
        let log = AccessLog::new(counters.clone());
        log.take(Some(&config(path.clone()))).expect("opens");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    let named = Named::default();
                    for number in 0..500 {
                        log.record(&entry(&named, &format!("/{thread}/{number}")));
                    }
                });
            }
        });
        log.close();
        let text = std::fs::read_to_string(&path).expect("is there");
        let mut targets: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("is JSON"))
            .map(|line| line["target"].as_str().expect("a text").to_owned())
            .collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!((targets.len(), text.lines().count()), (2000, 2000));
        assert_eq!((counters.lines.get(), counters.dropped.get()), (2000, 0));
    }

    #[test]
    fn full_buffer_drops_and_counts_and_never_waits() {
        let sink = Sink::default();
        let named = Named::default();
        let target = "x".repeat(2000);
        let taken = (0..1000).filter(|_| sink.append(&entry(&named, &target)));
        assert!((400..600).contains(&taken.count()));
        let mut bytes = 0;
        sink.gather(|lines| {
            bytes += lines.bytes.len();
            Lines::default()
        });
        assert!((SHARD_BYTES..SHARD_BYTES + 4096).contains(&bytes));
        assert!(sink.append(&entry(&named, "/")));
    }

    #[test]
    fn moved_file_is_opened_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("access.log");
        let log = AccessLog::default();
        log.take(Some(&config(path.clone()))).expect("opens");
        std::fs::rename(&path, dir.path().join("old.log")).expect("moves");
        let named = Named::default();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            log.record(&entry(&named, "/new"));
            assert!(std::time::Instant::now() < deadline, "not opened anew");
            std::thread::yield_now();
        }
        log.close();
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .expect("is there");
        assert!(text.contains("/new"), "{text}");
    }

    #[test]
    fn samples_are_the_share_that_was_asked_for() {
        let log = AccessLog::default();
        assert!(!log.wants(0) && !log.wants_answered(0, 503));
        let dir = tempfile::tempdir().expect("a folder");
        let config = LogConfig {
            sample: 0.25,
            failures: true,
            ..config(dir.path().join("access.log"))
        };
        log.take(Some(&config)).expect("opens");
        let wanted = (0..1000u64).filter(|n| log.wants(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        assert!((200..300).contains(&wanted.count()));
        assert!(log.wants_answered(u64::MAX, 500) && !log.wants_answered(u64::MAX, 499));
        let missing = LogConfig {
            to: LogTarget::File("/no/such/folder/log".into()),
            ..config
        };
        assert!(log.take(Some(&missing)).is_err());
        assert!(log.wants_answered(u64::MAX, 500), "the old one stays");
    }
}
