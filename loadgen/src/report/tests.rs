use std::io::Read;
use std::time::UNIX_EPOCH;

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::sample::{Opened, Sample};

const US: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

pub(crate) fn about(rate: Option<f64>) -> About {
    About {
        engine: "hot engine on epoll".to_owned(),
        expected: rate.map(|rate| rate * 3.0),
        duration: Duration::from_secs(3),
        connections: 64,
        targets: vec!["one.test".to_owned(), "two.test:81".to_owned()],
        started: UNIX_EPOCH + Duration::from_hours(500_000),
        command: vec!["ballast-loadgen".to_owned(), "http://one.test/".to_owned()],
        host: "here".to_owned(),
        seed: 1,
        notes: Vec::new(),
    }
}

/// Three seconds at 1,000/s: latencies from 1 to 2 ms, each hundredth 50 ms, each thousandth a
/// timeout.
pub(crate) fn recorder() -> Recorder {
    let mut recorder = Recorder::new();
    recorder.opened(&Opened {
        connect_ns: 90 * US,
        tls_ns: Some(900 * US),
    });
    let mut samples: Vec<_> = (0..3000_u64)
        .map(|number| {
            let due_ns = number * 1000 * US;
            let latency = match number {
                n if n % 100 == 50 => 50_000 * US,
                n => 1000 * US + n % 100 * 10 * US,
            };
            Sample {
                number,
                target: u16::from(number % 3 == 0),
                request: 0,
                due_ns,
                sent_ns: due_ns + 20 * US,
                first_byte_ns: due_ns + latency - 5 * US,
                done_ns: due_ns + latency,
                received_bytes: 300,
                sent_bytes: 60,
                outcome: if number % 1000 == 50 {
                    Err(ErrorClass::Timeout)
                } else {
                    Ok(200)
                },
            }
        })
        .collect();
    samples.sort_by_key(|sample| sample.done_ns);
    for sample in &samples {
        recorder.released(sample.due_ns, sample.due_ns + 15 * US);
        recorder.done(sample);
    }
    recorder.tick(3 * SECOND);
    recorder
}

pub(crate) fn report() -> Report {
    let mut report = Report::new(&about(Some(1000.0)), &recorder());
    // What depends on the machine.
    report.generator.rss_bytes = 5 << 20;
    report.generator.cpu_us_per_request = 7.5;
    report.generator.cpu_share = 0.25;
    report.generator.cpu_share_peak = 0.5;
    report.generator.wait_share = 0.0;
    for point in &mut report.series.points {
        (point.cpu_share, point.wait_share) = (0.25, 0.0);
    }
    let slos = ["p99<20ms", "errors<1%"].map(|slo| slo.parse().expect("parses"));
    report.assert(&slos);
    report
}

#[test]
fn json_has_the_names_of_the_contract() {
    let json = serde_json::to_value(report()).expect("serializes");
    assert_eq!(json["verdict"], "valid");
    assert_eq!(
        (json["reason"].as_str(), json["errors"]["timeout"].as_u64()),
        (Some(""), Some(3))
    );
    assert!(json["achieved_rate"].is_f64() && json["requests"].is_u64());
    for group in ["latency_us", "service_time_us"] {
        for name in ["p50", "p90", "p99", "p999", "max"] {
            assert!(json[group][name].is_u64(), "{group}.{name}");
        }
    }
    assert!(json["generator"]["cpu_us_per_request"].is_f64());
    assert!(json["generator"]["lag_us"]["p99"].is_u64());
    assert!(json["generator"]["rss_bytes"].is_u64());
}

/// Returns the paths of all names in `json`, with what they hold; lists by their first element.
fn shape(json: &serde_json::Value, path: &str, into: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                shape(value, &format!("{path}.{name}"), into);
            }
        }
        serde_json::Value::Array(list) => match list.first() {
            Some(first) => shape(first, &format!("{path}[]"), into),
            None => into.push(format!("{path}[]")),
        },
        other => into.push(format!("{path}: {}", kind(other))),
    }
}

fn kind(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "bool",
        serde_json::Value::Number(number) if number.is_f64() => "float",
        serde_json::Value::Number(_) => "integer",
        _ => "string",
    }
}

#[test]
fn golden_names_of_the_json() {
    let mut names = Vec::new();
    shape(
        &serde_json::to_value(report()).expect("serializes"),
        "",
        &mut names,
    );
    insta::assert_snapshot!(names.join("\n"));
}

#[test]
fn golden_table() {
    insta::assert_snapshot!(report().to_string());
}

#[test]
fn report_reads_what_it_wrote_and_what_the_first_version_wrote() {
    let report = report();
    let json = serde_json::to_string(&report).expect("serializes");
    let read: Report = serde_json::from_str(&json).expect("reads");
    assert_eq!(read.histogram("latency"), report.histogram("latency"));
    assert_eq!(
        (read.requests, read.errors, read.slos.len()),
        (3000, report.errors, 2)
    );
    assert_eq!(
        (read.verdict, read.series.heat.columns),
        (report.verdict, report.series.heat.columns)
    );
    let old = r#"{"verdict":"valid","reason":"","requests":3,"errors":{},"asked_rate":null,
        "achieved_rate":1.5,"duration_seconds":2.0,"connections":1,
        "latency_us":{"p50":1,"p90":1,"p99":1,"p999":1,"max":1},
        "service_time_us":{"p50":1,"p90":1,"p99":1,"p999":1,"max":1},
        "generator":{"cpu_us_per_request":1.0,"lag_us":{"p50":1,"p90":1,"p99":1,"p999":1,"max":1},
        "rss_bytes":1}}"#;
    assert_eq!(
        serde_json::from_str::<Report>(old).expect("reads").requests,
        3
    );
}

#[test]
fn percentiles_are_those_of_the_samples() {
    let report = report();
    let within = |found: u64, truth: u64| found.abs_diff(truth) * 1000 <= truth;
    assert!(
        within(report.latency_us.p50, 1_490),
        "{:?}",
        report.latency_us
    );
    assert!(
        within(report.latency_us.p999, 50_000),
        "{:?}",
        report.latency_us
    );
    let phases = report.phases_us;
    assert!(within(phases.connect.expect("connected").p50, 90));
    assert!(within(phases.tls.expect("shook hands").p50, 900));
    assert_eq!(phases.last_byte.expect("answered").p50, 5);
    assert_eq!(report.targets[1].requests, 1000);
}

#[test]
fn csv_has_a_line_for_each_point_and_as_many_columns_as_names() {
    let csv = report().series.csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("start_s,seconds,released,requests,rate,failed,"));
    assert!(lines[0].ends_with(",unreachable,overload,ports,descriptors,other"));
    assert_eq!(
        lines.len(),
        1 + 3 + 1,
        "three seconds, and what was answered after them"
    );
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])));
    let requests = lines[1..]
        .iter()
        .map(|line| line.split(',').nth(3).expect("is there"));
    assert_eq!(
        requests
            .map(|n| n.parse::<u64>().expect("is a number"))
            .sum::<u64>(),
        3000
    );
}

#[test]
fn heat_map_holds_every_request_that_was_sent() {
    let report = report();
    let heat = &report.series.heat;
    assert_eq!(heat.columns.len(), report.series.points.len());
    assert_eq!(heat.columns.iter().flatten().sum::<u64>(), 3000);
    assert!(
        heat.lowest_us > 800.0 && heat.lowest_us < 1000.0,
        "{}",
        heat.lowest_us
    );
}

#[test]
fn hlog_is_read_by_the_library_of_the_format() {
    let mut log = Vec::new();
    let report = report();
    hlog::write(&mut log, &report).expect("writes");
    let mut of_points = 0;
    let mut tags = BTreeMap::new();
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.expect("parses") else {
            continue;
        };
        let mut text = Vec::new();
        let encoded = interval.encoded_histogram().as_bytes();
        base64::read::DecoderReader::new(encoded, &base64::engine::general_purpose::STANDARD)
            .read_to_end(&mut text)
            .expect("decodes");
        let read: Histogram<u32> = Deserializer::new()
            .deserialize(&mut text.as_slice())
            .expect("reads");
        match interval.tag() {
            Some(tag) => drop(tags.insert(tag.as_str().to_owned(), read)),
            None => of_points += read.len(),
        }
    }
    assert_eq!(of_points, 3000);
    assert_eq!(tags.get("latency"), report.histogram("latency").as_ref());
    assert_eq!(tags.len(), 7);
}

#[test]
fn objectives_decide_the_exit_status_and_invalid_goes_before() {
    let mut report = report();
    assert_eq!(report.exit_status(), 0);
    report
        .assert(&["p99<20ms", "rate>1001", "errors.tls=0"].map(|slo| slo.parse().expect("parses")));
    assert_eq!(report.exit_status(), 1);
    let missed: Vec<_> = report.slos.iter().filter(|slo| !slo.met).collect();
    assert!(
        missed[0].miss.starts_with("rate>1001: it is 999.7"),
        "{missed:?}"
    );
    report.verdict = Verdict::Invalid;
    assert_eq!(report.exit_status(), 3);
}

#[test]
fn objective_of_what_was_not_measured_is_missed() {
    let report = Report::new(&about(None), &Recorder::new());
    let slo: Slo = "tls.p99<1s".parse().expect("parses");
    assert_eq!(
        slo.miss(&report).expect("is missed"),
        "tls.p99<1s: nothing of it was measured"
    );
    let slo: Slo = "errors<1%".parse().expect("parses");
    assert!(slo.miss(&report).is_some(), "no request was made");
}

#[test]
fn numbers_are_grouped_and_bytes_have_units() {
    let counts: Vec<_> = [0.0, 7.25, 100.0, 1234.4, 1e6].map(table::count).into();
    assert_eq!(counts, ["0", "7.2", "100", "1,234", "1,000,000"]);
    assert_eq!(
        [12.0, 2048.0, 3e6].map(table::bytes),
        ["12 B", "2.0 KiB", "2.9 MiB"]
    );
}

#[test]
fn table_fits_80_columns_up_to_a_day() {
    for us in [0.5, 9_999_999.0, 86_400_000_000.0] {
        assert_eq!(table::ms(us).len(), 8, "{us}");
    }
    let mut report = report();
    report.latency_us.max = 86_400_000_000;
    let text = report.to_string();
    let spans = text.lines().skip_while(|line| !line.starts_with("ms "));
    for line in spans.take_while(|line| !line.starts_with("target")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn first_failure_of_a_class_is_told_in_words_and_kept_when_merged() {
    let mut recorder = recorder();
    let mut other = recorder.clone();
    recorder.reason(ErrorClass::Timeout, "first");
    recorder.reason(ErrorClass::Timeout, "second");
    recorder.reason(ErrorClass::Tls, "of a class that is not counted");
    other.reason(ErrorClass::Timeout, "x".repeat(1000));
    let text = serde_json::to_string(&recorder).expect("writes");
    let mut merged: Recorder = serde_json::from_str(&text).expect("reads");
    merged.merge(&other);
    let report = Report::new(&about(Some(1000.0)), &merged);
    let told: Vec<_> = report.error_reasons.iter().collect();
    assert_eq!(told, [(&"timeout".to_owned(), &"first".to_owned())]);
    assert!(report.to_string().contains("\n  timeout        first\n"));
    let long = Report::new(&about(Some(1000.0)), &other);
    assert_eq!(long.error_reasons["timeout"].chars().count(), 201);
    assert!(html::page(&report).contains("<td class=\"text dim\">first</td>"));
}

#[test]
fn targets_of_one_host_are_told_apart_by_their_paths() {
    let mut plan = crate::Plan::http("http://127.0.0.1:1/x?{{counter}}").expect("a plan");
    let alone = About::of(&plan, "", Duration::ZERO, SystemTime::UNIX_EPOCH);
    let host = plan.targets[0].authority.clone();
    assert_eq!(alone.targets, std::slice::from_ref(&host));
    plan.targets.push(plan.targets[0].clone());
    let both = About::of(&plan, "", Duration::ZERO, SystemTime::UNIX_EPOCH);
    assert_eq!(both.targets, vec![format!("{host}/x?{{{{counter}}}}"); 2]);
}
