//! The table at the end, and the same as JSON.

use std::fmt;
use std::time::{Duration, Instant};

use ballast_loadgen::Outcome;
use serde_json::{Value, json};

use super::stage::ms;
use crate::watch::Window;

/// One fault or change.
#[derive(Debug)]
pub(super) struct Act {
    pub name: String,
    /// From the fault to its endpoints being out of the ingress's table.
    pub deregister: Option<Duration>,
    /// From the fault to as many endpoints taking traffic as wanted.
    pub replace: Option<Duration>,
    /// Why it did not heal.
    pub trouble: Option<String>,
    /// The requests that it may have harmed.
    pub window: Window,
}

#[derive(Debug)]
struct Row {
    act: Act,
    requests: usize,
    failed: usize,
    slowest: Duration,
}

/// What the demo showed.
#[derive(Debug)]
pub struct Report {
    isolation: &'static str,
    load: ballast_loadgen::Report,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(
        isolation: &'static str,
        zero: Instant,
        outcome: Outcome,
        acts: Vec<Act>,
    ) -> Self {
        let records = &outcome.records;
        let row = |act: Act| Row {
            requests: act.window.of(zero, records).count(),
            failed: act.window.failed(zero, records),
            slowest: act.window.slowest(zero, records),
            act,
        };
        Self {
            isolation,
            rows: acts.into_iter().map(row).collect(),
            load: outcome.report,
        }
    }

    /// Returns whether no request failed and every fault healed.
    pub fn is_good(&self) -> bool {
        self.load.requests > 0
            && self.load.failed() == 0
            && self.rows.iter().all(|row| row.act.trouble.is_none())
    }

    /// Returns the report as JSON.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "fault": row.act.name,
                    "deregister_ms": row.act.deregister.map(ms),
                    "replace_ms": row.act.replace.map(ms),
                    "requests": row.requests,
                    "failed_requests": row.failed,
                    "slowest_request_ms": ms(row.slowest),
                    "healed": row.act.trouble.is_none(),
                    "trouble": row.act.trouble,
                })
            })
            .collect();
        json!({
            "ok": self.is_good(),
            "isolation": self.isolation,
            "requests": self.load.requests,
            "failed_requests": self.load.failed(),
            "faults": rows,
            "load": self.load,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |span: Option<Duration>| {
            span.map_or_else(|| "–".to_owned(), |span| format!("{:.1} ms", ms(span)))
        };
        writeln!(
            f,
            "{:28} {:>13} {:>13} {:>9} {:>7} {:>11}  healed",
            "", "deregistered", "replaced", "requests", "failed", "slowest"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:28} {:>13} {:>13} {:>9} {:>7} {:>11}  {}",
                row.act.name,
                span(row.act.deregister),
                span(row.act.replace),
                row.requests,
                row.failed,
                span(Some(row.slowest)),
                if row.act.trouble.is_none() {
                    "yes"
                } else {
                    "NO"
                },
            )?;
        }
        writeln!(
            f,
            "{:28} {:>13} {:>13} {:>9} {:>7} {:>11}",
            "all",
            "",
            "",
            self.load.requests,
            self.load.failed(),
            span(Some(Duration::from_micros(self.load.latency_us.max))),
        )?;
        for (class, count) in &self.load.errors {
            writeln!(f, "failed requests by class: {class} {count}")?;
        }
        write!(
            f,
            "{:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, on {}; the generator says: {:?}{}",
            self.load.achieved_rate,
            self.load.latency_us.p50 as f64 / 1e3,
            self.load.latency_us.p99 as f64 / 1e3,
            self.isolation,
            self.load.verdict,
            if self.load.reason.is_empty() {
                String::new()
            } else {
                format!(" ({})", self.load.reason)
            },
        )
    }
}
