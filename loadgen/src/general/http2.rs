//! HTTP/2 and, on top of it, unary gRPC: many requests in flight on one connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::HeaderMap;
use tokio::sync::Mutex;

use crate::plan::{Checker, Protocol};
use crate::record::ErrorClass;

use super::failure;
use super::grpc::Unary;
use super::request::Head;
use super::stream::Dialer;
use super::timer::Deadline;
use super::work::{Course, Job, Slot, Work};

/// What a stream may receive before it is told to go on, and what a connection may, in bytes: a
/// server is never slowed down by a window that is returned late.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// Connections that one request is tried on, when those before were closed without having seen it.
const TRIES: usize = 3;
/// Bytes of a frame's head, of which a request has at least one.
const FRAME_HEAD_BYTES: u64 = 9;

/// One connection's place: the streams on it share what it is now.
pub struct Connection {
    work: Rc<Work>,
    dialer: Rc<Dialer>,
    slot: Rc<Slot>,
    heads: Vec<Head>,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Held by the one who opens it; the class is how the last try failed.
    opening: Mutex<Option<ErrorClass>>,
    tries: Cell<u64>,
}

impl Connection {
    pub fn new(work: Rc<Work>, dialer: Rc<Dialer>, slot: Rc<Slot>) -> Self {
        let target = work.target(slot.target);
        let heads = target
            .requests
            .iter()
            .map(|request| Head::new(target, request, work.plan()))
            .collect();
        Self {
            work,
            dialer,
            slot,
            heads,
            sender: RefCell::new(None),
            opening: Mutex::new(None),
            tries: Cell::new(0),
        }
    }

    /// Returns a connection that takes requests, as far as is known; opens one if there is none.
    /// Those who wait for one that cannot be opened fail with it.
    async fn sender(&self) -> Result<SendRequest<Bytes>, ErrorClass> {
        if self.slot.is_retired() {
            self.give_up();
        }
        let tries = self.tries.get();
        loop {
            let kept = self.sender.borrow().clone();
            if let Some(kept) = kept {
                if let Ok(ready) = kept.ready().await {
                    return Ok(ready);
                }
                self.give_up();
            }
            let mut failed = self.opening.lock().await;
            if self.sender.borrow().is_some() {
                continue;
            }
            if self.tries.get() != tries
                && let Some(class) = *failed
            {
                return Err(class);
            }
            self.tries.set(self.tries.get() + 1);
            // As it stands should this be dropped at its time limit.
            *failed = Some(ErrorClass::Timeout);
            match self.open().await {
                Ok(sender) => {
                    *failed = None;
                    *self.sender.borrow_mut() = Some(sender);
                }
                Err(class) => {
                    *failed = Some(class);
                    return Err(class);
                }
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Bytes>, ErrorClass> {
        self.slot.renewed();
        let stream = self.dialer.open(&self.work, self.slot.target).await?;
        if stream.alpn().is_some_and(|agreed| agreed != b"h2") {
            return Err(self
                .work
                .failed(ErrorClass::Tls, "HTTP/2 was not agreed on (ALPN)"));
        }
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .map_err(|error| self.work.failed(failure::of_h2(&error), error))?;
        // Its error is told to each stream on it.
        tokio::task::spawn_local(async { connection.await.ok() });
        Ok(sender)
    }

    /// Streams on it are still served; it is closed after the last.
    fn give_up(&self) {
        self.sender.take();
        self.slot.renewed();
    }

    /// Opens it before anything is due.
    pub async fn prepare(&self) {
        let mut connecting = Deadline::new(self.work.plan().timeouts.connect);
        connecting.within(self.sender()).await;
    }
}

/// Serves one of a connection's streams until nothing more is to be done.
pub async fn serve(connection: Rc<Connection>) {
    let work = connection.work.clone();
    let timeouts = work.plan().timeouts;
    let mut connecting = Deadline::new(timeouts.connect);
    let mut answering = Deadline::new(timeouts.request);
    let mut checker = Checker::new(&work.plan().checks);
    let mut turn = work.turn(&connection.slot);
    while let Some(job) = work.next_job(&mut turn).await {
        let mut course = Course {
            sent_ns: work.now_ns(),
            ..Course::default()
        };
        let mut tries = 0;
        let outcome = loop {
            tries += 1;
            let opened = connecting.within(connection.sender()).await;
            let sender = match opened.unwrap_or(Err(ErrorClass::Timeout)) {
                Ok(sender) => sender,
                Err(class) => break Err((class, false)),
            };
            course.sent_ns = work.now_ns();
            let exchange = exchange(&connection, sender, &job, &mut course, &mut checker);
            match answering.within(exchange).await {
                Some(Err(Broken::Unsent)) if tries < TRIES => {}
                Some(Ok(status)) => break Ok(status),
                Some(Err(Broken::Unsent)) => break Err((ErrorClass::Reset, true)),
                Some(Err(Broken::Failed(class, why))) => {
                    if let Some(why) = why {
                        work.failed(class, why);
                    }
                    break Err((class, true));
                }
                None => break Err((ErrorClass::Timeout, true)),
            }
        };
        let connected = !matches!(outcome, Err((_, false)));
        work.done(&job, &course, outcome.map_err(|(class, _)| class));
        work.answered(&mut turn, connected);
        if work.served(&connection.slot) {
            connection.give_up();
        }
    }
}

/// How a request failed.
enum Broken {
    /// The connection was closed before it saw the request: another may be asked.
    Unsent,
    /// With what it was, if the class does not say it all.
    Failed(ErrorClass, Option<String>),
}

impl From<ErrorClass> for Broken {
    fn from(class: ErrorClass) -> Self {
        Self::Failed(class, None)
    }
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        // An orderly GOAWAY ends only the streams past the last one that the server took (RFC 9113,
        // section 6.8): nginx sends one with each thousandth request.
        if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) {
            return Self::Unsent;
        }
        Self::Failed(failure::of_h2(&error), Some(error.to_string()))
    }
}

async fn exchange(
    connection: &Connection,
    mut sender: SendRequest<Bytes>,
    job: &Job,
    course: &mut Course,
    checker: &mut Checker,
) -> Result<u16, Broken> {
    let work = &connection.work;
    let is_grpc = matches!(work.plan().protocol, Protocol::Grpc { .. });
    let body = work.body(job);
    let body = if is_grpc { Unary::frame(&body) } else { body };
    let head = connection.heads[job.request as usize].render(work, job, body.len())?;
    course.sent_bytes = FRAME_HEAD_BYTES + bytes_of(head.headers()) + body.len() as u64;
    let (response, mut sending) = sender
        .send_request(head, body.is_empty())
        .map_err(|_| Broken::Unsent)?;
    // What its streams hold keeps the connection; a sender would keep it from being closed.
    drop(sender);
    if !body.is_empty() {
        sending.send_data(body, true)?;
    }
    let (head, mut stream) = response.await?.into_parts();
    course.first_byte_ns = work.now_ns();
    let status = head.status.as_u16();
    course.received_bytes = FRAME_HEAD_BYTES + bytes_of(&head.headers);
    let headers = head.headers.iter();
    checker.begin(
        status,
        headers.map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    if is_grpc && status == 200 {
        let status = answer(work, &mut stream, &head.headers, course, checker).await?;
        // A gRPC error is told by its own status, under HTTP's 200.
        return match work.judged(head.status.as_u16(), checker) {
            Ok(200) => Ok(status?),
            other => Ok(other?),
        };
    }
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        course.received_bytes += piece.len() as u64;
        checker.body(&piece);
    }
    Ok(work.judged(status, checker)?)
}

/// Reads a gRPC answer to its end; the checks see the message without its prefix.
async fn answer(
    work: &Work,
    stream: &mut RecvStream,
    headers: &HeaderMap,
    course: &mut Course,
    checker: &mut Checker,
) -> Result<Result<u16, ErrorClass>, Broken> {
    let mut unary = Unary::default();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        course.received_bytes += piece.len() as u64;
        unary.feed(&piece, |message| checker.body(message))?;
    }
    let trailers = stream.trailers().await?;
    course.received_bytes += trailers.as_ref().map_or(0, bytes_of);
    let last = trailers.as_ref().unwrap_or(headers);
    Ok(unary.end(last).map_err(|class| {
        let field = |name| {
            last.get(name)
                .map_or("–".into(), |it| String::from_utf8_lossy(it.as_bytes()))
        };
        work.failed(
            class,
            format_args!(
                "grpc-status {}: {}",
                field("grpc-status"),
                field("grpc-message")
            ),
        )
    }))
}

/// Returns the bytes of names and values, as they are without compression.
fn bytes_of(headers: &HeaderMap) -> u64 {
    let bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().len() + value.len()) as u64
    };
    headers.iter().map(bytes).sum()
}
