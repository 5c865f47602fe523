//! Unary gRPC, spoken by hand on the server's side.

use std::net::SocketAddr;

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::{Check, Plan, Protocol};
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};

use crate::rig::{Count, drivers, errors, none, plan, run, server, with_body};

/// What a call is answered with.
#[derive(Clone, Copy)]
enum Reply {
    Echo,
    Status(&'static str),
    HeadersOnly(&'static str),
    NoStatus,
    TwoMessages,
    Http(u16),
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers
}

fn reply(how: Reply, message: Bytes, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc");
    let (head, body, last) = match how {
        Reply::Http(status) => (head.status(status), message, None),
        Reply::HeadersOnly(status) => {
            let head = head.header("grpc-status", status).body(());
            respond.send_response(head.expect("is one"), true)?;
            return Ok(());
        }
        Reply::Echo => (head, message, Some("0")),
        Reply::Status(status) => (head, Bytes::new(), Some(status)),
        Reply::NoStatus => (head, message, None),
        Reply::TwoMessages => (
            head,
            [&message[..], &message[..]].concat().into(),
            Some("0"),
        ),
    };
    let mut stream = respond.send_response(head.body(()).expect("is one"), false)?;
    // In two pieces, in the middle of the prefix.
    let cut = body.len().min(3);
    stream.send_data(body.slice(..cut), false)?;
    stream.send_data(body.slice(cut..), last.is_none())?;
    match last {
        Some(status) => stream.send_trailers(trailers(status)),
        None => Ok(()),
    }
}

/// Answers the calls in turn as `replies` say; counts those that are not well-formed.
fn start(replies: &'static [Reply], malformed: Count) -> SocketAddr {
    let calls = Count::default();
    server(move |stream| {
        let (calls, malformed) = (calls.clone(), malformed.clone());
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let how = replies[usize::try_from(calls.up()).expect("fits") % replies.len()];
                let malformed = malformed.clone();
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut message = BytesMut::new();
                    while let Some(Ok(piece)) = body.data().await {
                        body.flow_control().release_capacity(piece.len()).ok();
                        message.put(piece);
                    }
                    let prefix = u32::try_from(message.len() - 5)
                        .expect("fits")
                        .to_be_bytes();
                    let well_formed = head.method == "POST"
                        && head.uri.path() == "/echo.Echo/Say"
                        && head.headers["content-type"] == "application/grpc"
                        && head.headers["te"] == "trailers"
                        && message[0] == 0
                        && message[1..5] == prefix;
                    if !well_formed {
                        malformed.up();
                    }
                    reply(how, message.freeze(), respond).ok();
                });
            }
        }
    })
}

fn calls(address: SocketAddr, body: &str) -> Plan {
    let mut plan = with_body(
        plan(&format!("grpc://{address}/echo.Echo/Say"), 400.0, 120),
        body,
    );
    plan.protocol = Protocol::Grpc { streams: 4 };
    plan.connections = 2;
    plan
}

#[test]
fn every_call_is_answered_and_checks_see_the_message() {
    let malformed = Count::default();
    let address = start(&[Reply::Echo], malformed.clone());
    for driver in drivers() {
        for body in ["", "message {{counter}}", &"x".repeat(100_000)] {
            let mut plan = calls(address, body);
            if body.len() > 1000 {
                plan.checks = vec![Check::BodyBytes(body.len() as u64)];
            }
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none(), "{driver:?} {}", body.len());
            assert_eq!(recorder.counts().done, 120);
        }
    }
    assert_eq!(malformed.get(), 0);
}

#[test]
fn status_of_grpc_counts_wherever_it_stands_and_a_missing_one_breaks_the_protocol() {
    let replies = &[
        Reply::Echo,
        Reply::Status("14"),
        Reply::HeadersOnly("7"),
        Reply::NoStatus,
        Reply::TwoMessages,
        Reply::Http(502),
    ];
    for driver in drivers() {
        let malformed = Count::default();
        let address = start(replies, malformed.clone());
        let recorder = run(driver, &calls(address, "hello"));
        let expected = [(ErrorClass::Status, 60), (ErrorClass::Protocol, 40)];
        assert_eq!(errors(&recorder), expected.into(), "{driver:?}");
        assert_eq!(recorder.statuses(), [(200, 20), (502, 20)].into());
        assert_eq!(malformed.get(), 0);
    }
}
