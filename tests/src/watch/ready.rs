//! How many endpoints of a service an ingress holds ready, as a time line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::scrape::Scraper;
use crate::cluster::Cluster;

/// Port of an ingress's metrics in the harness.
const INGRESS_ADMIN: u16 = 7431;
/// Between two looks at the time line by who waits for it.
const POLL: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct Line {
    /// When a look first saw a number, and which: at most one look too late, never too early.
    changes: Vec<(Instant, u32)>,
}

/// Watches an ingress from the client's host, on a thread of its own.
#[derive(Debug)]
pub struct ReadyWatch {
    line: Arc<Mutex<Line>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReadyWatch {
    /// Starts to watch the first ingress, with a look every `pause` and what a look takes.
    ///
    /// # Errors
    /// If there is no thread, or it cannot enter the client's host.
    pub fn start(cluster: &Cluster, service: &str, pause: Duration) -> Result<Self> {
        let line = Arc::new(Mutex::new(Line::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let scraper = Scraper::new(cluster.ingress(0).address(INGRESS_ADMIN));
        let (shared, stopped, service) = (line.clone(), stop.clone(), service.to_owned());
        // A thread starts in the network of the one that starts it.
        let thread = cluster.client().inside(move || {
            std::thread::Builder::new()
                .name("ready-watch".to_owned())
                .spawn(move || look(scraper, &service, pause, &shared, &stopped))
        })?;
        Ok(Self {
            line,
            stop,
            thread: Some(thread.context("a thread to watch the ingress")?),
        })
    }

    /// Returns how many endpoints are ready now.
    pub fn now(&self) -> u32 {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.changes.last().map_or(0, |(_, ready)| *ready)
    }

    /// Returns how many endpoints were ready at a moment.
    pub fn at(&self, moment: Instant) -> u32 {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let next = line.changes.partition_point(|(at, _)| *at <= moment);
        let last = next
            .checked_sub(1)
            .and_then(|index| line.changes.get(index));
        last.map_or(0, |(_, ready)| *ready)
    }

    /// Returns when the number of ready endpoints first satisfied `wanted` at or after `from`.
    pub fn first(&self, from: Instant, wanted: impl Fn(u32) -> bool) -> Option<Instant> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let start = line.changes.partition_point(|(at, _)| *at <= from);
        // What held before still held at `from`.
        if let Some((_, ready)) = start
            .checked_sub(1)
            .and_then(|index| line.changes.get(index))
            && wanted(*ready)
        {
            return Some(from);
        }
        line.changes[start..]
            .iter()
            .find(|(_, ready)| wanted(*ready))
            .map(|(at, _)| *at)
    }

    /// Waits until the number of ready endpoints satisfies `wanted` at or after `from`; returns
    /// when it did, or none if not before `deadline` has passed since `from`.
    pub fn wait(
        &self,
        from: Instant,
        deadline: Duration,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<Instant> {
        loop {
            if let Some(at) = self.first(from, &wanted) {
                return Some(at);
            }
            if from.elapsed() > deadline {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for ReadyWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(
    mut scraper: Scraper,
    service: &str,
    pause: Duration,
    line: &Mutex<Line>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(exposition) = scraper.scrape() {
            let seen = Instant::now();
            let ready: f64 = exposition
                .samples("ballast_ingress_endpoints")
                .filter(|sample| sample.has("service", service) && sample.has("state", "ready"))
                .map(|sample| sample.value)
                .sum();
            let ready = ready.clamp(0.0, f64::from(u32::MAX));
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped just above"
            )]
            let ready = ready as u32;
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            if line.changes.last().is_none_or(|(_, last)| *last != ready) {
                line.changes.push((seen, ready));
            }
        }
        std::thread::sleep(pause);
    }
}
