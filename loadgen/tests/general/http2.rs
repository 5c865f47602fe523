//! HTTP/2, over TLS and without.

use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ballast_loadgen::ErrorClass;
use ballast_loadgen::general::Driver;
use ballast_loadgen::plan::{Check, Pacing, Protocol, Template, Think};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::rig::{Count, drivers, errors, nobody, none, only, plan, run, server, with_body};
use crate::tls::Identity;

/// Answers the requests of one connection by `answer`, side by side.
async fn serve<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

/// Reads a body to its end.
async fn read(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).ok();
        all.extend_from_slice(&piece);
    }
    all
}

fn answer(mut respond: SendResponse<Bytes>, status: u16, body: impl Into<Bytes>) -> Ready<()> {
    let head = Response::builder().status(status).body(()).expect("is one");
    if let Ok(mut stream) = respond.send_response(head, false) {
        stream.send_data(body.into(), true).ok();
    }
    ready(())
}

async fn echo(request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    answer(respond, 200, read(request.into_body()).await).await;
}

fn start<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    server(move |stream| serve(stream, answer.clone()))
}

fn h2c(address: SocketAddr, rate: f64, count: u64, streams: u32) -> ballast_loadgen::plan::Plan {
    let mut plan = plan(&format!("h2c://{address}/path?query"), rate, count);
    plan.protocol = Protocol::Http2 { streams };
    plan.connections = 2;
    plan
}

#[test]
fn every_request_is_answered_without_tls_and_with() {
    let identity = Identity::new("h2.test", &["h2"]);
    let acceptor = identity.acceptor.clone();
    let plain = start(echo);
    let secure = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, echo).await;
            }
        }
    });
    for driver in drivers() {
        for body in ["", "{{counter}} {{letters:10}}", &"x".repeat(200_000)] {
            let plan = with_body(h2c(plain, 200.0, 60, 4), body);
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none(), "{driver:?}");
            assert_eq!((recorder.counts().done, recorder.counts().opened), (60, 2));
            assert_eq!(recorder.statuses(), [(200, 60)].into());
            assert!(recorder.counts().received_bytes >= 60 * body.len() as u64 / 2);
            let secure = with_body(h2c(secure, 200.0, 60, 4), body);
            let recorder = run(driver, &identity.trusted(secure, "h2.test"));
            assert_eq!(errors(&recorder), none(), "{driver:?} TLS");
            assert_eq!(recorder.counts().opened, 2);
            assert_eq!(recorder.histograms()[4].1.len(), 2, "handshakes are timed");
        }
    }
}

#[test]
fn request_says_what_the_plan_says() {
    for driver in drivers() {
        let wrong = Count::default();
        let count = wrong.clone();
        let address = start(move |request, respond| {
            let count = count.clone();
            async move {
                let (head, body) = request.into_parts();
                let header = |name: &str| {
                    let value = head.headers.get(name).map(http::HeaderValue::as_bytes);
                    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
                };
                let number = header("x-number");
                let right = head.method == "PUT"
                    && head.uri.path() == format!("/{number}")
                    && head.uri.authority().is_some_and(|is| is == "example.test")
                    && header("x-request-id") == format!("run-{number}")
                    && header("content-length") == "4"
                    && !head.headers.contains_key("connection")
                    && read(body).await == b"body";
                if !right {
                    count.up();
                }
                answer(respond, 200, "ok").await;
            }
        });
        let mut plan = with_body(h2c(address, 200.0, 40, 4), "body");
        plan.request_ids = Some("run".to_owned());
        let request = &mut plan.targets[0].requests[0];
        request.method = http::Method::PUT;
        request.path = Template::parse("/{{counter}}").expect("parses");
        let header =
            |name: &str, value: &str| (name.to_owned(), Template::parse(value).expect("parses"));
        request.headers = vec![
            header("x-number", "{{counter}}"),
            header("host", "example.test"),
            header("connection", "keep-alive"),
        ];
        assert_eq!(errors(&run(driver, &plan)), none());
        assert_eq!(wrong.get(), 0, "{driver:?}");
    }
}

#[test]
fn streams_run_side_by_side_up_to_the_servers_limit() {
    for driver in drivers() {
        let (now, peak) = (Count::default(), Count::default());
        let (current, most) = (now.clone(), peak.clone());
        let hold = start(move |_, respond| {
            let (current, most) = (current.clone(), most.clone());
            async move {
                most.max(current.up() + 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
                current.down();
                answer(respond, 200, "ok").await;
            }
        });
        let mut plan = h2c(hold, 1.0, 1, 5);
        plan.connections = 1;
        plan.duration = Duration::from_millis(300);
        plan.pacing = Pacing::Closed { think: Think::None };
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        assert_eq!(recorder.counts().opened, 1);
        assert_eq!(peak.get(), 5, "{driver:?}");

        let narrow = server(|stream| async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1);
            if let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await {
                while let Some(Ok((_, respond))) = connection.accept().await {
                    tokio::spawn(answer(respond, 200, "ok"));
                }
            }
        });
        let recorder = run(driver, &h2c(narrow, 500.0, 100, 8));
        let refused = errors(&recorder);
        // Those sent before the server told its limit may be refused; no others.
        assert!(refused.keys().all(|class| *class == ErrorClass::Refused));
        assert!(refused.values().sum::<u64>() <= 16, "{refused:?}");
    }
}

#[test]
fn large_answers_pass_the_flow_control_windows() {
    const BYTES: usize = 5_000_000;
    let address = start(|_, respond| answer(respond, 200, vec![b'x'; BYTES]));
    for driver in drivers() {
        let mut plan = h2c(address, 20.0, 10, 4);
        plan.checks = vec![Check::BodyBytes(BYTES as u64)];
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none(), "{driver:?}");
        assert!(recorder.counts().received_bytes >= 10 * BYTES as u64);
    }
}

#[test]
fn reset_and_refused_streams_have_their_classes_and_keep_the_connection() {
    for driver in drivers() {
        let seen = Count::default();
        let count = seen.clone();
        let address = start(move |_, mut respond| {
            let turn = count.up() % 4;
            async move {
                match turn {
                    0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    1 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                    2 => {
                        // In the middle of a body.
                        let head = Response::new(());
                        if let Ok(mut stream) = respond.send_response(head, false) {
                            stream.send_data("par".into(), false).ok();
                            stream.send_reset(h2::Reason::PROTOCOL_ERROR);
                        }
                    }
                    _ => answer(respond, 200, "ok").await,
                }
            }
        });
        let recorder = run(driver, &h2c(address, 500.0, 100, 4));
        let expected =
            [ErrorClass::Refused, ErrorClass::Reset, ErrorClass::Protocol].map(|class| (class, 25));
        assert_eq!(errors(&recorder), expected.into(), "{driver:?}");
        assert_eq!(seen.get(), 100, "nothing is sent twice");
        assert_eq!(recorder.counts().opened, 2);
    }
}

#[test]
fn orderly_goaway_fails_nothing_and_a_sudden_one_fails_what_is_in_flight() {
    for driver in drivers() {
        for sudden in [false, true] {
            let seen = Count::default();
            let count = seen.clone();
            let address = server(move |stream| {
                let count = count.clone();
                async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    let mut served = 0;
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        count.up();
                        served += 1;
                        if served < 10 {
                            tokio::spawn(answer(respond, 200, "ok"));
                        } else if sudden {
                            connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR);
                        } else {
                            tokio::spawn(answer(respond, 200, "ok"));
                            connection.graceful_shutdown();
                        }
                    }
                }
            });
            // One stream: what is in flight at a GOAWAY is the request that brought it about.
            let mut plan = h2c(address, 500.0, 100, 1);
            plan.connections = 1;
            let recorder = run(driver, &plan);
            let failed = errors(&recorder);
            if sudden {
                assert_eq!(failed, only(ErrorClass::Reset, 10), "{driver:?}");
            } else {
                assert_eq!(failed, none(), "{driver:?}");
            }
            assert_eq!(seen.get(), 100, "nothing is sent twice");
            assert!((10..=11).contains(&recorder.counts().opened));
        }
    }
}

#[test]
fn garbage_silence_and_nobody_have_their_classes() {
    let garbage = server(|mut stream| async move {
        stream.write_all(&[0xff; 100]).await.ok();
        while stream
            .read(&mut [0; 1024])
            .await
            .is_ok_and(|count| count > 0)
        {}
    });
    let http1 = server(|mut stream| async move {
        stream.read_u8().await.ok();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .ok();
        while stream
            .read(&mut [0; 1024])
            .await
            .is_ok_and(|count| count > 0)
        {}
    });
    let mute = server(|mut stream| async move {
        while stream
            .read(&mut [0; 1024])
            .await
            .is_ok_and(|count| count > 0)
        {}
    });
    let close = server(|mut stream| async move {
        // All that there is, or the close would be a reset.
        stream.read_buf(&mut Vec::with_capacity(4096)).await.ok();
    });
    for driver in drivers() {
        for (address, class) in [
            (garbage, ErrorClass::Protocol),
            (http1, ErrorClass::Protocol),
            (mute, ErrorClass::Timeout),
            (close, ErrorClass::Reset),
            (nobody(), ErrorClass::Refused),
        ] {
            let mut plan = h2c(address, 200.0, 40, 4);
            if class == ErrorClass::Timeout {
                plan.timeouts.request = Duration::from_millis(100);
            }
            assert_eq!(errors(&run(driver, &plan)), only(class, 40), "{driver:?}");
        }
    }
}

#[test]
fn statuses_and_checks_are_told_apart() {
    for driver in drivers() {
        let seen = Count::default();
        let address = start(move |_, respond| {
            let (status, body) = match seen.up() % 4 {
                0 => (503, "fine"),
                1 => (200, "foul"),
                _ => (200, "fine"),
            };
            answer(respond, status, body)
        });
        let mut plan = h2c(address, 500.0, 100, 4);
        plan.checks = vec![Check::BodyContains(b"fine".to_vec())];
        let recorder = run(driver, &plan);
        let expected = [(ErrorClass::Status, 25), (ErrorClass::Check, 25)];
        assert_eq!(errors(&recorder), expected.into(), "{driver:?}");
        assert_eq!(recorder.statuses()[&503], 25, "the status is kept");
        plan.checks = vec![Check::Status(vec![503])];
        let recorder = run(driver, &plan);
        assert_eq!(recorder.counts().errors[ErrorClass::Status.index()], 75);
    }
}

#[test]
fn churn_renews_connections_without_an_error() {
    let address = start(echo);
    for driver in drivers() {
        let mut plan = h2c(address, 500.0, 100, 1);
        plan.connections = 1;
        plan.churn.requests_per_connection = Some(20);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        assert_eq!(recorder.counts().opened, 5, "{driver:?}");
        let mut plan = h2c(address, 2000.0, 400, 8);
        plan.churn.requests_per_connection = Some(20);
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        assert!(recorder.counts().opened >= 10, "{driver:?}");
    }
}

/// The server answers nothing for a while: every request that is due then waits for its end, and
/// says so, on however few connections.
#[test]
fn stall_of_the_server_shows_in_full() {
    const STALL: Duration = Duration::from_millis(600);
    for driver in drivers() {
        let begin = Instant::now();
        let (from, to) = (begin + STALL / 2, begin + STALL / 2 + STALL);
        let address = start(move |_, respond| async move {
            let now = Instant::now();
            if now >= from && now < to {
                tokio::time::sleep_until(to.into()).await;
            }
            answer(respond, 200, "ok").await;
        });
        let mut plan = h2c(address, 500.0, 750, 2);
        plan.connections = 1;
        let mut recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none());
        let records = recorder.take_records();
        assert_eq!(records.len(), 750);
        let late = |ms: u64| {
            records
                .iter()
                .filter(|one| one.latency_us() >= ms * 1000)
                .count()
        };
        // Of 600 ms at 500 a second, those due in the first 500 ms wait 100 ms or more.
        assert!(late(100) >= 230, "{driver:?}: {}", late(100));
        assert!(late(500) >= 40, "{driver:?}: {}", late(500));
        // Only the two that were in flight took so long to answer.
        let slow = records
            .iter()
            .filter(|one| one.service_time_us() >= 500_000);
        assert!(slow.count() <= 4, "{driver:?}");
    }
}

#[test]
fn lanes_drive_their_share() {
    use ballast_loadgen::control::Control;
    use ballast_loadgen::plan::Lane;
    use ballast_loadgen::recorder::Recorder;
    let address = start(echo);
    for driver in drivers() {
        let plan = std::sync::Arc::new(h2c(address, 400.0, 100, 2));
        let zero = Instant::now() + Duration::from_millis(20);
        let lanes: Vec<_> = (0..2)
            .map(|index| {
                let plan = plan.clone();
                std::thread::spawn(move || lane(driver, Lane { plan, index, of: 2 }, zero))
            })
            .collect();
        let mut numbers = Vec::new();
        for lane in lanes {
            let mut recorder = lane.join().expect("ends");
            assert_eq!(errors(&recorder), none());
            assert_eq!(recorder.counts().done, 50);
            numbers.extend(recorder.take_records().iter().map(|one| one.number));
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "each once");
    }

    fn lane(driver: Driver, lane: Lane, zero: Instant) -> Recorder {
        let recorder = Recorder::of(&lane);
        ballast_loadgen::general::run(&lane, zero, recorder, driver, &Control::default())
            .expect("runs")
    }
}
