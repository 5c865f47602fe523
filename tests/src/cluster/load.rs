//! Steady load over kept-open connections, which remembers what became of every request.
//!
//! A closed loop per connection with a pace: enough to see failed requests and how long answers
//! stayed away. Latency under overload is the load generator's matter (`ballast-loadgen`).

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::Host;
use super::http::Connection;

/// Failures that are kept with their reason; more are only counted.
const FAILURES_KEPT: usize = 50;

/// Loads of this process so far: no two share a request id.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// What to send.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where to.
    pub address: SocketAddr,
    /// Of GETs.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// Connections, each a thread.
    pub connections: u32,
    /// Requests a second, over all connections.
    pub rate: u32,
    /// Of ten requests, how many are POSTs, each with an `x-request-id` of its own.
    pub posts_of_ten: u32,
    /// Of POSTs.
    pub post_path: String,
    /// After which a request without an answer has failed.
    pub timeout: Duration,
}

impl LoadPlan {
    /// Returns GETs of `/` at 400 a second over 8 connections.
    pub fn get(address: SocketAddr) -> Self {
        Self {
            address,
            path: "/".to_owned(),
            host: "test".to_owned(),
            connections: 8,
            rate: 400,
            posts_of_ten: 0,
            post_path: "/".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Makes some of ten requests POSTs.
    pub fn with_posts(mut self, of_ten: u32) -> Self {
        self.posts_of_ten = of_ten;
        self
    }

    /// Sets the rate.
    pub fn at_rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }
}

/// What became of the requests of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Answered with 2xx.
    pub ok: u64,
    /// Answered otherwise, or not.
    pub failed: u64,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Since the load began.
    pub at: Duration,
    /// Its method.
    pub method: &'static str,
    /// Its `x-request-id`.
    pub id: String,
    /// What happened instead of an answer.
    pub reason: String,
}

/// What became of all requests.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// GETs.
    pub gets: Tally,
    /// POSTs.
    pub posts: Tally,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// The longest time a request took, failed or not.
    pub slowest: Duration,
    /// `x-request-id`s of POSTs answered with 2xx.
    pub posts_done: Vec<String>,
    /// Those of POSTs that failed.
    pub posts_failed: Vec<String>,
}

impl LoadReport {
    fn add(&mut self, other: Self) {
        for (sum, part) in [(&mut self.gets, other.gets), (&mut self.posts, other.posts)] {
            sum.ok += part.ok;
            sum.failed += part.failed;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.at);
        self.failures.truncate(FAILURES_KEPT);
        self.posts_done.extend(other.posts_done);
        self.posts_failed.extend(other.posts_failed);
    }
}

/// Load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<LoadReport>>>,
}

impl Load {
    pub(super) fn start(host: &Host, plan: LoadPlan) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let begin = Instant::now();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let threads = (0..plan.connections.max(1))
            .map(|index| {
                let place = host.share_place()?;
                let worker = Worker {
                    plan: plan.clone(),
                    stop: Arc::clone(&stop),
                    done: Arc::clone(&done),
                    begin,
                    number,
                    index,
                    connection: None,
                    report: LoadReport::default(),
                };
                std::thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn(move || {
                        place.enter()?;
                        Ok(worker.run())
                    })
                    .context("a thread for load")
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            stop,
            done,
            threads,
        })
    }

    /// Returns how many requests have ended, well or not.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the load once every request in flight has ended; returns what became of all.
    ///
    /// # Errors
    /// If a thread could not do its work.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = LoadReport::default();
        for thread in std::mem::take(&mut self.threads) {
            report.add(
                thread
                    .join()
                    .map_err(|_| anyhow!("a load thread panicked"))??,
            );
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One connection's loop.
struct Worker {
    plan: LoadPlan,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    begin: Instant,
    number: u64,
    index: u32,
    connection: Option<Connection<TcpStream>>,
    report: LoadReport,
}

impl Worker {
    fn run(mut self) -> LoadReport {
        let connections = self.plan.connections.max(1);
        let pace = Duration::from_secs(1) * connections / self.plan.rate.max(1);
        // Spread over the pace, so that the connections do not beat in step.
        let mut due = self.begin + pace * self.index / connections;
        let mut count = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                std::thread::sleep(due - now);
            }
            // A stall is not made up for by a burst: the pace starts anew.
            due = (due + pace).max(now);
            self.once(count);
            count = count.wrapping_add(1);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        self.report
    }

    fn once(&mut self, count: u32) {
        let post = count % 10 < self.plan.posts_of_ten;
        let method = if post { "POST" } else { "GET" };
        let id = format!(
            "{}-{}-{}-{count}",
            std::process::id(),
            self.number,
            self.index
        );
        let start = Instant::now();
        let result = self.send(method, &id);
        self.report.slowest = self.report.slowest.max(start.elapsed());
        let tally = if post {
            &mut self.report.posts
        } else {
            &mut self.report.gets
        };
        match result {
            Ok(()) => {
                tally.ok += 1;
                if post {
                    self.report.posts_done.push(id);
                }
            }
            Err(error) => {
                tally.failed += 1;
                if self.report.failures.len() < FAILURES_KEPT {
                    self.report.failures.push(Failure {
                        at: start - self.begin,
                        method,
                        id: id.clone(),
                        reason: format!("{error:#} after {:?}", start.elapsed()),
                    });
                }
                if post {
                    self.report.posts_failed.push(id);
                }
            }
        }
    }

    fn send(&mut self, method: &'static str, id: &str) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::tcp_within(self.plan.address, self.plan.timeout)?,
        };
        let post = method == "POST";
        let (path, body) = if post {
            (&self.plan.post_path, Some(id))
        } else {
            (&self.plan.path, None)
        };
        let headers = [("host", self.plan.host.as_str()), ("x-request-id", id)];
        let response = connection.request(method, path, &headers, body)?;
        if connection.is_open() {
            self.connection = Some(connection);
        }
        if (200..300).contains(&response.status) {
            Ok(())
        } else {
            let text: String = response.text().chars().take(160).collect();
            Err(anyhow!("status {}: {text}", response.status))
        }
    }
}
