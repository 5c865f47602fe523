//! What operators and tools ask: `/metrics`, `/healthz`, `/readyz`, `/debug/table`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::table::RouteTable;

/// Connections at once; past it they wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);

/// Answers on `listener` until `stop`. `ready` says whether there is a table to serve from.
pub async fn serve(
    hub: Arc<Hub>,
    listener: TcpListener,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (hub, ready, stop) = (Arc::clone(&hub), Arc::clone(&ready), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&hub, &ready, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection failed");
                },
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

fn respond(hub: &Hub, ready: &AtomicBool, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let table = hub.table();
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            hub.metrics.encode(&table),
        ),
        "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" if ready.load(Ordering::Acquire) => {
            (StatusCode::OK, "text/plain", "ready\n".to_owned())
        }
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            "no route table yet\n".to_owned(),
        ),
        "/debug/table" => (
            StatusCode::OK,
            "application/json",
            format!("{:#}\n", describe(hub, &table)),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics, /healthz, /readyz and /debug/table\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The table as JSON.
fn describe(hub: &Hub, table: &RouteTable) -> Value {
    let pools: Vec<Value> = table
        .pools
        .iter()
        .map(|pool| {
            let endpoints: Vec<Value> = pool
                .members
                .iter()
                .map(|member| {
                    let backend = &member.backend;
                    let latency = backend.latency().unwrap_or_default();
                    json!({
                        "assignment": backend.assignment.to_string(),
                        "node": backend.node.to_string(),
                        "address": backend.address.to_string(),
                        "state": member.state.name(),
                        "in_flight": backend.in_flight(),
                        "connections": backend.links.len(),
                        "latency_us": u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
                    })
                })
                .collect();
            json!({
                "service": pool.service_name.as_ref(),
                "service_id": pool.key.service.to_string(),
                "port": pool.key.port.as_ref(),
                "protocol": pool.protocol,
                "endpoints": endpoints,
            })
        })
        .collect();
    let published: Vec<u16> = table
        .routing
        .ports()
        .iter()
        .map(|(port, _)| *port)
        .collect();
    json!({
        "generation": table.generation,
        "agents": hub.agents(),
        "published": published,
        "pools": pools,
    })
}
