//! A tokio-uring socket as an `AsyncRead + AsyncWrite`.
//!
//! tokio-uring's operations own their buffer until the kernel is done with it; the poll interface
//! lends one for the length of a call. Between them stand two buffers for each socket, registered
//! with the kernel as far as its table goes, and one future for each direction.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};
use tokio_uring::net::{TcpStream, UdpSocket};

/// Bytes of a buffer, of which each socket has two: several small answers, or a TLS record.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// Buffers that are registered at most: what the kernel takes in one call. Sockets past them read
/// and write through buffers that are mapped for each operation.
const FIXED_BUFFERS: usize = 1024;

/// Buffers that the kernel knows.
#[derive(Clone)]
pub struct Buffers(Option<FixedBufPool<Vec<u8>>>);

impl Buffers {
    /// Registers two buffers for each of `sockets`; must be called within the runtime. Where the
    /// kernel refuses (the limit of locked memory), all buffers are of the other kind.
    pub fn register(sockets: usize) -> Self {
        let count = sockets.saturating_mul(2).min(FIXED_BUFFERS);
        let pool = FixedBufPool::new((0..count).map(|_| vec![0; BUFFER_BYTES]));
        Self(pool.register().is_ok().then_some(pool))
    }

    fn take(&self) -> Buffer {
        let fixed = self.0.as_ref().and_then(|pool| pool.try_next(BUFFER_BYTES));
        fixed.map_or_else(|| Buffer::Heap(vec![0; BUFFER_BYTES]), Buffer::Fixed)
    }
}

enum Buffer {
    Fixed(FixedBuf),
    Heap(Vec<u8>),
}

impl Buffer {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Heap(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Heap(bytes) => bytes,
        }
    }
}

enum Handle {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// What an operation came to, and its buffer back.
type Done = (io::Result<usize>, Buffer);

impl Handle {
    async fn read(&self, buffer: Buffer) -> Done {
        match buffer {
            Buffer::Fixed(buffer) => {
                let (result, buffer) = match self {
                    Self::Tcp(socket) => socket.read_fixed(buffer).await,
                    Self::Udp(socket) => socket.read_fixed(buffer).await,
                };
                (result, Buffer::Fixed(buffer))
            }
            Buffer::Heap(buffer) => {
                let (result, buffer) = match self {
                    Self::Tcp(socket) => socket.read(buffer).await,
                    Self::Udp(socket) => socket.read(buffer).await,
                };
                (result, Buffer::Heap(buffer))
            }
        }
    }

    /// Writes `buffer[from..to]`.
    async fn write(&self, buffer: Buffer, (from, to): (usize, usize)) -> Done {
        match buffer {
            Buffer::Fixed(buffer) => {
                let (result, part) = match self {
                    Self::Tcp(socket) => socket.write_fixed(buffer.slice(from..to)).await,
                    Self::Udp(socket) => socket.write_fixed(buffer.slice(from..to)).await,
                };
                (result, Buffer::Fixed(part.into_inner()))
            }
            Buffer::Heap(buffer) => {
                let (result, part) = match self {
                    Self::Tcp(socket) => socket.write(buffer.slice(from..to)).submit().await,
                    Self::Udp(socket) => socket.write(buffer.slice(from..to)).submit().await,
                };
                (result, Buffer::Heap(part.into_inner()))
            }
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Udp(socket) => socket.shutdown(how),
        }
    }
}

/// One direction of a socket: an operation at a time, all in one future that lives as long as the
/// socket, so that an operation allocates nothing.
struct Pump {
    future: Pin<Box<dyn Future<Output = ()>>>,
    desk: Rc<Desk>,
}

/// Where a [`Pump`]'s future finds what to do and leaves what came of it.
#[derive(Default)]
struct Desk {
    todo: Cell<Option<(Buffer, (usize, usize))>>,
    done: Cell<Option<Done>>,
}

impl Desk {
    /// Never wakes: a pump is polled by the one who puts something on its desk.
    async fn next(&self) -> (Buffer, (usize, usize)) {
        poll_fn(|_| self.todo.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

impl Pump {
    fn reads(handle: Rc<Handle>) -> Self {
        let desk = Rc::new(Desk::default());
        let own = desk.clone();
        let future = Box::pin(async move {
            loop {
                let (buffer, _) = own.next().await;
                own.done.set(Some(handle.read(buffer).await));
            }
        });
        Self { future, desk }
    }

    fn writes(handle: Rc<Handle>) -> Self {
        let desk = Rc::new(Desk::default());
        let own = desk.clone();
        let future = Box::pin(async move {
            loop {
                let (buffer, part) = own.next().await;
                own.done.set(Some(handle.write(buffer, part).await));
            }
        });
        Self { future, desk }
    }

    fn start(&self, buffer: Buffer, part: (usize, usize)) {
        self.desk.todo.set(Some((buffer, part)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Done> {
        // The future only ends with the socket.
        let _ = self.future.as_mut().poll(context);
        self.desk.done.take().map_or(Poll::Pending, Poll::Ready)
    }
}

enum Reading {
    Idle(Buffer),
    InFlight,
    /// Bytes `from..to` were read and not asked for yet.
    Ready(Buffer, usize, usize),
}

enum Writing {
    Idle(Buffer),
    /// Bytes `from..to` are with the kernel.
    InFlight(usize, usize),
}

/// A connected TCP or UDP socket. Of UDP a read is one datagram, as is a write.
pub struct UringSocket {
    handle: Rc<Handle>,
    datagrams: bool,
    reader: Pump,
    // Taken only within a call.
    reading: Option<Reading>,
    writer: Pump,
    writing: Option<Writing>,
}

const TAKEN: &str = "the state is put back before a call returns";

impl UringSocket {
    /// Takes over a connected TCP socket.
    pub fn tcp(socket: std::net::TcpStream, buffers: &Buffers) -> io::Result<Self> {
        // io_uring fails at once instead of waiting where a descriptor is non-blocking.
        socket.set_nonblocking(false)?;
        Ok(Self::new(
            Handle::Tcp(TcpStream::from_std(socket)),
            false,
            buffers,
        ))
    }

    /// Takes over a connected UDP socket.
    pub fn udp(socket: std::net::UdpSocket, buffers: &Buffers) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        Ok(Self::new(
            Handle::Udp(UdpSocket::from_std(socket)),
            true,
            buffers,
        ))
    }

    fn new(handle: Handle, datagrams: bool, buffers: &Buffers) -> Self {
        let handle = Rc::new(handle);
        Self {
            datagrams,
            reader: Pump::reads(handle.clone()),
            reading: Some(Reading::Idle(buffers.take())),
            writer: Pump::writes(handle.clone()),
            writing: Some(Writing::Idle(buffers.take())),
            handle,
        }
    }

    /// Ready when nothing is with the kernel; the rest of a short write is sent on.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(Writing::InFlight(from, to)) = self.writing {
            let (result, buffer) = ready!(self.writer.poll(context));
            self.writing = Some(Writing::Idle(buffer));
            let sent = from + result?;
            if sent == from {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent < to && !self.datagrams {
                self.start_write(sent, to);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn start_write(&mut self, from: usize, to: usize) {
        if let Some(Writing::Idle(buffer)) = self.writing.take() {
            self.writer.start(buffer, (from, to));
        }
        self.writing = Some(Writing::InFlight(from, to));
    }
}

impl AsyncRead for UringSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Who only reads from now on still needs the rest of a short write to leave.
        if let Poll::Ready(Err(error)) = self.poll_written(context) {
            return Poll::Ready(Err(error));
        }
        loop {
            match self.reading.take().expect(TAKEN) {
                Reading::Ready(buffer, from, to) => {
                    let count = out.remaining().min(to - from);
                    out.put_slice(&buffer.bytes()[from..from + count]);
                    self.reading = Some(if from + count == to {
                        Reading::Idle(buffer)
                    } else {
                        Reading::Ready(buffer, from + count, to)
                    });
                    return Poll::Ready(Ok(()));
                }
                Reading::Idle(buffer) => {
                    self.reader.start(buffer, (0, BUFFER_BYTES));
                    self.reading = Some(Reading::InFlight);
                }
                Reading::InFlight => {
                    let Poll::Ready((result, buffer)) = self.reader.poll(context) else {
                        self.reading = Some(Reading::InFlight);
                        return Poll::Pending;
                    };
                    let count = *result.as_ref().unwrap_or(&0);
                    self.reading = Some(if count == 0 {
                        Reading::Idle(buffer)
                    } else {
                        Reading::Ready(buffer, 0, count)
                    });
                    if result? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for UringSocket {
    /// Takes bytes as soon as nothing is with the kernel; how they fared, the next call tells.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(context))?;
        if self.datagrams && bytes.len() > BUFFER_BYTES {
            return Poll::Ready(Err(io::Error::other("the datagram is too long")));
        }
        let count = bytes.len().min(BUFFER_BYTES);
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        if let Some(Writing::Idle(buffer)) = &mut self.writing {
            buffer.bytes_mut()[..count].copy_from_slice(&bytes[..count]);
        }
        self.start_write(0, count);
        // The first poll hands it to the ring.
        if let Poll::Ready(Err(error)) = self.poll_written(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(context))?;
        Poll::Ready(self.handle.shutdown(Shutdown::Write))
    }
}

impl Drop for UringSocket {
    /// Ends what is in flight: tokio-uring has no cancel, and an operation that is dropped keeps
    /// its buffer and its descriptor until the kernel is done, which is never if the peer is mute.
    fn drop(&mut self) {
        // A FIN is left to the close, which makes it a RST where that was asked for.
        let how = match self.writing {
            Some(Writing::InFlight(..)) => Shutdown::Both,
            _ => Shutdown::Read,
        };
        // It fails only where the peer has ended the connection, which ends operations, too.
        let _ = self.handle.shutdown(how);
    }
}
