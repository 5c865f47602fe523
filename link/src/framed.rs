//! One type of message each way over a TLS connection.

use std::marker::PhantomData;
use std::time::Duration;

use ballast_wire::{decode, encode};
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::{Identity, LinkError, TlsStream};

/// The longest wait for a peer to take what is written: past it the link is given up, so that one
/// stalled peer holds no memory and no task for long.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes read at a time.
const READ_CHUNK: usize = 16 * 1024;

/// A connection between two members that sends `Out` and receives `In`.
#[derive(Debug)]
pub struct Link<Out, In> {
    /// Who is at the other end; its certificate says so.
    pub peer: Identity,
    /// Sends.
    pub sender: LinkSender<Out>,
    /// Receives.
    pub receiver: LinkReceiver<In>,
}

impl<Out: Serialize, In: DeserializeOwned> Link<Out, In> {
    /// Wraps a connection whose peer is known.
    pub fn new(stream: TlsStream, peer: Identity) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            peer,
            sender: LinkSender::new(writer),
            receiver: LinkReceiver::new(reader),
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub struct LinkSender<Out> {
    writer: WriteHalf<TlsStream>,
    buffer: BytesMut,
    message: PhantomData<fn(Out)>,
}

impl<Out: Serialize> LinkSender<Out> {
    /// Wraps the writing half of a connection.
    pub fn new(writer: WriteHalf<TlsStream>) -> Self {
        Self {
            writer,
            buffer: BytesMut::new(),
            message: PhantomData,
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError::Encode`] leaves the link usable; after any other error it is not.
    pub async fn send(&mut self, message: &Out) -> Result<(), LinkError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Adds a message to what the next [`flush`](Self::flush) writes.
    ///
    /// # Errors
    /// [`LinkError::Encode`] if it is too long; nothing was added then.
    pub fn queue(&mut self, message: &Out) -> Result<(), LinkError> {
        Ok(encode(message, &mut self.buffer)?)
    }

    /// Writes all that was queued, in one go.
    ///
    /// # Errors
    /// [`LinkError::Stalled`] after [`WRITE_TIMEOUT`], [`LinkError::Io`] if the connection broke.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        let buffer = self.buffer.split();
        let write = async {
            self.writer.write_all(&buffer).await?;
            self.writer.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write)
            .await
            .map_err(|_| LinkError::Stalled(WRITE_TIMEOUT))??;
        Ok(())
    }

    /// Says goodbye and closes; errors do not matter any more.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.writer.shutdown()).await;
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct LinkReceiver<In> {
    reader: ReadHalf<TlsStream>,
    buffer: BytesMut,
    message: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> LinkReceiver<In> {
    /// Wraps the reading half of a connection.
    pub fn new(reader: ReadHalf<TlsStream>) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            message: PhantomData,
        }
    }

    /// Waits for the next message; `None` when the peer has closed. Cancel-safe: nothing is lost
    /// if the future is dropped.
    ///
    /// # Errors
    /// [`LinkError::Io`] if the connection broke, [`LinkError::Decode`] if what came is no message.
    pub async fn recv(&mut self) -> Result<Option<In>, LinkError> {
        loop {
            if let Some(message) = decode(&mut self.buffer)? {
                return Ok(Some(message));
            }
            self.buffer.reserve(READ_CHUNK);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
