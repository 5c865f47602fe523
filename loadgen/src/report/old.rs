//! The recorder as the engine on tokio's epoll feeds it: whole records, in microseconds.

use std::time::{Duration, SystemTime};

use super::{About, Report};
use crate::config::Load;
use crate::record::Record;
use crate::recorder::Recorder;
use crate::sample::Sample;

/// What is gathered while a run goes on.
pub(crate) struct Stats {
    recorder: Recorder,
    keep: bool,
    pub(crate) records: Vec<Record>,
}

impl Stats {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            recorder: Recorder::new(),
            keep,
            records: Vec::new(),
        }
    }

    pub(crate) fn released(&mut self, lag_us: u64) {
        self.recorder.released(0, lag_us * 1000);
    }

    pub(crate) fn done(&mut self, record: Record) {
        self.recorder.done(&Sample {
            number: record.number,
            target: 0,
            request: 0,
            due_ns: record.scheduled_us * 1000,
            sent_ns: record.sent_us * 1000,
            first_byte_ns: 0,
            done_ns: record.done_us * 1000,
            received_bytes: 0,
            sent_bytes: 0,
            outcome: record.result,
        });
        if self.keep {
            self.records.push(record);
        }
    }
}

impl Report {
    pub(crate) fn of_load(
        load: &Load,
        scheduled_for: Duration,
        stats: &Stats,
        cpu: Duration,
    ) -> Self {
        let about = About {
            engine: "tokio on epoll".to_owned(),
            expected: load.rate.map(|_| stats.recorder.counts().released as f64),
            duration: scheduled_for,
            connections: load.connections,
            targets: vec![load.target.authority.clone()],
            started: SystemTime::now() - scheduled_for,
            command: Vec::new(),
            host: super::host(),
            seed: load.seed,
            notes: Vec::new(),
        };
        let mut report = Self::new(&about, &stats.recorder);
        report.asked_rate = load.rate;
        report.generator.cpu_us_per_request =
            cpu.as_secs_f64() * 1e6 / report.requests.max(1) as f64;
        report
    }
}
