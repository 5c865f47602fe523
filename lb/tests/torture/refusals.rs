//! What is refused: with which status, and never with anything passed on.

use crate::{Script, Stage};

/// A request with these lines between its host and its end; what follows would be its body, or the
/// request that somebody smuggles.
fn with(lines: &str, rest: &str) -> String {
    format!("POST /t HTTP/1.1\r\nHost: a\r\n{lines}\r\n{rest}")
}

const SMUGGLED: &str = "GET /t/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Field lines that are ambiguous in any head.
const LINES: &[&str] = &[
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length:\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 9223372036854775808\r\n",
    "Content-Length : 5\r\n",
    "Content-Length\t: 5\r\n",
    " Content-Length: 5\r\n",
    "X: y\r\n Content-Length: 5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length\0: 5\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;a=b\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding\r\n: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "X: a\0b\r\n",
    "X: a\x1b[31m\r\n",
    "X: a\x7f\r\n",
    "X y: z\r\n",
    ": z\r\n",
    "no colon\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "Connection: host\r\n",
    "Connection: content-length\r\nContent-Length: 0\r\n",
];

/// Heads that are ambiguous by themselves.
const HEADS: &[&str] = &[
    "GET /t HTTP/1.1\nHost: a\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost: a\n\n",
    "GET /t HTTP/1.1\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost:\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET /t HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "GET http://b/t HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://u@a/t HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  /t HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET\t/t\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET t HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /t HTTP/1.x\r\nHost: a\r\n\r\n",
    "GET /t http/1.1\r\nHost: a\r\n\r\n",
    "GET /t\r\nHost: a\r\n\r\n",
    "GET /t\r\n\r\n",
    "G T /t HTTP/1.1\r\nHost: a\r\n\r\n",
    "G\x7fT /t HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\nGET /t HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /t HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

fn ambiguous_heads() -> Vec<String> {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let mut heads: Vec<String> = LINES.iter().map(|lines| with(lines, &chunked)).collect();
    heads.extend(HEADS.iter().map(|&line| line.to_owned()));
    heads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ambiguous_head_is_refused_with_400_and_a_closed_connection() {
    let stage = Stage::new([]).await;
    for head in ambiguous_heads() {
        let mut client = stage.client().await;
        client.send(&head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{head:?}");
        assert!(!answer.keep, "{head:?}");
        assert!(client.is_closed().await, "{head:?}");
    }
    assert_eq!(stage.backend.seen(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_head_is_refused_behind_a_good_request_and_in_pieces() {
    let stage = Stage::new([]).await;
    let heads = ambiguous_heads();
    for head in &heads {
        let mut client = stage.client().await;
        client.send("GET /t/good HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "/t/good");
        let (first, second) = head.as_bytes().split_at(head.len() / 3);
        client.send(first).await;
        client.send(second).await;
        assert_eq!(client.answer().await.status, 400, "{head:?}");
        assert!(client.is_closed().await, "{head:?}");
    }
    let seen = stage.backend.seen();
    assert_eq!(seen.len(), heads.len());
    assert!(
        seen.iter()
            .all(|seen| seen.head.starts_with("GET /t/good "))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_another_reason_says_which() {
    let stage = Stage::new([]).await;
    let cases = [
        (with("Transfer-Encoding: gzip, chunked\r\n", ""), 501),
        (with("Expect: 200-ok\r\n", ""), 417),
        ("GET /t HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET /t HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        (
            format!("{} /t HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(40)),
            501,
        ),
        (
            format!("GET /t{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000)),
            414,
        ),
        (with(&format!("X: {}\r\n", "a".repeat(40_000)), ""), 431),
        (with(&"X: a\r\n".repeat(200), ""), 431),
    ];
    for (head, status) in cases {
        let mut client = stage.client().await;
        client.send(&head).await;
        let shown = &head[..head.len().min(60)];
        assert_eq!(client.answer().await.status, status, "{shown:?}");
        assert!(client.is_closed().await, "{shown:?}");
    }
    assert_eq!(stage.backend.seen(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_that_could_be_read_in_two_ways_ends_the_connection() {
    let stage = Stage::new([]).await;
    let bodies = [
        "1 \r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1;\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a=\"\n\"\r\nx\r\n0\r\n\r\n",
        "1;a\rX\r\nx\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nx\r\n0\r\n\r\n",
        "8000000000000000\r\nx\r\n0\r\n\r\n",
        "1,1\r\nx\r\n0\r\n\r\n",
        "\r\n1\r\nx\r\n0\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
    ];
    for body in bodies {
        let mut client = stage.client().await;
        let request = with(
            "Transfer-Encoding: chunked\r\n",
            &format!("{body}{SMUGGLED}"),
        );
        client.send(&request).await;
        let answer = client.answer_to(ballast_http1::RequestKind::Other).await;
        if let Some(answer) = answer {
            assert_eq!(answer.status, 400, "{body:?}");
            assert!(client.is_closed().await, "{body:?}");
        }
    }
    assert_eq!(stage.backend.seen(), [], "none was whole, none is smuggled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_answer_is_not_passed_on() {
    const ANSWERS: [(&str, &str); 17] = [
        (
            "/t/1",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        ),
        (
            "/t/2",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        ),
        ("/t/3", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
        (
            "/t/4",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "/t/5",
            "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "/t/6",
            "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        ),
        ("/t/7", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        (
            "/t/8",
            "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "/t/9",
            "HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 0\r\n\r\n",
        ),
        ("/t/10", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("/t/11", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("/t/12", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("/t/13", "ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("/t/14", "<html>hello</html>\r\n\r\n"),
        (
            "/t/15",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("/t/16", "HTTP/1.1 200 OK\r\nContent-Length: 2"),
        ("/t/17", ""),
    ];
    let scripts = ANSWERS.map(|(path, bytes)| (path, Script::close(bytes)));
    let stage = Stage::new(scripts).await;
    for (path, bytes) in ANSWERS {
        let mut client = stage.client().await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, 502, "{bytes:?}");
    }
    assert_eq!(
        stage.backend.seen().len(),
        ANSWERS.len(),
        "none is tried twice"
    );
}
