//! What routes do, on real sockets: over HTTP/1.1 and, where the other path differs, HTTP/2.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{Answer, Backend, Client, DEADLINE, Ingress, Mode, header, until};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::protocols::http::compression::Algorithm;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request on a connection of its own.
async fn ask(address: SocketAddr, text: &str) -> Answer {
    let mut client = Client::connect(address).await;
    client.send(text).await;
    let answer = tokio::time::timeout(DEADLINE, client.receive()).await;
    answer.expect("in time").expect("answers")
}

async fn get(address: SocketAddr, path: &str, fields: &str) -> Answer {
    let text = format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n");
    ask(address, &text).await
}

/// The same over HTTP/2, without the body.
async fn get_h2(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> http::Response<Bytes> {
    let socket = TcpStream::connect(address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("shakes hands");
    tokio::spawn(connection);
    let mut request = http::Request::get(format!("http://a.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("answers");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    http::Response::from_parts(head, body)
}

fn services(backends: &[(&str, &Backend)]) -> String {
    let lines = backends.iter().map(|(name, backend)| {
        let address = backend.address;
        format!("  {name}: {{ endpoints: [\"{address}\"], check: {{ interval: 1h }} }}\n")
    });
    format!("services:\n{}routes:\n", lines.collect::<String>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_and_response_are_changed_on_both_paths() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "{}- match: {{ path_prefix: /api }}\n  service: web\n  then:\n    \
         rewrite: {{ prefix: /v2, host: inner.test }}\n    \
         request_headers: {{ set: {{ x-env: prod }}, remove: [x-secret] }}\n    \
         response_headers: {{ set: {{ x-via: ballast }} }}\n",
        services(&[("web", &backend)])
    ))
    .await;
    let answer = get(ingress.http, "/api/x?q=1", "x-secret: 1\r\nx-env: dev\r\n").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "one"));
    assert_eq!(header(&answer.head, "x-via").as_deref(), Some("ballast"));
    let over_h1 = backend.last_head();
    let fields = [("x-secret", "1"), ("x-env", "dev")];
    let response = get_h2(ingress.http, "/api/x?q=1", &fields).await;
    assert_eq!(response.headers()["x-via"], "ballast");
    for head in [over_h1, backend.last_head()] {
        assert!(head.starts_with("GET /v2/x?q=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "host").as_deref(), Some("inner.test"));
        assert_eq!(header(&head, "x-env").as_deref(), Some("prod"), "{head}");
        assert_eq!(header(&head, "x-secret"), None);
        let asked = header(&head, "x-forwarded-host");
        assert_eq!(asked.as_deref(), Some("a.test"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route_answers_instead_of_an_endpoint() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "{}- match: {{ path_prefix: /old }}\n  then: {{ redirect: {{ prefix: /new, status: 301 }} }}\n\
         - match: {{ path_prefix: /closed }}\n  then: {{ maintenance: {{ body: later }} }}\n\
         - match: {{ path_prefix: /inner }}\n  service: web\n  then: {{ access: {{ allow: [10.0.0.0/8] }} }}\n\
         - match: {{ path_prefix: /limited }}\n  service: web\n  then: {{ rate_limit: {{ requests: 2, per: 1h }} }}\n\
         - match: {{ path_prefix: /cors }}\n  service: web\n  then: {{ cors: {{ origins: [\"https://b.test\"] }} }}\n\
         - match: {{ path_prefix: /none }}\n  service: none\n  then: {{ fallback: {{ status: 200, body: cached }} }}\n",
        services(&[("web", &backend)]).replace("routes:", "  none: { endpoints: [] }\nroutes:")
    ))
    .await;
    let at = ingress.http;
    let moved = get(at, "/old/x?q=1", "").await;
    assert_eq!(moved.status, 301);
    let location = header(&moved.head, "location");
    assert_eq!(location.as_deref(), Some("http://a.test/new/x?q=1"));
    let closed = get(at, "/closed", "").await;
    assert_eq!((closed.status, closed.body.as_str()), (503, "later"));
    assert_eq!(get(at, "/inner", "").await.status, 403);
    assert_eq!(get(at, "/x/../inner", "").await.status, 403);
    assert_eq!(get(at, "//inner", "").await.status, 400);
    for expected in [200, 200, 429, 429] {
        assert_eq!(get(at, "/limited", "").await.status, expected);
    }
    assert_eq!(
        get_h2(at, "/limited", &[]).await.status(),
        429,
        "one bucket"
    );
    let shared = get(at, "/cors", "origin: https://b.test\r\n").await;
    let allowed = header(&shared.head, "access-control-allow-origin");
    assert_eq!(allowed.as_deref(), Some("https://b.test"));
    let cached = get(at, "/none", "").await;
    assert_eq!((cached.status, cached.body.as_str()), (200, "cached"));
    assert_eq!(get_h2(at, "/old", &[]).await.status(), 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_past_its_limit_is_refused_however_it_is_framed() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "{}- service: web\n  then: {{ limits: {{ body: 10, head: 1k }} }}\n",
        services(&[("web", &backend)])
    ))
    .await;
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{rest}");
    for (text, status) in [
        (post("content-length: 10\r\n\r\n0123456789"), 200),
        (post("content-length: 11\r\n\r\n0123456789a"), 413),
        (
            post("transfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n"),
            413,
        ),
        (
            post(&format!(
                "x-long: {}\r\ncontent-length: 0\r\n\r\n",
                "x".repeat(2000)
            )),
            431,
        ),
    ] {
        assert_eq!(ask(ingress.http, &text).await.status, status, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_and_split_choose_the_service() {
    let stable = Backend::start("stable", &[Mode::Answer]).await;
    let canary = Backend::start("canary", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "{}- {{ service: stable }}\n\
         - match: {{ cookies: [{{ name: beta, exact: \"1\" }}] }}\n  service: canary\n\
         - match: {{ path_prefix: /split }}\n  then: {{ split: {{ by: {{ header: x-user }}, \
         to: [{{ service: stable, weight: 1 }}, {{ service: canary, weight: 1 }}] }} }}\n",
        services(&[("stable", &stable), ("canary", &canary)])
    ))
    .await;
    let at = ingress.http;
    assert_eq!(get(at, "/", "").await.body, "stable");
    assert_eq!(get(at, "/", "cookie: a=b; beta=1\r\n").await.body, "canary");
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let field = format!("x-user: {user}\r\n");
        let first = get(at, "/split", &field).await.body;
        assert_eq!(
            get(at, "/split", &field).await.body,
            first,
            "user {user} stays"
        );
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "both have users");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_reaches_the_mirror_and_costs_the_request_nothing() {
    let web = Backend::start("web", &[Mode::Answer]).await;
    let shadow = Backend::start("shadow", &[Mode::Hang]).await;
    let ingress = Ingress::start(&format!(
        "{}- service: web\n  then: {{ mirror: {{ service: shadow }} }}\n",
        services(&[("web", &web), ("shadow", &shadow)])
    ))
    .await;
    let post = "POST /x HTTP/1.1\r\nhost: a\r\nx-id: copied\r\ncontent-length: 4\r\n\r\nbody";
    let answer = ask(ingress.http, post).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "web"));
    until("the copy comes", || async { shadow.count("copied") == 1 }).await;
    let head = shadow.last_head();
    assert!(head.starts_with("POST /x HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "x-ballast-mirror").as_deref(), Some("1"));
    assert_eq!(web.count("copied"), 1);
}

/// A server that answers everything with this text, in chunks or with its length.
async fn text_server(text: &'static str, chunked: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\netag: \"1\"\r\n";
                    let length = text.len();
                    let whole = if chunked {
                        let framing = "transfer-encoding: chunked\r\n\r\n";
                        format!("{head}{framing}{length:x}\r\n{text}\r\n0\r\n\r\n")
                    } else {
                        format!("{head}content-length: {length}\r\n\r\n{text}")
                    };
                    if socket.write_all(whole.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_compressed_as_the_route_prefers_and_the_client_takes() {
    let text: &'static str = Box::leak("all work and no play ".repeat(500).into_boxed_str());
    for chunked in [false, true] {
        let address = text_server(text, chunked).await;
        let ingress = Ingress::start(&format!(
            "services: {{ web: {{ endpoints: [\"{address}\"], check: {{ interval: 1h }} }} }}\n\
             routes:\n- service: web\n  then: {{ compression: {{}} }}\n"
        ))
        .await;
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, br;q=0.9", Some("gzip")),
            ("br", Some("br")),
            ("identity", None),
        ] {
            let fields = [("accept-encoding", accept)];
            let response = get_h2(ingress.http, "/", &fields).await;
            let said = response.headers().get("content-encoding");
            let said = said.map(|value| value.to_str().expect("text"));
            assert_eq!(said, coding, "{accept}");
            assert_eq!(response.headers()["vary"], "accept-encoding");
            let weak = coding.map_or("\"1\"", |_| "W/\"1\"");
            assert_eq!(response.headers()["etag"], weak);
            let body = response.body();
            match coding {
                None => assert_eq!(body, text),
                Some("zstd") => assert!(body.len() < 500, "{}", body.len()),
                Some("br") => {
                    let mut whole = Vec::new();
                    let read = brotli::BrotliDecompress(&mut &body[..], &mut whole);
                    assert!(read.is_ok() && whole == text.as_bytes(), "{}", whole.len());
                }
                Some(_) => {
                    let decoder = Algorithm::Gzip.decompressor(true);
                    let whole = decoder.expect("is known").encode(body, true);
                    assert!(whole.expect("is whole") == text);
                }
            }
        }
        // Over HTTP/1.1 the compressed body has chunks, and they end.
        let mut client = Client::connect(ingress.http).await;
        client
            .send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n")
            .await;
        let mut whole = Vec::new();
        let read = client.socket.read_to_end(&mut whole);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("in time")
            .expect("reads");
        assert!(
            whole.len() < 1000 && whole.ends_with(b"0\r\n\r\n"),
            "{}",
            whole.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_stays_at_the_endpoint_of_its_cookie() {
    let one = Backend::start("one", &[Mode::Answer]).await;
    let two = Backend::start("two", &[Mode::Answer]).await;
    let ingress = Ingress::start(&format!(
        "services:\n  web:\n    endpoints: [\"{}\", \"{}\"]\n    check: {{ interval: 1h }}\n    \
         balance: {{ sticky: {{}} }}\nroutes: [{{ service: web }}]\n",
        one.address, two.address
    ))
    .await;
    for _ in 0..5 {
        let first = get(ingress.http, "/", "").await;
        let cookie = header(&first.head, "set-cookie").expect("is set");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        for _ in 0..5 {
            let field = format!("cookie: {cookie}\r\n");
            let next = get(ingress.http, "/", &field).await;
            assert_eq!(next.body, first.body);
            assert_eq!(header(&next.head, "set-cookie"), None, "is not set again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_endpoint_is_helped_by_a_second_one_for_what_may_run_twice() {
    let (hung, live) = tokio::join!(
        Backend::start("hung", &[Mode::Hang]),
        Backend::start("live", &[Mode::Answer])
    );
    // Nothing but the second attempt ends the wait: no timeout, no ejection.
    let ingress = Ingress::start(&format!(
        "services:\n  web:\n    endpoints: [\"{}\", \"{}\"]\n    check: {{ interval: 1h }}\n    \
         balance: {{ policy: round_robin }}\nroutes:\n- service: web\n  then: {{ timeouts: {{ \
         hedge: 1ms, read: 1h }} }}\n",
        hung.address, live.address
    ))
    .await;
    for _ in 0..6 {
        let answer = get(ingress.http, "/", "x-id: get\r\n").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "live"));
    }
    assert!(hung.count("get") > 0, "none was at the slow one first");
    assert_eq!(live.count("get"), 6, "each is answered once");
    let metrics = ingress.admin("/metrics").await;
    let none = "ballast_ingress_hedges_total{service=\"web\"} 0\n";
    assert!(!metrics.contains(none), "{metrics}");
}
