//! A report for people, in plain text.

use std::fmt;

use super::{Percentiles, Report, Verdict};

/// Most targets that are listed one by one.
const MAX_TARGETS: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = match self.asked_rate {
            Some(asked) => format!("{} of {} /s asked", count(self.achieved_rate), count(asked)),
            None => format!("{} /s", count(self.achieved_rate)),
        };
        writeln!(
            f,
            "{} requests in {:.1} s, {rate}, {} connections",
            count(self.requests as f64),
            self.duration_seconds,
            self.connections
        )?;
        self.failures(f)?;
        self.spans(f)?;
        self.by_target(f)?;
        writeln!(
            f,
            "bytes            {} received ({}/s), {} sent ({}/s)",
            bytes(self.bytes.received as f64),
            bytes(self.bytes.received_per_second),
            bytes(self.bytes.sent as f64),
            bytes(self.bytes.sent_per_second)
        )?;
        let generator = &self.generator;
        writeln!(
            f,
            "generator        {:.1} µs CPU a request, {:.0} % of its core (peak {:.0} %), {}",
            generator.cpu_us_per_request,
            generator.cpu_share * 100.0,
            generator.cpu_share_peak * 100.0,
            bytes(generator.rss_bytes as f64)
        )?;
        if !self.engine.is_empty() {
            writeln!(f, "engine           {}", self.engine)?;
        }
        for note in &self.notes {
            writeln!(f, "note             {note}")?;
        }
        for slo in &self.slos {
            let (mark, text) = if slo.met {
                ("met   ", &slo.slo)
            } else {
                ("MISSED", &slo.miss)
            };
            writeln!(f, "objective        {mark} {text}")?;
        }
        match self.verdict {
            Verdict::Valid => writeln!(f, "valid"),
            Verdict::Invalid => writeln!(f, "INVALID: {}", self.reason),
        }
    }
}

impl Report {
    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.failed() as f64 / self.requests.max(1) as f64 * 100.0;
        write!(f, "failed           {}", count(self.failed() as f64))?;
        if self.failed() > 0 {
            write!(f, " ({share:.3} %):")?;
        }
        for (class, failed) in &self.errors {
            write!(f, "  {class} {}", count(*failed as f64))?;
        }
        writeln!(f)?;
        for (class, why) in &self.error_reasons {
            writeln!(f, "  {class:<14} {why}")?;
        }
        if self.statuses.keys().any(|status| *status != 200) {
            write!(f, "statuses        ")?;
            for (status, answers) in &self.statuses {
                write!(f, " {status}: {} ", count(*answers as f64))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn spans(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Within 80 columns.
        write!(f, "ms          ")?;
        for name in ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            write!(f, " {name:>8}")?;
        }
        writeln!(f)?;
        let phases = &self.phases_us;
        // Where answers come whole, what is between their first and last bytes is no figure.
        let last_byte = phases.last_byte.filter(|span| span.p999 > 0);
        for (name, row) in [
            ("latency", Some(self.latency_us)),
            ("service time", Some(self.service_time_us)),
            ("first byte", phases.first_byte),
            ("last byte", last_byte),
            ("connect", phases.connect),
            ("tls", phases.tls),
            ("own lag", self.asked_rate.map(|_| self.generator.lag_us)),
        ] {
            if let Some(row) = row {
                span(f, name, &row)?;
            }
        }
        Ok(())
    }

    fn by_target(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.targets.len() < 2 {
            return Ok(());
        }
        for target in self.targets.iter().take(MAX_TARGETS) {
            write!(
                f,
                "target           {}: {} requests, {} failed, mean {:.3} ms",
                target.name,
                count(target.requests as f64),
                count(target.failed as f64),
                target.latency_mean_us / 1e3
            )?;
            match &target.latency_us {
                Some(row) => writeln!(f, ", p99 {:.3} ms", row.p99 as f64 / 1e3)?,
                None => writeln!(f)?,
            }
        }
        if let Some(more @ 1..) = self.targets.len().checked_sub(MAX_TARGETS) {
            writeln!(f, "                 and {more} more")?;
        }
        Ok(())
    }
}

fn span(f: &mut fmt::Formatter<'_>, name: &str, row: &Percentiles) -> fmt::Result {
    write!(f, "{name:12} {}", ms(row.mean))?;
    for us in [row.p50, row.p90, row.p99, row.p999, row.p9999, row.max] {
        write!(f, " {}", ms(us as f64))?;
    }
    writeln!(f)
}

/// Returns microseconds as milliseconds, in eight columns up to a day.
pub(super) fn ms(us: f64) -> String {
    match us / 1e3 {
        ms if ms < 9_999.999_5 => format!("{ms:8.3}"),
        ms if ms < 999_999.95 => format!("{ms:8.1}"),
        ms => format!("{ms:8.0}"),
    }
}

/// Returns a number with its thousands apart; with one place after the point below 100 if it is
/// not whole.
pub(crate) fn count(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes in the unit that suits it.
pub(crate) fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return match unit {
                "B" => format!("{number:.0} B"),
                _ => format!("{number:.1} {unit}"),
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}
