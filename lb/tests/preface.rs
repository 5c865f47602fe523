//! The PROXY protocol towards the ingress.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use ballast_http1::proxy::{Addresses, write_v1, write_v2};
use common::{Backend, Client, Ingress, Mode, header, service};
use tokio::io::AsyncWriteExt as _;

fn addresses() -> Addresses {
    Addresses {
        source: "192.0.2.7:4711".parse().unwrap(),
        destination: "198.51.100.1:80".parse().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_is_whom_a_listed_balancer_names_however_its_bytes_come() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let listen = ", proxy_protocol: [\"127.0.0.0/8\"]";
    let ingress = Ingress::start_with(listen, &service(&[&backend])).await;
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let (mut v1, mut v2, mut own) = (Vec::new(), Vec::new(), Vec::new());
    write_v1(&mut v1, Some(&addresses()));
    write_v2(&mut v2, Some(&addresses()), &[]);
    write_v2(&mut own, None, &[]);
    for (preface, told) in [(v1, "192.0.2.7"), (v2, "192.0.2.7"), (own, "127.0.0.1")] {
        let bytes = [&preface[..], request].concat();
        for cut in [bytes.len(), preface.len(), 3, preface.len() + 10] {
            let mut client = Client::connect(ingress.http).await;
            for part in [&bytes[..cut], &bytes[cut..]] {
                client.socket.write_all(part).await.unwrap();
                client.socket.flush().await.unwrap();
            }
            assert_eq!(client.receive().await.unwrap().status, 200);
            let seen = header(&backend.last_head(), "x-forwarded-for");
            assert_eq!(seen.as_deref(), Some(told), "{cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_is_missed_from_a_listed_balancer_and_no_request_from_others() {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let listen = ", proxy_protocol: [\"127.0.0.0/8\"]";
    let listed = Ingress::start_with(listen, &service(&[&backend])).await;
    let mut client = Client::connect(listed.http).await;
    client.send(request).await;
    assert!(client.receive().await.is_none(), "closed without an answer");
    let listen = ", proxy_protocol: [\"192.0.2.0/24\"]";
    let other = Ingress::start_with(listen, &service(&[&backend])).await;
    let mut client = Client::connect(other.http).await;
    client
        .send(&format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n{request}"))
        .await;
    assert_eq!(client.receive().await.unwrap().status, 400);
}
