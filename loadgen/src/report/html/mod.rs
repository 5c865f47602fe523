//! A report as one page: no script, nothing loaded from elsewhere, light, dark and on paper.

mod charts;
mod plot;

use std::fmt::Write as _;

use super::table::{bytes, count};
use super::{Percentiles, Report, Verdict};
use charts::span;

/// Most targets in the table.
const MAX_TARGETS: usize = 200;

/// Returns the page.
pub fn page(report: &Report) -> String {
    let mut html = String::with_capacity(1 << 16);
    html.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<title>Load test");
    if let Some(target) = report.targets.first() {
        let _ = write!(html, " of {}", escape(&target.name));
    }
    let _ = write!(
        html,
        "</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("style.css")
    );
    head(&mut html, report);
    tiles(&mut html, report);
    html.push_str("<div class=\"charts\">\n");
    for chart in [
        charts::percentiles(report),
        charts::heat(report),
        charts::latency(report),
        charts::rate(report),
        charts::bytes(report),
        charts::errors(report),
        charts::lag(report),
        charts::generator(report),
    ] {
        html.push_str(&chart);
    }
    html.push_str("</div>\n");
    slos(&mut html, report);
    spans(&mut html, report);
    counts(&mut html, report);
    targets(&mut html, report);
    about(&mut html, report);
    html.push_str("</body>\n</html>\n");
    html
}

/// Returns `text` so that nothing in it is taken for markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(html: &mut String, report: &Report) {
    let names: Vec<_> = report
        .targets
        .iter()
        .take(3)
        .map(|it| escape(&it.name))
        .collect();
    let more = report.targets.len().saturating_sub(names.len());
    let _ = write!(html, "<h1>Load test of {}", names.join(", "));
    if more > 0 {
        let _ = write!(html, " and {more} more");
    }
    let loop_kind = match report.asked_rate {
        Some(asked) => format!("open loop, {} requests/s asked", count(asked)),
        None => "closed loop".to_owned(),
    };
    let _ = writeln!(
        html,
        "</h1>\n<p class=\"dim\">{} · {:.1} s · {loop_kind} · {} connections · {}</p>",
        escape(&readable(&report.started)),
        report.duration_seconds,
        count(report.connections as f64),
        escape(&report.engine)
    );
    let _ = match report.verdict {
        Verdict::Valid => writeln!(
            html,
            "<div class=\"verdict valid\">Valid: the generator kept its schedule; the figures are the target's.</div>"
        ),
        Verdict::Invalid => writeln!(
            html,
            "<div class=\"verdict invalid\">INVALID: {}</div>",
            escape(&report.reason)
        ),
    };
    for note in &report.notes {
        let _ = writeln!(html, "<p class=\"dim\">Note: {}</p>", escape(note));
    }
}

/// Returns a time in RFC 3339 to the second, for people.
fn readable(time: &str) -> String {
    let whole = time.split('.').next().unwrap_or(time);
    format!("{} UTC", whole.trim_end_matches('Z').replacen('T', " ", 1))
}

fn tiles(html: &mut String, report: &Report) {
    let ms = |us: u64| span(us as f64 / 1e3);
    let share = report.failed() as f64 / report.requests.max(1) as f64 * 100.0;
    html.push_str("<div class=\"tiles\">\n");
    for (value, name) in [
        (count(report.requests as f64), "requests"),
        (count(report.achieved_rate), "requests/s"),
        (ms(report.latency_us.p50), "p50"),
        (ms(report.latency_us.p99), "p99"),
        (ms(report.latency_us.p999), "p99.9"),
        (ms(report.latency_us.max), "max"),
        (format!("{share:.2} %"), "failed"),
        (
            format!("{}/s", bytes(report.bytes.received_per_second)),
            "received",
        ),
    ] {
        let _ = writeln!(
            html,
            "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>"
        );
    }
    html.push_str("</div>\n");
}

fn slos(html: &mut String, report: &Report) {
    if report.slos.is_empty() {
        return;
    }
    html.push_str("<h2>Objectives</h2>\n<table>\n");
    for slo in &report.slos {
        let (class, text) = if slo.met {
            ("met", "met")
        } else {
            ("missed", "missed")
        };
        let _ = writeln!(
            html,
            "<tr><td><code>{}</code></td><td class=\"text {class}\">{text}</td><td class=\"text dim\">{}</td></tr>",
            escape(&slo.slo),
            escape(&slo.miss)
        );
    }
    html.push_str("</table>\n");
}

fn spans(html: &mut String, report: &Report) {
    html.push_str("<h2>Where the time went</h2>\n<div class=\"scroll\"><table>\n<tr><th></th>");
    for name in ["mean", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"] {
        let _ = write!(html, "<th>{name}</th>");
    }
    html.push_str("</tr>\n");
    let phases = &report.phases_us;
    for (name, row) in [
        ("Latency, from when due", Some(report.latency_us)),
        ("Service time, from when sent", Some(report.service_time_us)),
        ("To the first byte", phases.first_byte),
        ("From the first byte to the last", phases.last_byte),
        ("Connecting", phases.connect),
        ("TLS handshake", phases.tls),
        (
            "The generator's own lag",
            report.asked_rate.map(|_| report.generator.lag_us),
        ),
    ] {
        if let Some(row) = row {
            span_row(html, name, &row);
        }
    }
    html.push_str("</table></div>\n");
}

fn span_row(html: &mut String, name: &str, row: &Percentiles) {
    let _ = write!(html, "<tr><td>{name}</td><td>{}</td>", span(row.mean / 1e3));
    for us in [
        row.p50, row.p90, row.p95, row.p99, row.p999, row.p9999, row.max,
    ] {
        let _ = write!(html, "<td>{}</td>", span(us as f64 / 1e3));
    }
    html.push_str("</tr>\n");
}

fn counts(html: &mut String, report: &Report) {
    html.push_str(
        "<h2>What came back</h2>\n<table>\n<tr><th></th><th>requests</th><th>share</th><th></th></tr>\n",
    );
    let all = report.requests.max(1) as f64;
    let mut row = |name: String, number: u64, why: Option<&String>| {
        let share = number as f64 / all * 100.0;
        let number = count(number as f64);
        let _ = writeln!(
            html,
            "<tr><td>{name}</td><td>{number}</td><td>{share:.3} %</td><td class=\"text dim\">{}</td></tr>",
            why.map_or(String::new(), |why| escape(why))
        );
    };
    for (status, number) in &report.statuses {
        row(format!("Status {status}"), *number, None);
    }
    for (class, number) in &report.errors {
        row(
            format!("Failed: {}", escape(class)),
            *number,
            report.error_reasons.get(class),
        );
    }
    html.push_str("</table>\n");
}

fn targets(html: &mut String, report: &Report) {
    if report.targets.len() < 2 {
        return;
    }
    html.push_str("<h2>Targets</h2>\n<div class=\"scroll\"><table>\n<tr><th></th><th>requests</th><th>failed</th><th>mean</th><th>p50</th><th>p99</th><th>received</th></tr>\n");
    for target in report.targets.iter().take(MAX_TARGETS) {
        let of = |pick: fn(&Percentiles) -> u64| {
            let row = target.latency_us.as_ref();
            row.map_or("–".to_owned(), |row| span(pick(row) as f64 / 1e3))
        };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&target.name),
            count(target.requests as f64),
            count(target.failed as f64),
            span(target.latency_mean_us / 1e3),
            of(|row| row.p50),
            of(|row| row.p99),
            bytes(target.received_bytes as f64)
        );
    }
    html.push_str("</table></div>\n");
}

fn about(html: &mut String, report: &Report) {
    let generator = &report.generator;
    let _ = writeln!(
        html,
        "<h2>How it was made</h2>\n<p>The generator used {:.1} µs of CPU a request, {:.0} % of its \
         cores (at most {:.0} % of one in a second) and {}; it waited for a core {:.1} % of the \
         time. {} connections were opened. Seed {}.</p>",
        generator.cpu_us_per_request,
        generator.cpu_share * 100.0,
        generator.cpu_share_peak * 100.0,
        bytes(generator.rss_bytes as f64),
        generator.wait_share * 100.0,
        count(report.connections_opened as f64),
        report.seed
    );
    if !report.command.is_empty() {
        let _ = writeln!(
            html,
            "<p><code>{}</code></p>",
            escape(&report.command.join(" "))
        );
    }
    let _ = writeln!(
        html,
        "<p class=\"dim\">ballast-loadgen {} on {}</p>",
        env!("CARGO_PKG_VERSION"),
        escape(&report.host)
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn page_has_every_plot_and_needs_nothing_from_elsewhere() {
        let mut report = report();
        report.errors.insert("reset".to_owned(), 3);
        let page = page(&report);
        for title in [
            "Latency by percentile",
            "Latency heat map",
            "Latency over time",
            "Rate",
            "Bytes a second",
            "Failed requests",
            "The generator's lag",
            "The generator's CPU",
        ] {
            assert_eq!(
                page.matches(&format!("aria-label=\"{title}\"")).count(),
                1,
                "{title}"
            );
        }
        for foreign in [
            "<script", "http:", "https:", "@import", "url(", "NaN", "inf",
        ] {
            assert!(
                !page.replace("http://one.test/", "").contains(foreign),
                "{foreign}"
            );
        }
        for tag in ["svg", "figure", "table", "div", "p", "tr", "td", "h2"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(page.len() < 300_000, "{}", page.len());
    }

    #[test]
    fn what_a_user_wrote_is_no_markup() {
        let mut report = report();
        report.targets[0].name = "<script>alert('a&b')</script>".to_owned();
        report.command = vec!["--header".to_owned(), "<b>\"".to_owned()];
        report.verdict = Verdict::Invalid;
        report.reason = "<i>".to_owned();
        let page = page(&report);
        assert!(!page.contains("<script>") && !page.contains("<b>\"") && !page.contains("<i>"));
        assert!(page.contains("&lt;script&gt;alert(&#39;a&amp;b&#39;)"));
        assert!(page.contains("INVALID"));
    }

    #[test]
    fn run_in_which_nothing_happened_still_has_a_page() {
        let about = super::super::tests::about(None);
        let empty = Report::new(&about, &crate::recorder::Recorder::new());
        let page = page(&empty);
        assert!(page.contains("no request was made") && !page.contains("NaN"));
    }
}
