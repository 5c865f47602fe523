//! HTTP/1.1, over TLS and without.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::{Check, Plan, Protocol};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::rig::{Count, drivers, errors, nobody, none, only, plan, run, server, with_body};
use crate::tls::Identity;

async fn echo(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(http_body_util::Collected::to_bytes);
    Ok(http::Response::new(Full::new(body.unwrap_or_default())))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let mut connection = http1::Builder::new();
    connection.pipeline_flush(true);
    let stream = TokioIo::new(stream);
    connection
        .serve_connection(stream, service_fn(echo))
        .await
        .ok();
}

/// Answers each head that comes with `answer`, byte for byte, and closes when it says so.
fn by_hand(
    answer: impl Fn() -> (&'static str, bool) + Clone + Send + Sync + 'static,
) -> SocketAddr {
    server(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut heads = Vec::new();
            while stream
                .read_buf(&mut heads)
                .await
                .is_ok_and(|count| count > 0)
            {
                while let Some(end) = heads.windows(4).position(|four| four == b"\r\n\r\n") {
                    heads.drain(..end + 4);
                    let (bytes, closes) = answer();
                    stream.write_all(bytes.as_bytes()).await.ok();
                    if closes {
                        return;
                    }
                }
            }
        }
    })
}

fn pipelined(url: &str, count: u64, pipeline: u32) -> Plan {
    let mut plan = plan(url, 400.0, count);
    plan.protocol = Protocol::Http1 { pipeline };
    plan
}

#[test]
fn every_request_is_answered_without_tls_and_with_pipelined_and_not() {
    let identity = Identity::new("h1.test", &["http/1.1"]);
    let acceptor = identity.acceptor.clone();
    let plain = server(serve);
    let secure = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    });
    for driver in drivers() {
        for pipeline in [1, 4] {
            for body in ["", "{{counter}}", &"x".repeat(200_000)] {
                let plan = with_body(pipelined(&format!("http://{plain}/"), 80, pipeline), body);
                let recorder = run(driver, &plan);
                assert_eq!(errors(&recorder), none(), "{driver:?} {pipeline}");
                assert_eq!(recorder.statuses(), [(200, 80)].into());
                assert_eq!(recorder.counts().opened, 4);
                let plan = with_body(pipelined(&format!("https://{secure}/"), 80, pipeline), body);
                let recorder = run(driver, &identity.trusted(plan, "h1.test"));
                assert_eq!(errors(&recorder), none(), "{driver:?} {pipeline} TLS");
                assert_eq!(recorder.histograms()[4].1.len(), 4);
            }
        }
    }
}

#[test]
fn hostile_answers_have_their_classes() {
    let answers = [
        ("SSH-2.0-OpenSSH\r\n\r\n", false, ErrorClass::Protocol),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            true,
            ErrorClass::Reset,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc",
            false,
            ErrorClass::Protocol,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            false,
            ErrorClass::Timeout,
        ),
        (
            "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            false,
            ErrorClass::Status,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfoul",
            false,
            ErrorClass::Check,
        ),
        ("", true, ErrorClass::Reset),
        ("", false, ErrorClass::Timeout),
    ];
    for driver in drivers() {
        for (bytes, closes, class) in answers {
            let address = by_hand(move || (bytes, closes));
            let mut plan = pipelined(&format!("http://{address}/"), 20, 1);
            if class == ErrorClass::Timeout {
                plan.timeouts.request = Duration::from_millis(50);
            }
            plan.checks = vec![Check::BodyContains(b"fine".to_vec())];
            assert_eq!(
                errors(&run(driver, &plan)),
                only(class, 20),
                "{driver:?} {bytes}"
            );
        }
        let refused = run(driver, &pipelined(&format!("http://{}/", nobody()), 20, 4));
        assert_eq!(errors(&refused), only(ErrorClass::Refused, 20));
    }
}

#[test]
fn answers_that_close_are_answers_and_cost_a_connection_each() {
    for driver in drivers() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\n\r\nok",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ] {
            let address = by_hand(move || (bytes, true));
            let mut plan = pipelined(&format!("http://{address}/"), 40, 1);
            plan.checks = vec![Check::BodyBytes(2)];
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none(), "{driver:?} {bytes}");
            assert!(recorder.counts().opened >= 40);
        }
    }
}

#[test]
fn what_is_pipelined_behind_a_lost_answer_is_reset() {
    for driver in drivers() {
        let seen = Count::default();
        let count = seen.clone();
        // The fourth of each four is not answered, and takes its connection with it.
        let address = by_hand(move || match count.up() % 4 {
            3 => ("", true),
            _ => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        });
        let mut plan = pipelined(&format!("http://{address}/"), 100, 4);
        plan.connections = 1;
        let recorder = run(driver, &plan);
        let failed = errors(&recorder);
        let resets = failed.get(&ErrorClass::Reset).copied().unwrap_or_default();
        assert_eq!(
            failed.values().sum::<u64>(),
            resets,
            "{driver:?}: {failed:?}"
        );
        assert!((20..=80).contains(&resets), "{driver:?}: {resets}");
        assert_eq!(recorder.counts().done, 100);
    }
}

#[test]
fn what_is_pipelined_behind_a_request_that_times_out_is_reset() {
    let address = by_hand(|| ("", false));
    for driver in drivers() {
        let mut plan = plan(&format!("http://{address}/"), 10_000.0, 4);
        plan.protocol = Protocol::Http1 { pipeline: 4 };
        plan.connections = 1;
        plan.timeouts.request = Duration::from_secs(1);
        let recorder = run(driver, &plan);
        let expected = [(ErrorClass::Timeout, 1), (ErrorClass::Reset, 3)];
        assert_eq!(errors(&recorder), expected.into(), "{driver:?}");
    }
}
