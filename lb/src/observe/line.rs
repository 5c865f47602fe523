//! One line of the access log: a JSON object, written without a detour.

use std::io::Write as _;
use std::net::IpAddr;

use ballast_model::Timestamp;

use super::Entry;

/// Bytes of one text that are kept: a client must not be able to fill the log with one request.
const TEXT_MAX: usize = 2048;

/// Appends the line, its end included. What is empty is left out.
pub(super) fn append(line: &mut Vec<u8>, entry: &Entry<'_>) {
    line.extend_from_slice(b"{\"time\":\"");
    time(line, entry.at);
    line.push(b'"');
    let client = match entry.client {
        IpAddr::V4(ip) => Shown::V4(ip),
        IpAddr::V6(ip) => Shown::V6(ip),
    };
    client.append(line);
    text(line, "method", entry.method.as_bytes());
    text(line, "host", entry.host.as_bytes());
    text(line, "target", entry.target.as_bytes());
    text(line, "version", entry.version.as_bytes());
    if entry.tls {
        line.extend_from_slice(b",\"tls\":true");
    }
    number(line, "status", entry.status.into());
    text(line, "reason", entry.reason.as_bytes());
    text(line, "service", entry.service.as_bytes());
    text(line, "route", entry.route.as_bytes());
    if let Some(endpoint) = entry.endpoint {
        let _ = write!(line, ",\"endpoint\":\"{endpoint}\"");
    }
    number(line, "attempts", entry.attempts.into());
    number(line, "received", entry.traffic.received);
    number(line, "sent", entry.traffic.sent);
    number(line, "took_us", micros(entry.took));
    if let Some(first_byte) = entry.first_byte {
        number(line, "first_byte_us", micros(first_byte));
    }
    text(line, "user_agent", entry.user_agent);
    text(line, "referer", entry.referer);
    text(line, "request_id", entry.named.request_id());
    if let Some(span) = entry.named.span() {
        let _ = write!(line, ",\"trace_id\":\"{:032x}\"", span.trace());
    }
    line.extend_from_slice(b"}\n");
}

/// An address, which needs no escapes.
enum Shown {
    V4(std::net::Ipv4Addr),
    V6(std::net::Ipv6Addr),
}

impl Shown {
    fn append(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b",\"client\":\"");
        match self {
            Self::V4(ip) => {
                for (place, octet) in ip.octets().into_iter().enumerate() {
                    if place > 0 {
                        line.push(b'.');
                    }
                    decimal(line, octet.into());
                }
            }
            Self::V6(ip) => {
                // Writing to a vector does not fail.
                let _ = write!(line, "{ip}");
            }
        }
        line.push(b'"');
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    key(line, name);
    decimal(line, value);
}

fn key(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

fn decimal(line: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        {
            digits[begin] = b'0' + (value % 10) as u8;
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[begin..]);
}

/// Appends a text that came from outside. Bytes that are no UTF-8 become U+FFFD: the line stays
/// JSON whatever a client sends.
fn text(line: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    key(line, name);
    line.push(b'"');
    for chunk in value[..value.len().min(TEXT_MAX)].utf8_chunks() {
        escaped(line, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    line.push(b'"');
}

fn escaped(line: &mut Vec<u8>, value: &[u8]) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\' && *byte != 0x7f;
    let mut rest = value;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| !plain(byte));
        let (good, bad) = rest.split_at(end.unwrap_or(rest.len()));
        line.extend_from_slice(good);
        let Some((&byte, after)) = bad.split_first() else {
            return;
        };
        if byte == b'"' || byte == b'\\' {
            line.extend_from_slice(&[b'\\', byte]);
        } else {
            let _ = write!(line, "\\u{byte:04x}");
        }
        rest = after;
    }
}

/// Appends a moment as RFC 3339 with microseconds, in UTC.
fn time(line: &mut Vec<u8>, at: Timestamp) {
    let (seconds, micros) = (at.0 / 1_000_000, at.0 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years: Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let clock = [second / 3600, second / 60 % 60, second % 60];
    padded(line, year, 4);
    for (mark, value) in [(b'-', month), (b'-', day)] {
        line.push(mark);
        padded(line, value, 2);
    }
    for (mark, value) in [b'T', b':', b':'].into_iter().zip(clock) {
        line.push(mark);
        padded(line, value, 2);
    }
    line.push(b'.');
    padded(line, micros, 6);
    line.push(b'Z');
}

fn padded(line: &mut Vec<u8>, value: u64, width: usize) {
    let begin = line.len();
    line.resize(begin + width, b'0');
    let mut left = value;
    for place in line[begin..].iter_mut().rev() {
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        {
            *place = b'0' + (left % 10) as u8;
        }
        left /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Traffic;
    use crate::observe::Named;

    fn entry<'a>(named: &'a Named, target: &'a str, user_agent: &'a [u8]) -> Entry<'a> {
        Entry {
            at: Timestamp(1_700_000_000_000_001),
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
            endpoint: Some(([127, 0, 0, 1], 9001).into()),
            attempts: 1,
            traffic: Traffic {
                received: 0,
                sent: 128,
            },
            took: Duration::from_micros(1234),
            first_byte: Some(Duration::from_micros(1200)),
            user_agent,
            referer: b"",
            named,
        }
    }

    fn line_of(entry: &Entry<'_>) -> Vec<u8> {
        let mut line = Vec::new();
        append(&mut line, entry);
        line
    }

    #[test]
    fn line_is_a_json_object_without_what_is_empty() {
        let named = Named::default();
        let line = line_of(&entry(&named, "/a?b=\"c\"", b"curl/8"));
        let value: Value = serde_json::from_slice(&line).expect("is JSON");
        let expected = json!({
            "time": "2023-11-14T22:13:20.000001Z", "client": "192.0.2.7", "method": "GET",
            "host": "a.test", "target": "/a?b=\"c\"", "version": "HTTP/1.1", "status": 200,
            "service": "web", "endpoint": "127.0.0.1:9001", "attempts": 1, "received": 0,
            "sent": 128, "took_us": 1234, "first_byte_us": 1200, "user_agent": "curl/8",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn one_request_cannot_fill_the_log() {
        let named = Named::default();
        let long = "x".repeat(100_000);
        let line = line_of(&entry(&named, &long, long.as_bytes()));
        assert!(line.len() < 3 * TEXT_MAX, "{}", line.len());
    }

    proptest! {
        #[test]
        fn prop_whatever_a_client_sends_is_one_line_of_json(
            target in ".{0,40}", agent in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let named = Named::default();
            let line = line_of(&entry(&named, &target, &agent));
            let end = line.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(end, Some(line.len() - 1));
            let value: Value = serde_json::from_slice(&line).expect("is JSON");
            prop_assert_eq!(value["target"].as_str().unwrap_or_default(), target);
        }

        #[test]
        fn prop_times_are_those_of_the_library(micros in 0..200_000_000_000_000_000u64) {
            let mut line = Vec::new();
            time(&mut line, Timestamp(micros));
            prop_assert_eq!(String::from_utf8(line).expect("text"), Timestamp(micros).to_string());
        }
    }
}
