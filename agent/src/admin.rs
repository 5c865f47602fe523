//! Metrics and probes of the agent itself, over plain HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::shell::Agent;

/// Connections at once: scrapers and probes; more are made to wait.
const CONNECTIONS: usize = 64;

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown`. `ready` says whether a manager
/// has been heard.
pub(crate) async fn serve(
    listener: TcpListener,
    agent: Arc<Agent>,
    ready: Arc<AtomicBool>,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others give theirs back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (agent, ready) = (agent.clone(), ready.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &agent, ready.load(Ordering::Relaxed));
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A scraper that hangs up is no event.
            drop(connection.await);
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, agent: &Agent, ready: bool) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" if ready => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => {
            let reason = "no manager has been heard yet\n".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", reason)
        }
        "/metrics" => {
            let text = agent.metrics.render(&agent.live(), &agent.count_by_state());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, text)
        }
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// Listens where the configuration says.
///
/// # Errors
/// If it cannot, with the address.
pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("{address}: {error}")))
}
