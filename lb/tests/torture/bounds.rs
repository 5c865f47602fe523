//! Clients that want more than their share: what they get is bounded, and others are served.

use crate::Stage;

async fn is_served(stage: &Stage) {
    let mut client = stage.client().await;
    client
        .send("GET /t/other HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "/t/other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_head_is_refused_before_it_ends() {
    let stage = Stage::new([]).await;
    for piece in [
        "X-Bomb: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        "aaaaaaaaaaaaaaaa",
    ] {
        let mut client = stage.client().await;
        client.send("GET /t HTTP/1.1\r\nHost: a\r\nX: ").await;
        client.send(piece.repeat(200_000 / piece.len())).await;
        assert_eq!(client.answer().await.status, 431);
        assert!(client.is_closed().await);
        is_served(&stage).await;
    }
    assert!(
        stage
            .backend
            .seen()
            .iter()
            .all(|seen| seen.head.contains("/t/other"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_in_the_middle_of_a_head_keep_nobody_waiting() {
    let stage = Stage::new([]).await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut client = stage.client().await;
        client.send("GET /t HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
        slow.push(client);
    }
    for _ in 0..20 {
        is_served(&stage).await;
    }
    // None of them was dropped for another's sake.
    for client in &mut slow {
        client.send("x\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "/t");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_keep_nobody_waiting() {
    let long = "y".repeat(4 << 20);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}",
        long.len()
    );
    let stage = Stage::new([("/t/long", crate::Script::keep(answer))]).await;
    let mut deaf = Vec::new();
    for _ in 0..16 {
        let mut client = stage.client().await;
        client.send("GET /t/long HTTP/1.1\r\nHost: a\r\n\r\n").await;
        deaf.push(client);
    }
    for _ in 0..20 {
        is_served(&stage).await;
    }
    for client in &mut deaf {
        assert_eq!(client.answer().await.body.len(), long.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailer_and_extensions_without_end_are_refused() {
    let stage = Stage::new([]).await;
    let head = "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let floods = [
        format!("0\r\n{}", "X-Bomb: a\r\n".repeat(10_000)),
        format!("1;{}", "a".repeat(100_000)),
        format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(1_000),
    ];
    for flood in floods {
        let mut client = stage.client().await;
        client.send(head).await;
        client.send(&flood).await;
        let answer = client.answer_to(ballast_http1::RequestKind::Other).await;
        assert!(answer.is_none_or(|answer| answer.status == 400 || answer.status == 431));
        is_served(&stage).await;
    }
    assert!(
        stage
            .backend
            .seen()
            .iter()
            .all(|seen| seen.head.contains("/t/other"))
    );
}
