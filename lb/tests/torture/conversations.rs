//! Several messages on one connection: pipelines, interim answers, ends.

use ballast_http1::RequestKind;

use crate::{Script, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_their_order() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    let mut all = String::new();
    for number in 0..30 {
        let request = match number % 3 {
            0 => format!("GET /t/{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /t/{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!(
                "PUT /t/{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            ),
        };
        all.push_str(&request);
    }
    client.send(&all).await;
    for number in 0..30 {
        assert_eq!(client.answer().await.text(), format!("/t/{number}"));
    }
    let seen = stage.backend.seen();
    assert_eq!(seen.len(), 30);
    for (number, seen) in seen.iter().enumerate() {
        let body: &[u8] = if number % 3 == 0 { b"" } else { b"hello" };
        assert_eq!(seen.body, body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_behind_a_last_request_is_executed() {
    let stage = Stage::new([]).await;
    let next = "GET /t/next HTTP/1.1\r\nHost: a\r\n\r\n";
    for last in [
        "GET /t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /t HTTP/1.0\r\n\r\n",
        "GET /t HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ] {
        let mut client = stage.client().await;
        client.send(format!("{last}{next}")).await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && !answer.keep, "{last:?}");
        assert!(client.is_closed().await, "{last:?}");
    }
    let seen = stage.backend.seen();
    assert!(seen.iter().all(|seen| !seen.head.contains("/t/next")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_client_that_asks_for_it_keeps_its_connection() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    for _ in 0..3 {
        client
            .send("GET /t HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert!(answer.status == 200, "{}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_is_told_to_go_on_and_answered_once() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client
        .send("PUT /t HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(stage.backend.seen()[0].body, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_it_waits_and_does_not_is_answered_all_the_same() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client
        .send(
            "PUT /t HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        )
        .await;
    let mut answer = client.answer().await;
    if answer.status == 100 {
        answer = client.answer().await;
    }
    assert_eq!(answer.status, 200);
    assert_eq!(stage.backend.seen()[0].body, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_come_before_the_one_that_counts() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let stage = Stage::new([("/t", Script::keep(answer))]).await;
    let mut client = stage.client().await;
    for _ in 0..3 {
        client.send("GET /t HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut answer = client.answer().await;
        while answer.status < 200 {
            answer = client.answer().await;
        }
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    // A client that speaks 1.0 knows no interim answers.
    let mut client = stage.client().await;
    client.send("GET /t HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_said_all_is_still_answered() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client.send("GET /t HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.end().await;
    assert_eq!(client.answer().await.text(), "/t");
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_ends_too_early_is_not_executed_as_whole() {
    let stage = Stage::new([]).await;
    for request in [
        "GET /t HTTP/1.1\r\nHost: a\r\n",
        "POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = stage.client().await;
        client.send(request).await;
        client.end().await;
        let answer = client.answer_to(RequestKind::Other).await;
        assert!(
            answer.is_none_or(|answer| answer.status >= 400),
            "{request:?}"
        );
    }
    assert_eq!(stage.backend.seen(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let script = Script {
        early: true,
        ..Script::close("HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
    };
    let stage = Stage::new([("/t/early", script)]).await;
    let mut client = stage.client().await;
    client
        .send("POST /t/early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "big"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_empty_line_between_requests_is_forgiven() {
    let stage = Stage::new([]).await;
    let mut client = stage.client().await;
    client
        .send("POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /t/2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "/t");
    assert_eq!(client.answer().await.text(), "/t/2");
}
