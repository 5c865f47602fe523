//! One keep-alive connection.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::response::{Done, ResponseReader};

/// Bytes read at once: several small answers, or a good part of a large one.
const READ_BYTES: usize = 16 * 1024;

pub struct Connection {
    stream: TcpStream,
    reader: ResponseReader,
    buffer: Box<[u8]>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            reader: ResponseReader::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Returns this connection unless its peer has closed it while nothing was asked.
    pub fn if_alive(mut self) -> Option<Self> {
        match self.stream.try_read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(self),
            _ => None,
        }
    }

    /// Sends `request` and reads the whole answer. The connection is of no use after an error.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Done, Error> {
        self.stream.write_all(request).await?;
        loop {
            self.stream.readable().await?;
            let count = match self.stream.try_read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                other => other?,
            };
            if let Some(done) = self.reader.feed(&self.buffer[..count])? {
                return Ok(done);
            }
        }
    }
}
