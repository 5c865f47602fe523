//! What is taken out of heads and what is put in, in both directions.

use crate::{Script, Stage};

fn field(head: &str, name: &str) -> Option<String> {
    crate::common::header(head, name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_connection_stay_on_it() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\n\
                  Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-End: 2\r\n\
                  Content-Length: 0\r\n\r\n";
    let stage = Stage::new([("/t", Script::keep(answer))]).await;
    let mut client = stage.client().await;
    client
        .send(
            "GET /t HTTP/1.1\r\nHost: a\r\nConnection: X-Secret,,te ,x-other\r\nx-secret: 1\r\n\
             X-Secret: 2\r\nX-Other: 3\r\nTE: trailers\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: close\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-End: a, b\r\n\
             X-End: c\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    for name in ["x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(name), None, "{}", answer.head);
    }
    assert_eq!(answer.field("x-end"), Some("2"));
    let head = &stage.backend.seen()[0].head;
    for name in [
        "x-secret",
        "x-other",
        "te",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
    ] {
        assert_eq!(field(head, name), None, "{head}");
    }
    let ends: Vec<_> = head
        .lines()
        .filter(|line| line.starts_with("X-End"))
        .collect();
    assert_eq!(ends, ["X-End: a, b", "X-End: c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_goes_on_as_a_path_and_its_host() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    let cases = [
        ("GET http://a/t?x=y", "GET /t?x=y HTTP/1.1\r\n"),
        ("GET HTTP://A:80/t/", "GET /t/ HTTP/1.1\r\n"),
        ("GET /t//../%2e?", "GET /t//../%2e? HTTP/1.1\r\n"),
    ];
    for (number, (line, expected)) in cases.into_iter().enumerate() {
        client
            .send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status, 200, "{line}");
        let head = &stage.backend.seen()[number].head;
        assert!(head.starts_with(expected), "{head}");
        assert_eq!(field(head, "host").as_deref(), Some("a"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_go_through_as_they_came() {
    let stage = Stage::new([(
        "/t",
        Script::keep(
            b"HTTP/1.1 200 Fine\r\nX-Odd:  a\tb \xff\r\nEmpty:\r\nContent-Length: 0\r\n\r\n",
        ),
    )])
    .await;
    let mut client = stage.client().await;
    client
        .send(b"GET /t HTTP/1.1\r\nHost: a\r\nX-Odd: \xc3\xa4\tb  c\r\nEmpty:\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.field("x-odd"), Some("a\tb \u{fffd}"));
    assert_eq!(answer.field("empty"), Some(""));
    let head = &stage.backend.seen()[0].head;
    assert_eq!(field(head, "x-odd").as_deref(), Some("\u{e4}\tb  c"));
    assert_eq!(field(head, "empty").as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_goes_through() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    for method in [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE", "m-SEARCH",
    ] {
        client
            .send(format!("{method} /t HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status, 200, "{method}");
        let seen = stage.backend.seen();
        let head = &seen.last().unwrap().head;
        assert!(
            head.starts_with(&format!("{method} /t HTTP/1.1\r\n")),
            "{head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_is_not_what_an_ingress_is_for() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client
        .send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
        .await;
    let status = client.answer().await.status;
    assert!([400, 404, 405, 501].contains(&status), "{status}");
    assert_eq!(stage.backend.seen(), []);
}

/// An endpoint that agreed would be asked things behind our back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_to_http_or_tls_is_not_passed_on() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    for protocol in ["h2c", "websocket, h2c", "TLS/1.0"] {
        client
            .send(format!(
                "GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, 200, "{protocol}");
    }
    for seen in stage.backend.seen() {
        assert_eq!(field(&seen.head, "upgrade"), None, "{}", seen.head);
        assert_eq!(field(&seen.head, "http2-settings"), None, "{}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_told_a_host_by_a_client_that_names_none() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client.send("GET /t HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let head = &stage.backend.seen()[0].head;
    assert_eq!(field(head, "host").as_deref(), Some("web"));
}
