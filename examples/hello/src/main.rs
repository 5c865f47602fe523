//! `ballast-hello`: the small HTTP target of the examples, the demo, the tests and the benches.
//!
//! It starts in about a millisecond, stays small, and keeps books: every request that carries an
//! `X-Request-Id` is counted by (method, id), so that a balancer that sends one twice is found out.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | 200 with slot and task id |
//! | `POST /`, any other method | 200 with the same; `?delay=5ms` answers later |
//! | `GET /healthz` | 200, never counted |
//! | `GET /ledger` | JSON `{executions, duplicates}`, never counted |
//!
//! # Environment
//!
//! `PORT` (or `BALLAST_PORT_HTTP`) is the port on `0.0.0.0`. For tests that need a bad program:
//!
//! - `HELLO_LEDGER=FILE`: appends a line `method id slot pid` per counted request, before it is
//!   answered; one file serves all replicas.
//! - `HELLO_START_DELAY=200ms`: listens only after that long.
//! - `HELLO_EXIT_AFTER=1s`: exits with `HELLO_EXIT_STATUS` (default 1) after that long.
//! - `HELLO_IGNORE_TERM=1`: SIGTERM does nothing.
//! - `HELLO_FORK=N`: starts N children that outlive it.
//! - `HELLO_LOG_RATE=N`: writes N numbered lines a second to standard output.
//!
//! Deliberately absent: TLS, HTTP/2, pipelining beyond one request after the other.

mod ledger;
mod nasty;
mod request;
mod server;

use std::time::Duration;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    if std::env::var_os(nasty::CHILD_MARK).is_some() {
        nasty::be_a_child();
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(server::run())
}

/// Returns the duration in `text`: `5ms`, `2s`, `100us`; a bare number is milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// Returns the duration in the environment variable `name`, if it is set.
///
/// # Errors
/// Names the variable if its value does not parse.
fn duration_from_env(name: &str) -> anyhow::Result<Option<Duration>> {
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    let parsed = duration(&text).with_context(|| format!("{name}={text} is not a duration"))?;
    Ok(Some(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("7"), Some(Duration::from_millis(7)));
        assert_eq!(duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(duration("100us"), Some(Duration::from_micros(100)));
        for bad in ["", "s", "5h", "-1s", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
