//! WebSocket echo: a binary message is sent and must come back.
//!
//! tungstenite speaks the protocol on two buffers in memory; the bytes are carried here.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::task::{Context, Poll, ready};

use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::{ClientHandshake, generate_key};
use tungstenite::{Error, Message, WebSocket};

use crate::plan::Request;
use crate::record::ErrorClass;

use super::failure;
use super::serial::Session;
use super::stream::Stream;
use super::work::{Course, Job, Work};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What tungstenite takes for a socket.
#[derive(Default)]
struct Pipe {
    incoming: Vec<u8>,
    /// How much of `incoming` was read.
    taken: usize,
    ended: bool,
    outgoing: Vec<u8>,
    /// How much of `outgoing` was sent.
    sent: usize,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = (&self.incoming[self.taken..]).read(out)?;
        self.taken += count;
        if self.taken == self.incoming.len() {
            self.incoming.clear();
            self.taken = 0;
        }
        if count == 0 && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The connection under it.
struct Carrier {
    stream: Stream,
    buffer: Box<[u8]>,
    received: u64,
}

impl Carrier {
    /// Sends what `pipe` holds; ready when something came for it.
    fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<(), ErrorClass>> {
        if !pipe.outgoing.is_empty() {
            let sent = self
                .stream
                .poll_drain(context, &pipe.outgoing, &mut pipe.sent);
            if let Poll::Ready(result) = sent {
                result.map_err(|error| failure::of_io(&error))?;
                pipe.outgoing.clear();
                pipe.sent = 0;
            }
        }
        if pipe.ended {
            return Poll::Ready(Err(ErrorClass::Reset));
        }
        let count = ready!(self.stream.poll_fill(context, &mut self.buffer))
            .map_err(|error| failure::of_io(&error))?;
        pipe.ended = count == 0;
        pipe.incoming.extend_from_slice(&self.buffer[..count]);
        self.received += count as u64;
        Poll::Ready(Ok(()))
    }
}

/// A connection that was upgraded.
pub struct Socket {
    socket: WebSocket<Pipe>,
    carrier: Carrier,
}

impl Socket {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, ErrorClass>> {
        loop {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) => return Poll::Ready(Err(ErrorClass::Reset)),
                Ok(message) => return Poll::Ready(Ok(message)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.carrier.poll_carry(context, self.socket.get_mut()))?;
                }
                Err(error) => return Poll::Ready(Err(class(&error))),
            }
        }
    }
}

impl Session for Socket {
    async fn open(stream: Stream, work: &Work, target: u16) -> Result<Self, ErrorClass> {
        let mut carrier = Carrier {
            stream,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            received: 0,
        };
        let request = upgrade(work, target).ok_or(ErrorClass::Other)?;
        let mut shaking = ClientHandshake::start(Pipe::default(), request, None)
            .map_err(|error| class(&error))?;
        loop {
            shaking = match shaking.handshake() {
                Ok((socket, _)) => return Ok(Self { socket, carrier }),
                Err(HandshakeError::Failure(error)) => {
                    return Err(work.failed(class(&error), format_args!("upgrading: {error}")));
                }
                Err(HandshakeError::Interrupted(shaking)) => shaking,
            };
            let pipe = shaking.get_mut().get_mut();
            poll_fn(|context| carrier.poll_carry(context, pipe)).await?;
        }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_message(context).map(|_| ())
    }

    async fn exchange(
        &mut self,
        work: &Work,
        job: &Job,
        course: &mut Course,
    ) -> Result<u16, ErrorClass> {
        let payload = work.payload(job);
        let before = self.carrier.received;
        self.socket
            .send(Message::Binary(payload.clone()))
            .map_err(|error| class(&error))?;
        course.sent_bytes = self.socket.get_ref().outgoing.len() as u64;
        let message = poll_fn(|context| {
            let message = self.poll_message(context);
            if course.first_byte_ns == 0 && self.carrier.received > before {
                course.first_byte_ns = work.now_ns();
            }
            message
        })
        .await;
        course.received_bytes = self.carrier.received - before;
        if message?.into_data() == payload {
            Ok(200)
        } else {
            Err(ErrorClass::Check)
        }
    }
}

/// Returns the request that asks for the upgrade: path and headers of the target's first request.
fn upgrade(work: &Work, target: u16) -> Option<http::Request<()>> {
    let of = work.target(target);
    let Request { path, headers, .. } = of.requests.first()?;
    let scheme = if of.tls.is_some() { "wss" } else { "ws" };
    let path = String::from_utf8(work.render(path, 0)).ok()?;
    let mut request = http::Request::builder()
        .uri(format!("{scheme}://{}{path}", of.authority))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key());
    if headers.iter().all(|(name, _)| name != "host") {
        request = request.header("host", &of.authority);
    }
    for (name, value) in headers {
        request = request.header(name, work.render(value, 0));
    }
    request.body(()).ok()
}

fn class(error: &Error) -> ErrorClass {
    use tungstenite::error::ProtocolError as Broken;
    match error {
        Error::Io(error) => failure::of_io(error),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(Broken::ResetWithoutClosingHandshake | Broken::HandshakeIncomplete) => {
            ErrorClass::Reset
        }
        Error::Http(response) if response.status().as_u16() >= 400 => ErrorClass::Status,
        _ => ErrorClass::Protocol,
    }
}
