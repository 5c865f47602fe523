//! A stand-alone ingress on real sockets.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Backend, Client, DEADLINE, Ingress, Mode, get, header, request, service, until};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_reaches_an_endpoint_and_says_who_asked() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&backend])).await;
    let mut client = Client::connect(ingress.http).await;
    client
        .send(
            "GET /a?b=c HTTP/1.1\r\nHost: Example.test:80\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Forwarded-Proto: gopher\r\nConnection: keep-alive, x-drop\r\nX-Drop: 1\r\n\
             Keep-Alive: 5\r\n\r\n",
        )
        .await;
    let answer = client.receive().await.expect("answers");
    assert_eq!((answer.status, answer.body.as_str()), (200, "one"));
    let head = backend.last_head();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    let said = |name: &str| header(&head, name);
    assert_eq!(said("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(said("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(said("x-forwarded-host").as_deref(), Some("Example.test:80"));
    assert_eq!(said("host").as_deref(), Some("Example.test:80"));
    assert_eq!((said("x-drop"), said("keep-alive")), (None, None), "{head}");
    // The same connection serves the next one.
    client
        .send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.expect("answers").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_answers_say_why() {
    let refused = common::free_address();
    let backend = Backend::start("one", &[Mode::CloseAfterBody]).await;
    let ingress = Ingress::start(&format!(
        "services:\n  none: {{ endpoints: [] }}\n  dead: {{ endpoints: [\"{refused}\"], check: \
         {{ interval: 1h }} }}\n  rude: {{ endpoints: [\"{}\"] }}\nroutes:\n\
         - {{ match: {{ path_prefix: /none }}, service: none }}\n\
         - {{ match: {{ path_prefix: /dead }}, service: dead }}\n\
         - {{ match: {{ path_prefix: /rude }}, service: rude }}\n",
        backend.address
    ))
    .await;
    for (method, path, status, reason) in [
        ("GET", "/other", 404, "no-route"),
        ("GET", "/none", 503, "no-endpoint"),
        ("GET", "/dead", 502, "connect-failed"),
        ("POST", "/rude", 502, "endpoint-failed"),
        ("HEAD", "/other", 404, "no-route"),
    ] {
        let mut client = Client::connect(ingress.http).await;
        let text = format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        client.send(&text).await;
        if method == "HEAD" {
            let mut head = vec![0; 4096];
            let count = client.socket.read(&mut head).await.expect("reads");
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            assert!(head.ends_with("\r\n\r\n"), "no body after {head}");
            continue;
        }
        let answer = client.receive().await.expect("answers");
        assert_eq!(answer.status, status, "{path}");
        let said = header(&answer.head, "x-ballast-reason");
        assert_eq!(said.as_deref(), Some(reason), "{path}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["status"], status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_connection_is_tried_elsewhere_even_for_a_post() {
    let dead = Backend::start("dead", &[Mode::Answer]).await;
    let live = Backend::start("live", &[Mode::Answer]).await;
    dead.kill();
    let ingress = Ingress::start(&service(&[&dead, &live])).await;
    for number in 0..50 {
        let id = format!("post-{number}");
        let answer = request(ingress.http, "POST", &id, "body").await;
        let answer = answer.expect("answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, "live"));
        assert_eq!(live.count(&id), 1);
    }
}

/// Every way of breaking off that a backend has, in every order: what was begun once is never
/// begun again unless its method allows it, and what is answered was executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_is_never_executed_twice_and_get_never_fails() {
    const NASTY: [Mode; 8] = [
        Mode::CloseAfterHead,
        Mode::AnswerThenClose,
        Mode::CloseAfterBody,
        Mode::Answer,
        Mode::ResetAfterBody,
        Mode::AnswerThenClose,
        Mode::HalfHead,
        Mode::Answer,
    ];
    let good = Backend::start("good", &[Mode::Answer]).await;
    let nasty = Backend::start("nasty", &[Mode::Answer]).await;
    let text = service(&[&good, &nasty]);
    let text = text.replace("] }", "], check: { interval: 20ms } }");
    // On a starved machine the good one may miss a probe, too, and be out for a moment.
    let text = format!("timeouts: {{ hold: 10s }}\n{text}");
    let ingress = Ingress::start(&text).await;
    let mut answered = 0;
    let mut round = 0;
    let begun = Instant::now();
    // What broke off is avoided for a while, so it takes time.
    while nasty.total() < 100 && begun.elapsed() < DEADLINE {
        round += 1;
        let mut modes = NASTY;
        modes.rotate_left(round % NASTY.len());
        nasty.set(&[&modes[..], &[Mode::AnswerThenClose]].concat());
        let requests = (0..10).map(|number| {
            let method = if number % 2 == 0 { "POST" } else { "GET" };
            let id = format!("{method}-{round}-{number}");
            let body = "x".repeat(number * 700);
            let address = ingress.http;
            tokio::spawn(async move {
                let answer = request(address, method, &id, &body).await;
                (method, id, answer)
            })
        });
        let requests: Vec<_> = requests.collect();
        for request in requests {
            let (method, id, answer) = request.await.expect("no panic");
            let executed = good.count(&id) + nasty.count(&id);
            let status = answer.as_ref().map(|answer| answer.status);
            if method == "POST" {
                assert!(executed <= 1, "{id} was executed {executed} times");
                if status == Some(200) {
                    assert_eq!(executed, 1, "{id}");
                    answered += 1;
                } else {
                    assert_eq!(status, Some(502), "{id}");
                }
            } else {
                assert_eq!(status, Some(200), "{id}: {answer:?}");
            }
        }
    }
    assert!(answered > 100, "only {answered} POSTs were answered");
    assert!(nasty.total() >= 100, "the nasty one was hardly asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_that_breaks_off_is_not_pretended_to_be_whole() {
    let backend = Backend::start("backend", &[Mode::HalfBody]).await;
    let other = Backend::start("other", &[Mode::HalfBody]).await;
    let ingress = Ingress::start(&service(&[&backend, &other])).await;
    assert!(request(ingress.http, "GET", "a", "").await.is_none());
    assert_eq!(backend.count("a") + other.count("a"), 1, "not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_at_a_hung_endpoint_moves_on_and_the_endpoint_is_out() {
    let hung = Backend::start("hung", &[Mode::Answer]).await;
    let live = Backend::start("live", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&hung, &live])).await;
    for number in 0..20 {
        assert_eq!(get(ingress.http).await.status, 200, "{number}");
    }
    hung.set(&[Mode::Hang]);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let one = Instant::now();
        let answer = get(ingress.http).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "live"),
            "{number}"
        );
        slowest = slowest.max(one.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(
        slowest > Duration::from_millis(10),
        "none was at the hung one"
    );
    println!("moved on after {slowest:?}, {:?} in all", begun.elapsed());
    let table = ingress.admin("/debug/table").await;
    assert!(table.contains("\"out\""), "{table}");
    // It accepts connections all the while: only an answer takes it in again.
    hung.set(&[Mode::Answer]);
    until("it is taken in again", || async {
        !ingress.admin("/debug/table").await.contains("\"out\"")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_passes_both_ways() {
    let backend = Backend::start("ws", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&backend])).await;
    for _ in 0..200 {
        let mut client = Client::connect(ingress.http).await;
        client
            .send(
                "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        assert_eq!(client.receive().await.expect("switches").status, 101);
        for size in [1usize, 100, 20_000] {
            let sent = vec![b'x'; size];
            client.socket.write_all(&sent).await.expect("writes");
            let mut got = vec![0; size];
            let read = client.socket.read_exact(&mut got);
            tokio::time::timeout(DEADLINE, read)
                .await
                .expect("in time")
                .expect("echoes");
            assert_eq!(got, sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_in_plain_text_is_spoken_and_short_http_is_not_mistaken_for_it() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&backend])).await;
    let socket = TcpStream::connect(ingress.http).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("shakes hands");
    tokio::spawn(connection);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let request = http::Request::get("http://example.test/x")
            .header("x-id", "h2")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        streams.push(sender.send_request(request));
    }
    for stream in streams {
        let response = stream.await.expect("answers");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "one");
    }
    let head = backend.last_head();
    assert_eq!(
        header(&head, "x-forwarded-host").as_deref(),
        Some("example.test")
    );
    assert_eq!(header(&head, "host").as_deref(), Some("example.test"));
    // 18 bytes: fewer than HTTP/2's preface.
    let mut client = Client::connect(ingress.http).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = tokio::time::timeout(DEADLINE, client.receive()).await;
    assert_eq!(answer.expect("in time").expect("answers").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_file_moves_traffic_without_a_failed_request_and_a_bad_one_changes_nothing() {
    let old = Backend::start("old", &[Mode::Slow(3)]).await;
    let new = Backend::start("new", &[Mode::Slow(3)]).await;
    let ingress = Ingress::start(&service(&[&old])).await;
    let (failed, stop) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (failed, stop, address) = (failed.clone(), stop.clone(), ingress.http);
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut count = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    client
                        .send(
                            "POST / HTTP/1.1\r\nhost: a\r\nx-id: p\r\ncontent-length: 2\r\n\r\nhi",
                        )
                        .await;
                    match client.receive().await {
                        Some(answer) if answer.status == 200 => count += 1,
                        other => {
                            eprintln!("{other:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                            client = Client::connect(address).await;
                        }
                    }
                }
                count
            })
        })
        .collect();
    until("the old one serves", || async { old.total() > 50 }).await;
    ingress.write("servics: {}\n");
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(new.total(), 0);
    ingress.write(&service(&[&new]));
    until("the new one serves", || async { new.total() > 50 }).await;
    // What was on its way to the old one may still arrive, if this machine is slow.
    until("150 in a row go to the new one", || async {
        let (at_old, at_new) = (old.total(), new.total());
        until("more come", || async { new.total() > at_new + 150 }).await;
        old.total() == at_old
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.expect("no panic") > 0);
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_listener_speaks_http2_and_http1_and_says_https() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let made = rcgen::generate_simple_self_signed(["example.test".to_owned()]).expect("makes");
    let dir = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("writes");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    let https = common::free_address();
    let text = format!(
        "listen: {{ https: \"{https}\" }}\nadmin: \"off\"\ntls: {{ certificate: \"{}\", key: \"{}\" }}\n{}",
        certificate.display(),
        key.display(),
        service(&[&backend])
    );
    let config = ballast_lb::RawConfig::from_text(&dir.path().join("lb.yaml"), &text)
        .and_then(ballast_lb::RawConfig::validate)
        .expect("is valid");
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(ballast_lb::run(config, stop.clone()));
    until("it listens", || async {
        TcpStream::connect(https).await.is_ok()
    })
    .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("adds");
    for alpn in [&b"h2"[..], &b"http/1.1"[..]] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpStream::connect(https).await.expect("connects");
        let name = "example.test".try_into().expect("a name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
            .expect("shakes hands");
        let request = http::Request::get("https://example.test/x")
            .header("host", "example.test")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let response = if alpn == b"h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .expect("shakes hands");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .expect("shakes hands");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        assert_eq!(response.expect("answers").status(), 200);
        let head = backend.last_head();
        assert_eq!(header(&head, "x-forwarded-proto").as_deref(), Some("https"));
    }
    stop.cancel();
    running.await.expect("no panic").expect("ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_tells_metrics_and_readiness() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&backend])).await;
    assert_eq!(get(ingress.http).await.status, 200);
    let metrics = ingress.admin("/metrics").await;
    for line in [
        "ballast_ingress_requests_total{service=\"web\",code=\"200\"} 1",
        "ballast_ingress_request_duration_seconds_count{service=\"web\"} 1",
        "ballast_ingress_endpoints{service=\"web\",state=\"ready\"} 1",
        "ballast_ingress_deregistration_seconds_count 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert_eq!(ingress.admin("/readyz").await, "ready\n");
    assert_eq!(ingress.admin("/healthz").await, "ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_a_request_end() {
    let backend = Backend::start("one", &[Mode::Slow(300)]).await;
    let mut ingress = Ingress::start(&service(&[&backend])).await;
    let asked = tokio::spawn(request(ingress.http, "POST", "last", "body"));
    until("it is in flight", || async { backend.count("last") == 1 }).await;
    ingress.stop.cancel();
    let answer = asked.await.expect("no panic").expect("answers");
    assert_eq!(answer.status, 200);
    let ended = ingress.ended.take().expect("runs");
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_is_served_on_io_uring_where_it_is_to_be_had() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!("io: uring\nthreads: 2\n{}", service(&[&backend]))).await;
    for size in [0, 1, 5000, 300_000] {
        let id = format!("post-{size}");
        let answer = request(ingress.http, "POST", &id, &"x".repeat(size)).await;
        assert_eq!(answer.expect("answers").body, "one", "{size}");
        assert_eq!(backend.count(&id), 1);
    }
    let mut client = Client::connect(ingress.http).await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.receive().await.expect("answers").status, 200);
    }
}
