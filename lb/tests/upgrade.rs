//! One process takes over from another while clients go on.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ballast_lb::RawConfig;
use common::{Backend, Client, DEADLINE, Ingress, Mode, header, service, until};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

type Running = tokio::task::JoinHandle<Result<(), ballast_lb::IngressError>>;

/// A second process as far as sockets are concerned: it shares nothing else with the first.
fn successor(ingress: &Ingress) -> (CancellationToken, Running) {
    let config = RawConfig::from_file(&ingress.file)
        .and_then(RawConfig::validate)
        .unwrap();
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(ballast_lb::run(config, stop)))
}

async fn ended(running: Running) {
    let ended = tokio::time::timeout(DEADLINE, running).await;
    ended
        .expect("in time")
        .expect("no panic")
        .expect("ends well");
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU32,
    closed: AtomicU32,
}

/// Asks on one connection for as long as it is kept, and then on another. A connection may end only
/// after an answer that says so.
async fn keep_asking(address: std::net::SocketAddr, name: u32, seen: Arc<Seen>) {
    let mut client = Client::connect(address).await;
    let mut number = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        let id = format!("{name}-{number}");
        number += 1;
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        client
            .send(&format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: 2\r\n\r\nhi"
            ))
            .await;
        let answer = client.receive().await;
        let answer = answer.unwrap_or_else(|| panic!("{id} was lost"));
        assert_eq!(answer.status, 200, "{}", answer.head);
        seen.answered.fetch_add(1, Ordering::Relaxed);
        let connection = header(&answer.head, "connection").unwrap_or_default();
        if connection.eq_ignore_ascii_case("close") {
            seen.closed.fetch_add(1, Ordering::Relaxed);
            client = Client::connect(address).await;
        }
    }
}

async fn keep_asking_http2(address: std::net::SocketAddr, seen: Arc<Seen>) {
    while !seen.stop.load(Ordering::Relaxed) {
        let socket = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(socket);
        let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = made.unwrap();
        let connection = tokio::spawn(connection);
        while sender.ready().await.is_ok() && !seen.stop.load(Ordering::Relaxed) {
            let request = http::Request::get(format!("http://{address}/"));
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            match sender.send_request(request).await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.unwrap();
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                }
                // After GOAWAY the client itself does not send any more.
                Err(error) => {
                    assert!(error.is_canceled(), "{error:?}");
                    break;
                }
            }
        }
        seen.closed.fetch_add(1, Ordering::Relaxed);
        drop(sender);
        let _ = connection.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_take_over_from_each_other_and_no_request_fails() {
    const CLIENTS: u32 = 6;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("upgrade.sock");
    let backend = Backend::start("one", &[Mode::Slow(2)]).await;
    let config = format!(
        "upgrade: {{ socket: {}, drain: 20s }}\n{}",
        socket.display(),
        service(&[&backend])
    );
    let mut ingress = Ingress::start(&config).await;
    until("it can be taken over", || async { socket.exists() }).await;
    let seen = Arc::new(Seen::default());
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|name| tokio::spawn(keep_asking(ingress.http, name, Arc::clone(&seen))))
        .collect();
    clients.push(tokio::spawn(keep_asking_http2(
        ingress.http,
        Arc::clone(&seen),
    )));
    let mut before = ingress.ended.take().unwrap();
    let mut last = None;
    for round in 1..=3 {
        let answered = seen.answered.load(Ordering::Relaxed);
        until("clients are served", || async {
            seen.answered.load(Ordering::Relaxed) > answered + 100
        })
        .await;
        let (stop, next) = successor(&ingress);
        // Ends by itself, and only when the connections have moved.
        ended(before).await;
        until("all clients have moved", || async {
            seen.closed.load(Ordering::Relaxed) >= round * (CLIENTS + 1)
        })
        .await;
        until("the next one can take over", || async { socket.exists() }).await;
        before = next;
        last = Some(stop);
    }
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    assert_eq!(ingress.admin("/healthz").await, "ok\n");
    last.unwrap().cancel();
    ended(before).await;
    assert!(!socket.exists(), "the last one cleans up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successor_that_cannot_start_leaves_the_first_serving() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("upgrade.sock");
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let config = format!(
        "upgrade: {{ socket: {} }}\n{}",
        socket.display(),
        service(&[&backend])
    );
    let mut ingress = Ingress::start(&config).await;
    until("it can be taken over", || async { socket.exists() }).await;
    let taken = common::free_address();
    let _listener = std::net::TcpListener::bind(taken).unwrap();
    let text = std::fs::read_to_string(&ingress.file).unwrap();
    let text = text.replace(
        &format!("http: \"{}\"", ingress.http),
        &format!("http: \"{taken}\""),
    );
    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, text).unwrap();
    let config = RawConfig::from_file(&broken).and_then(RawConfig::validate);
    let error = ballast_lb::run(config.unwrap(), CancellationToken::new()).await;
    assert!(error.is_err());
    for _ in 0..20 {
        assert_eq!(common::get(ingress.http).await.status, 200);
    }
    assert!(!ingress.ended.as_ref().unwrap().is_finished());
    let (stop, next) = successor(&ingress);
    ended(ingress.ended.take().unwrap()).await;
    assert_eq!(common::get(ingress.http).await.status, 200);
    stop.cancel();
    ended(next).await;
}
