//! Whom endpoints are told a request comes from, on both of the ingress's paths.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{Backend, Client, Ingress, Mode, header};

const HEADERS: [&str; 6] = [
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
];

/// One route, which only lets a network in, on the hot path or on pingora's.
fn routes(backend: &Backend, forwarded: &str, then: &str) -> String {
    format!(
        "forwarded: {forwarded}\nservices:\n  a: {{ endpoints: [\"{}\"] }}\nroutes:\n  \
         - {{ service: a, then: {{ access: {{ allow: [\"192.0.2.0/24\"] }}{then} }} }}\n",
        backend.address
    )
}

async fn ask(ingress: &Ingress) -> u16 {
    let mut client = Client::connect(ingress.http).await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 6.6.6.6, 192.0.2.7\r\n\
             x-forwarded-proto: https\r\nx-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n\r\n",
        )
        .await;
    client.receive().await.unwrap().status
}

async fn client_is_found(then: &str) {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let trusting = "{ trust: [\"127.0.0.0/8\"], header: both }";
    let ingress = Ingress::start(&routes(&backend, trusting, then)).await;
    assert_eq!(ask(&ingress).await, 200, "the route sees 192.0.2.7");
    let head = backend.last_head();
    let told = HEADERS.map(|name| header(&head, name).unwrap_or_default());
    assert_eq!(
        told,
        [
            "6.6.6.6, 192.0.2.7, 127.0.0.1",
            "192.0.2.7",
            "https",
            "a.test",
            "443",
            "for=192.0.2.7;host=\"a.test\";proto=https, for=127.0.0.1",
        ]
    );
    let trusting = "{ trust: [\"10.0.0.0/8\"] }";
    let ingress = Ingress::start(&routes(&backend, trusting, then)).await;
    assert_eq!(ask(&ingress).await, 403, "nobody believes that");
}

async fn lies_are_replaced(then: &str) {
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let service = format!(
        "services:\n  a: {{ endpoints: [\"{}\"] }}\nroutes:\n  - {{ service: a{then} }}\n",
        backend.address
    );
    let ingress = Ingress::start(&service).await;
    assert_eq!(ask(&ingress).await, 200);
    let head = backend.last_head();
    let told = HEADERS.map(|name| header(&head, name).unwrap_or_default());
    assert_eq!(told, ["127.0.0.1", "127.0.0.1", "http", "a.test", "80", ""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_hop_names_the_client_on_the_hot_path() {
    client_is_found("").await;
    lies_are_replaced("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_hop_names_the_client_on_pingoras_path() {
    client_is_found(", grpc_web: true").await;
    lies_are_replaced(", then: { grpc_web: true }").await;
}
