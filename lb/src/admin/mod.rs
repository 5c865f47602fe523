//! What operators and tools ask: the status page, `/metrics`, `/healthz`, `/readyz`, `/debug/table`
//! and `/log`.

mod describe;
mod log_control;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use log_control::LogControl;

use crate::hub::Hub;
use describe::{Question, describe};

/// Connections at once; past it they wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);

/// Bytes of a log filter.
const FILTER_MAX: usize = 4096;
/// The status page: one file, which asks for `/debug/table` every second.
const PAGE: &str = include_str!("page.html");
/// It may do nothing but that.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
                           'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'";
const NO_LOG: &str = "this process does not let its log be changed\n";
const NOT_FOUND: &str =
    "there are /status, /metrics, /healthz, /readyz, /debug/table, /debug/l4 and /log\n";

/// Answers on `listener` until `stop`.
pub async fn serve(admin: Admin, listener: TcpListener, stop: CancellationToken) {
    let admin = Arc::new(admin);
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
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.respond(request).await) }
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

/// What is needed to answer.
#[derive(Debug)]
pub struct Admin {
    /// Of whom.
    pub hub: Arc<Hub>,
    /// Whether there is a table to serve from.
    pub ready: Arc<AtomicBool>,
    /// Who can change what is logged, if anybody.
    pub log: Option<Arc<dyn LogControl>>,
}

impl Admin {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let uri = request.uri().clone();
        match (request.method().as_str(), uri.path()) {
            ("GET", "/" | "/status") => {
                let mut response = reply(StatusCode::OK, "text/html; charset=utf-8", PAGE);
                let policy = http::HeaderValue::from_static(PAGE_POLICY);
                response
                    .headers_mut()
                    .insert(CONTENT_SECURITY_POLICY, policy);
                response
            }
            ("GET", "/metrics") => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let text = self
                    .hub
                    .metrics
                    .encode(&self.hub.table(), self.hub.l4.describe(false));
                reply(StatusCode::OK, kind, text)
            }
            ("GET", "/healthz") => plain(StatusCode::OK, "ok\n"),
            ("GET", "/readyz") if self.ready.load(Ordering::Acquire) => {
                plain(StatusCode::OK, "ready\n")
            }
            ("GET", "/readyz") => plain(StatusCode::SERVICE_UNAVAILABLE, "no route table yet\n"),
            ("GET", "/debug/table") => {
                let question = Question::parse(uri.query().unwrap_or(""));
                let table = describe(&self.hub, &self.hub.table(), &question);
                reply(StatusCode::OK, "application/json", format!("{table:#}\n"))
            }
            ("GET", "/debug/l4") => {
                let services = self.hub.l4.describe(true);
                match serde_json::to_string_pretty(&services) {
                    Ok(text) => reply(StatusCode::OK, "application/json", text + "\n"),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                }
            }
            ("GET", "/log") => match &self.log {
                Some(log) => plain(StatusCode::OK, format!("{}\n", log.filter())),
                None => plain(StatusCode::NOT_FOUND, NO_LOG),
            },
            ("PUT", "/log") => self.set_log(request.into_body()).await,
            _ => plain(StatusCode::NOT_FOUND, NOT_FOUND),
        }
    }

    async fn set_log(&self, body: Incoming) -> Response<Full<Bytes>> {
        let Some(log) = &self.log else {
            return plain(StatusCode::NOT_FOUND, NO_LOG);
        };
        let Ok(body) = Limited::new(body, FILTER_MAX).collect().await else {
            return plain(StatusCode::BAD_REQUEST, "the filter is too long\n");
        };
        let bytes = body.to_bytes();
        let filter = String::from_utf8_lossy(&bytes);
        match log.set_filter(filter.trim()) {
            Ok(()) => {
                tracing::info!(filter = filter.trim(), "log filter changed");
                plain(StatusCode::OK, format!("{}\n", log.filter()))
            }
            Err(why) => plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
