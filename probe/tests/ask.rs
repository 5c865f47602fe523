//! Probes against listeners that answer, refuse, hang, hang up and talk nonsense.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ballast_probe::{ProbeError, Question, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LONG: Duration = Duration::from_secs(5);

/// Returns the address of a server that reads something and then sends `answer`.
async fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

fn get(address: SocketAddr) -> Question {
    Question::Http {
        address,
        path: "/".to_owned(),
        status: (200, 399),
    }
}

#[tokio::test]
async fn answer_in_the_range_is_a_success() {
    let address = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    ask(&get(address), LONG).await.expect("healthy");
    ask(&Question::Tcp { address }, LONG)
        .await
        .expect("accepts");
}

#[tokio::test]
async fn every_failure_is_named() {
    let address = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let failed = ask(&get(address), LONG).await;
    assert!(matches!(failed, Err(ProbeError::Status(503))));
    let address = server(b"SSH-2.0-OpenSSH\r\n").await;
    assert!(matches!(
        ask(&get(address), LONG).await,
        Err(ProbeError::NotHttp)
    ));
    let address = server(b"").await;
    assert!(matches!(
        ask(&get(address), LONG).await,
        Err(ProbeError::Closed)
    ));
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        listener.local_addr().expect("has an address")
    };
    let refused = ask(&get(free), LONG).await.expect_err("nobody listens");
    assert!(refused.is_refusal());
}

#[tokio::test]
async fn hung_server_accepts_and_fails_at_the_timeout() {
    // A backlog takes connections that nobody will ever accept: as a stopped process does.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    let begun = Instant::now();
    let failed = ask(&get(address), Duration::from_millis(30)).await;
    assert!(matches!(failed, Err(ProbeError::Timeout(_))));
    assert!(begun.elapsed() < Duration::from_secs(2));
    ask(&Question::Tcp { address }, LONG)
        .await
        .expect("TCP alone cannot tell");
}

#[tokio::test]
async fn endless_answer_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
    });
    ask(&get(address), LONG).await.expect("the status was good");
}
