//! What a stand-alone ingress tells of single requests.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{Backend, Client, Ingress, Mode, header, service, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_has_a_line_for_each_request_with_the_id_the_endpoint_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let config = format!(
        "access_log: {{ to: {} }}\nrequest_id: true\n{}",
        path.display(),
        service(&[&backend])
    );
    let ingress = Ingress::start(&config).await;
    let mut client = Client::connect(ingress.http).await;
    let request = "POST /a?b=%22 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\"y\r\n\
                   Content-Length: 4\r\n\r\nbody";
    client.send(request).await;
    assert_eq!(client.receive().await.unwrap().status, 200);
    let told = header(&backend.last_head(), "x-request-id").unwrap();
    assert_eq!(told.len(), 32);
    client
        .send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: mine-1\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.unwrap().status, 200);
    let kept = header(&backend.last_head(), "x-request-id");
    assert_eq!(kept.as_deref(), Some("mine-1"));
    until("both lines are there", || async { lines(&path).len() == 2 }).await;
    let lines = lines(&path);
    let line = &lines[0];
    let expected: [(&str, Value); 13] = [
        ("client", "127.0.0.1".into()),
        ("method", "POST".into()),
        ("host", "a.test".into()),
        ("target", "/a?b=%22".into()),
        ("version", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("service", "web".into()),
        ("endpoint", backend.address.to_string().into()),
        ("attempts", 1.into()),
        ("received", 4.into()),
        ("sent", 3.into()),
        ("user_agent", "x\"y".into()),
        ("request_id", told.into()),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    let first_byte = line["first_byte_us"].as_u64().unwrap();
    assert!(first_byte > 0 && first_byte <= line["took_us"].as_u64().unwrap());
    assert_eq!(lines[1]["request_id"], "mine-1");
    let metrics = ingress.admin("/metrics").await;
    let counted = "ballast_ingress_access_log_lines_total 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_answers_are_logged_with_their_reason_and_samples_leave_failures_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let refused = common::free_address();
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "access_log: {{ to: {}, sample: 0 }}\nservices:\n  dead: {{ endpoints: [\"{refused}\"], \
         check: {{ interval: 1h }} }}\n  live: {{ endpoints: [\"{}\"] }}\nroutes:\n\
         - {{ match: {{ path_prefix: /dead }}, service: dead }}\n\
         - {{ match: {{ path_prefix: /live }}, service: live }}\n",
        path.display(),
        backend.address,
    ))
    .await;
    let mut client = Client::connect(ingress.http).await;
    for (path, status) in [("/live", 200), ("/none", 404)] {
        client
            .send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(client.receive().await.unwrap().status, status);
    }
    client.send("GET /dead HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let status = client.receive().await.unwrap().status;
    until("the failure is there", || async {
        !lines(&path).is_empty()
    })
    .await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["status"], status);
    assert_eq!(
        (&lines[0]["service"], &lines[0]["target"]),
        (&"dead".into(), &"/dead".into())
    );
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(
        ["no-endpoint", "connect-failed"].contains(&reason),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_goes_on_through_the_ingress_and_its_span_reaches_the_collector() {
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let config = format!(
        "traces: {{ otlp: \"{}\", sample: 0 }}\n{}",
        collector.local_addr().unwrap(),
        service(&[&backend])
    );
    let ingress = Ingress::start(&config).await;
    let mut client = Client::connect(ingress.http).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    client
        .send(&format!(
            "GET /a HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{trace}-{parent}-01\r\n\
             tracestate: x=y\r\n\r\n"
        ))
        .await;
    assert_eq!(client.receive().await.unwrap().status, 200);
    let head = backend.last_head();
    assert_eq!(header(&head, "tracestate").as_deref(), Some("x=y"));
    let told = header(&head, "traceparent").unwrap();
    let parts: Vec<&str> = told.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", trace, "01"));
    assert_ne!(parts[2], parent);
    let (mut socket, _) = collector.accept().await.unwrap();
    let mut read = String::new();
    let span = loop {
        let mut chunk = [0; 4096];
        let count = socket.read(&mut chunk).await.unwrap();
        assert!(count > 0, "ended too early: {read}");
        read.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        let body = read.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Ok(body) = serde_json::from_str::<Value>(body) {
            break body["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
        }
    };
    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    assert_eq!(span["traceId"], trace);
    assert_eq!(span["parentSpanId"], parent);
    assert_eq!(span["spanId"], parts[2]);
    // Without a client's trace one begins, unsampled here; the endpoint is told so.
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.receive().await.unwrap().status, 200);
    let told = header(&backend.last_head(), "traceparent").unwrap();
    assert!(told.ends_with("-00") && !told.contains(trace), "{told}");
}
