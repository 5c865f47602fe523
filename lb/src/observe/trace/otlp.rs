//! Sends spans to a collector: OTLP over HTTP, in its JSON encoding.
//!
//! A thread of its own with plain blocking sockets: nothing of it is near a request, and the
//! encoding of a span waits until it is here.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ballast_model::Timestamp;
use serde_json::{Value, json};

use super::{GATHER, Span};
use crate::observe::Entry;

/// Spans in one message.
const BATCH: usize = 512;
/// How long connecting, writing and reading may each take; then the batch is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server span in OTLP's numbering.
const KIND_SERVER: u32 = 2;
/// A failed one.
const STATUS_ERROR: u32 = 2;

/// What is told of one request.
#[derive(Debug)]
pub(super) struct Ended {
    span: Span,
    at: Timestamp,
    took: Duration,
    client: IpAddr,
    tls: bool,
    method: String,
    host: String,
    path: String,
    version: String,
    status: u16,
    reason: String,
    service: String,
    route: String,
    endpoint: Option<SocketAddr>,
    attempts: u32,
}

impl Ended {
    pub(super) fn new(span: &Span, entry: &Entry<'_>) -> Self {
        let path = entry.target.split_once('?').map(|(path, _)| path);
        Self {
            span: span.clone(),
            at: entry.at,
            took: entry.took,
            client: entry.client,
            tls: entry.tls,
            method: entry.method.to_owned(),
            host: entry.host.to_owned(),
            path: path.unwrap_or(entry.target).to_owned(),
            version: entry.version.to_owned(),
            status: entry.status,
            reason: entry.reason.to_owned(),
            service: entry.service.to_owned(),
            route: entry.route.to_owned(),
            endpoint: entry.endpoint,
            attempts: entry.attempts,
        }
    }

    fn encode(&self) -> Value {
        let begin = u128::from(self.at.0) * 1000;
        let end = begin + self.took.as_nanos();
        let mut span = json!({
            "traceId": format!("{:032x}", self.span.trace),
            "spanId": format!("{:016x}", self.span.id),
            "name": self.method,
            "kind": KIND_SERVER,
            "startTimeUnixNano": begin.to_string(),
            "endTimeUnixNano": end.to_string(),
            "attributes": self.attributes(),
        });
        if self.span.parent != 0 {
            span["parentSpanId"] = format!("{:016x}", self.span.parent).into();
        }
        if self.status >= 500 {
            span["status"] = json!({ "code": STATUS_ERROR });
        }
        span
    }

    /// Names as in OpenTelemetry's semantic conventions for HTTP; ours begin with `ballast`.
    fn attributes(&self) -> Vec<Value> {
        let version = self.version.strip_prefix("HTTP/");
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = self.endpoint.map(|address| address.to_string());
        let texts = [
            ("http.request.method", self.method.as_str()),
            ("url.scheme", scheme),
            ("url.path", &self.path),
            ("server.address", &self.host),
            ("network.protocol.version", version.unwrap_or_default()),
            ("client.address", &self.client.to_string()),
            ("http.route", &self.route),
            ("ballast.service", &self.service),
            ("ballast.reason", &self.reason),
            ("ballast.endpoint", endpoint.as_deref().unwrap_or_default()),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let texts = texts.map(|(key, text)| json!({"key": key, "value": {"stringValue": text}}));
        let numbers = [
            ("http.response.status_code", u32::from(self.status)),
            ("ballast.attempts", self.attempts),
        ];
        let numbers = numbers.into_iter();
        let numbers =
            numbers.map(|(key, n)| json!({"key": key, "value": {"intValue": n.to_string()}}));
        texts.chain(numbers).collect()
    }
}

/// Sends what comes, until nothing more can come. What the collector does not take is lost; the
/// first failure in a row is told.
pub(super) fn send_all(collector: &str, ended: &Receiver<Ended>) {
    let mut failing = false;
    while let Ok(first) = ended.recv() {
        let batch = gather(first, ended);
        match send(collector, &batch) {
            Ok(()) => failing = false,
            Err(error) if failing => tracing::debug!(%error, collector, "spans not sent"),
            Err(error) => {
                tracing::warn!(%error, collector, "spans not sent");
                failing = true;
            }
        }
    }
}

fn gather(first: Ended, ended: &Receiver<Ended>) -> Vec<Ended> {
    let until = Instant::now() + GATHER;
    let mut batch = vec![first];
    while batch.len() < BATCH {
        let left = until.saturating_duration_since(Instant::now());
        match ended.recv_timeout(left) {
            Ok(next) => batch.push(next),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

fn send(collector: &str, batch: &[Ended]) -> io::Result<()> {
    let spans: Vec<Value> = batch.iter().map(Ended::encode).collect();
    let name = json!({"key": "service.name", "value": {"stringValue": "ballast-ingress"}});
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [name]},
        "scopeSpans": [{"scope": {"name": "ballast", "version": version}, "spans": spans}],
    }]})
    .to_string();
    let address = collector
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: {collector}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body.as_bytes())?;
    let mut status = [0; 12];
    socket.read_exact(&mut status)?;
    if status.starts_with(b"HTTP/1.") && status[9] == b'2' {
        return Ok(());
    }
    let status = String::from_utf8_lossy(&status).into_owned();
    Err(io::Error::other(format!("the collector answered {status}")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::metrics::Traffic;
    use crate::observe::Named;

    #[test]
    fn collector_is_told_of_ended_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let collector = listener.local_addr().expect("is bound").to_string();
        let (queue, ended) = sync_channel(10);
        let thread = std::thread::spawn(move || send_all(&collector, &ended));
        let said = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = Span::parse(said, 0xabc).expect("is valid");
        let entry = Entry {
            at: Timestamp(1_700_000_000_000_000),
            client: [192, 0, 2, 7].into(),
            tls: true,
            method: "GET",
            host: "a.test",
            target: "/a?b",
            version: "HTTP/1.1",
            status: 503,
            reason: "no-endpoint",
            service: "web",
            route: "",
            endpoint: None,
            attempts: 0,
            traffic: Traffic::default(),
            took: Duration::from_micros(5),
            first_byte: None,
            user_agent: b"",
            referer: b"",
            named: &Named::default(),
        };
        queue.send(Ended::new(&span, &entry)).expect("takes it");
        drop(queue);
        let (mut socket, _) = listener.accept().expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("is open");
        let mut read = Vec::new();
        let mut chunk = [0; 4096];
        let body = loop {
            let count = socket.read(&mut chunk).expect("reads");
            read.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8_lossy(&read);
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str::<Value>(body)
            {
                break body;
            }
            assert!(count > 0, "ended too early: {text}");
        };
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .expect("writes");
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span["spanId"], "0000000000000abc");
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(span["startTimeUnixNano"], "1700000000000000000");
        assert_eq!(span["endTimeUnixNano"], "1700000000000005000");
        assert_eq!(span["status"]["code"], 2);
        let attributes = span["attributes"].as_array().expect("is a list");
        let status = json!({"key": "http.response.status_code", "value": {"intValue": "503"}});
        assert!(attributes.contains(&status), "{attributes:?}");
        thread.join().expect("ends when nothing more can come");
    }
}
