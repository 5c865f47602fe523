//! Floods over HTTP/2: the connection ends, and others are served.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::SocketAddr;

use common::{Backend, DEADLINE, Ingress, Mode, get, service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `GET / http` of the host `a`, by the static table of HPACK.
const REQUEST: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends frames until the other side ends the connection; returns how many bytes it took.
async fn flood(address: SocketAddr, mut frames: impl FnMut(u32) -> Vec<u8>) -> usize {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = socket.into_split();
    let end = tokio::spawn(async move {
        let mut sink = vec![0; 16 << 10];
        while matches!(reading.read(&mut sink).await, Ok(1..)) {}
    });
    let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    first.extend(frame(SETTINGS, 0, 0, &[]));
    writing.write_all(&first).await.unwrap();
    let flooding = async {
        let mut sent = 0;
        for number in 0.. {
            let bytes = frames(number);
            if writing.write_all(&bytes).await.is_err() || end.is_finished() {
                break;
            }
            sent += bytes.len();
        }
        sent
    };
    timeout(DEADLINE, flooding)
        .await
        .expect("the connection is ended")
}

async fn ends(kind: &str, frames: impl FnMut(u32) -> Vec<u8>) {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let ingress = Ingress::start(&service(&[&backend])).await;
    flood(ingress.http, frames).await;
    assert_eq!(get(ingress.http).await.status, 200, "others are served");
    if !kind.is_empty() {
        let metrics = ingress.admin("/metrics").await;
        let line = format!("ballast_ingress_http2_floods_total{{kind=\"{kind}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once_end_the_connection() {
    ends("", |number| {
        let stream = number * 2 + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &REQUEST);
        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        bytes
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_pings_end_the_connection() {
    ends("pings", |_| frame(PING, 0, 0, &[0; 8])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_settings_end_the_connection() {
    ends("settings", |_| frame(SETTINGS, 0, 0, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_block_without_an_end_ends_the_connection() {
    ends("", |number| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        // A header of a few bytes that is taken into the table, again and again.
        frame(kind, 0, 1, &[0x40, 1, b'x', 1, b'y'])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_list_that_unfolds_to_megabytes_is_refused() {
    // A header of 4,000 bytes goes into the table once; then each byte names it again.
    let mut block = REQUEST.to_vec();
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'y'; 4000]);
    block.resize(block.len() + 10_000, 0xbe);
    ends("", |number| {
        frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block)
    })
    .await;
}
