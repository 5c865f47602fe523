//! Copies of requests: sent to another service, whose answers are thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use pingora::http::RequestHeader;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::hub::{Hub, random_bits};
use crate::policy::{Outcome, Want};
use crate::table::Pool;

/// Copies under way at once; past it requests are not copied. They must never cost the original
/// its memory or its endpoint's time.
const COPIES_MAX: usize = 256;
/// Parts of a body that wait for the copy's endpoint; past it the copy is broken off.
const PARTS_MAX: usize = 64;
/// How long a copy may take in all.
const COPY_TIME: Duration = Duration::from_secs(30);
/// Tells the endpoint that nobody waits for its answer.
const MIRRORED: HeaderName = HeaderName::from_static("x-ballast-mirror");

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A copy whose body is still coming. Dropped before its end, the copy is broken off.
#[derive(Debug)]
pub(super) struct Mirror {
    parts: mpsc::Sender<Bytes>,
    whole: Arc<AtomicBool>,
}

impl Mirror {
    /// Begins a copy of a request; none if too many are under way.
    pub fn begin(hub: &Arc<Hub>, pool: &Arc<Pool>, head: &RequestHeader) -> Option<Self> {
        let place = Place::enter()?;
        let (parts, receiver) = mpsc::channel(PARTS_MAX);
        let whole = Arc::new(AtomicBool::new(false));
        let sized = head.headers.contains_key(http::header::CONTENT_LENGTH);
        let body = Copied {
            parts: receiver,
            whole: Arc::clone(&whole),
            empty: !sized && !head.headers.contains_key(TRANSFER_ENCODING),
        };
        let request = request_of(head, body)?;
        let (hub, pool) = (Arc::clone(hub), Arc::clone(pool));
        tokio::spawn(async move {
            let _place = place;
            let sent = timeout(COPY_TIME, send(&hub, &pool, request)).await;
            if !matches!(sent, Ok(Some(()))) {
                tracing::debug!(service = &*pool.service_name, "copy of a request not sent");
            }
        });
        Some(Self { parts, whole })
    }

    /// Passes on a part of the body; `None` once the copy is whole or broken off.
    pub fn part(self, data: Option<&Bytes>, end: bool) -> Option<Self> {
        if let Some(data) = data.filter(|data| !data.is_empty())
            && self.parts.try_send(data.clone()).is_err()
        {
            return None;
        }
        if end {
            self.whole.store(true, Ordering::Release);
            return None;
        }
        Some(self)
    }
}

fn request_of(head: &RequestHeader, body: Copied) -> Option<http::Request<Copied>> {
    let target = head.uri.path_and_query()?.as_str();
    let mut headers = HeaderMap::new();
    for (name, value) in &head.headers {
        let hop = [&CONNECTION, &TE, &TRAILER, &TRANSFER_ENCODING, &UPGRADE];
        if !hop.contains(&name) && name != "keep-alive" && name != "proxy-connection" {
            headers.append(name, value.clone());
        }
    }
    if !headers.contains_key(HOST) {
        let host = head
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(host).ok()?);
    }
    headers.insert(MIRRORED, HeaderValue::from_static("1"));
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = target.parse().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

async fn send(hub: &Hub, pool: &Pool, request: http::Request<Copied>) -> Option<()> {
    let flight = pool.begin(&Want::any(random_bits(), hub.now(), &[])).ok()?;
    let outcome = exchange(flight.backend().address, request).await;
    let judged = match outcome {
        Some(status) => Outcome::Status(status),
        None => Outcome::Cancelled,
    };
    flight.ended(judged, None, hub.now());
    outcome.map(|_| ())
}

async fn exchange(address: std::net::SocketAddr, request: http::Request<Copied>) -> Option<u16> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let answered = async move {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        Some(status)
    };
    let (status, _) = tokio::join!(answered, connection);
    status
}

/// The body of a copy.
struct Copied {
    parts: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
    /// It has none.
    empty: bool,
}

/// The original broke off, or the copy could not keep up.
#[derive(Debug, thiserror::Error)]
#[error("the copy of the body broke off")]
struct BrokenOff;

impl Body for Copied {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.parts.poll_recv(context).map(|part| match part {
            Some(part) => Some(Ok(Frame::data(part))),
            None if self.whole.load(Ordering::Acquire) => None,
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.empty
    }

    fn size_hint(&self) -> SizeHint {
        if self.empty {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

/// A place among the copies under way.
struct Place;

impl Place {
    fn enter() -> Option<Self> {
        let before = UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (before < COPIES_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}
