//! Bodies of every kind, in both directions.

use ballast_http1::{BodyLength, RequestKind};

use crate::{Script, Stage};

const CHUNKED: &str = "5\r\nhello\r\n1;a=\"b;c\"\r\n,\r\n6\r\n world\r\n0\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_request_arrives_whole_in_whatever_pieces_it_comes() {
    let stage = Stage::new([]).await;
    let request =
        format!("POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}\r\n");
    let mut client = stage.client().await;
    for dripped in [false, true] {
        if dripped {
            client.drip(request.as_bytes()).await;
        } else {
            client.send(&request).await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
    let seen = stage.backend.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.body, b"hello, world");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailer_comes_through_or_is_left_out_and_ends_the_body() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";
    let stage = Stage::new([("/t", Script::keep(answer))]).await;
    let mut client = stage.client().await;
    let request = format!(
        "POST /t HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         {CHUNKED}X-Sum: 2\r\nX-More:\r\n\r\n"
    );
    for _ in 0..2 {
        client.send(&request).await;
        assert_eq!(client.answer().await.text(), "ok");
    }
    for seen in stage.backend.seen() {
        assert_eq!(seen.body, b"hello, world");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_a_length_arrives_whole_at_any_size() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    for length in [0, 1, 1_000, 70_000, 1_000_000] {
        let body = "x".repeat(length);
        client
            .send(format!(
                "PUT /t HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(client.answer().await.status, 200, "{length}");
        let seen = stage.backend.seen();
        assert_eq!(seen.last().unwrap().body.len(), length);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_whole_however_it_is_framed() {
    let long = "y".repeat(300_000);
    let scripts = [
        (
            "/t/length",
            Script::keep(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{long}"
            )),
        ),
        (
            "/t/chunked",
            Script::keep(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n493e0;x=y\r\n{long}\r\n0\r\n\r\n"
            )),
        ),
        (
            "/t/close",
            Script::close(format!("HTTP/1.1 200 OK\r\n\r\n{long}")),
        ),
        (
            "/t/old",
            Script::close(format!("HTTP/1.0 200 OK\r\n\r\n{long}")),
        ),
        (
            "/t/bye",
            Script::close(format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n{long}"
            )),
        ),
    ];
    let stage = Stage::new(scripts).await;
    for path in ["length", "chunked", "close", "old", "bye"] {
        let mut client = stage.client().await;
        client
            .send(format!("GET /t/{path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert!(answer.text() == long, "{path}: {} bytes", answer.body.len());
        // A client that speaks 1.0 knows no chunks.
        let mut client = stage.client().await;
        client.send(format!("GET /t/{path} HTTP/1.0\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_ne!(answer.framing, BodyLength::Chunked, "{path}");
        assert!(answer.text() == long, "{path}: {} bytes", answer.body.len());
        assert!(client.is_closed().await, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_short_is_not_passed_off_as_whole() {
    let scripts = [
        (
            "/t/length",
            Script::close("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        ),
        (
            "/t/chunk",
            Script::close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
        ),
        (
            "/t/chunks",
            Script::close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ),
        (
            "/t/trailer",
            Script::close(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            ),
        ),
        (
            "/t/broken",
            Script::keep(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
            ),
        ),
    ];
    let paths = scripts.clone().map(|(path, _)| path);
    let stage = Stage::new(scripts).await;
    for path in paths {
        let mut client = stage.client().await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        let answer = client.answer_to(RequestKind::Other).await;
        let status = answer.map(|answer| answer.status);
        assert!(
            status.is_none_or(|status| status == 502),
            "{path}: {status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_body_has_none_whatever_its_fields_say() {
    let scripts = [
        (
            "/t/head",
            Script::keep("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ),
        ("/t/204", Script::keep("HTTP/1.1 204 No Content\r\n\r\n")),
        (
            "/t/304",
            Script::keep("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
        ),
    ];
    let stage = Stage::new(scripts).await;
    let mut client = stage.client().await;
    for _ in 0..2 {
        client
            .send("HEAD /t/head HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let answer = client
            .answer_to(RequestKind::Head)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (200, Some("1000"))
        );
        client.send("GET /t/204 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("content-length")), (204, None));
        assert_eq!(answer.field("transfer-encoding"), None);
        client.send("GET /t/304 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (304, 0));
    }
}

/// What an endpoint sends past its answer belongs to nobody: not to this client, and above all not
/// to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_behind_an_answer_reach_nobody() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
                 Content-Length: 6\r\n\r\nSTOLEN";
    let bare = "HTTP/1.1 204 x\r\nContent-Length: 6\r\n\r\nSTOLEN";
    let scripts = [
        ("/t/stray", Script::keep(stray)),
        ("/t/bare", Script::keep(bare)),
    ];
    let stage = Stage::new(scripts).await;
    for path in ["/t/stray", "/t/bare"] {
        for _ in 0..20 {
            let mut client = stage.client().await;
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let answer = client.answer_to(RequestKind::Other).await;
            assert!(answer.is_none_or(|answer| answer.body != b"STOLEN"));
            let mut next = stage.client().await;
            next.send("GET /t/next HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = next.answer().await;
            assert_eq!((answer.status, answer.text()), (200, "/t/next"));
        }
    }
}
