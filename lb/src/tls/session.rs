//! TLS without sockets: bytes in, plain text out, and the other way round.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, WriteTraffic};

/// Bytes of an unfinished handshake message that are kept for one connection at most.
pub const HANDSHAKE_BYTES: usize = 64 * 1024;
const RECORD_HEAD: usize = 5;
/// The largest piece that one record carries (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// What a record adds to its content at most: head, explicit nonce, content type and tag.
const RECORD_OVERHEAD: usize = RECORD_HEAD + 8 + 1 + 16;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// What came breaks the protocol, or the two sides cannot agree. What is to be sent holds the
    /// alert that tells the client.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// There is no certificate to show.
    #[error("no certificate")]
    Unprepared,
    /// A handshake message that is too long.
    #[error("handshake of more than {HANDSHAKE_BYTES} bytes")]
    Handshake,
}

/// The server's side of one connection.
///
/// It owns no buffers while nothing is under way: records are decrypted where they were received,
/// and only one that has not come whole is kept.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// What came of a record, or of a handshake message, that is not whole.
    partial: Vec<u8>,
    open: bool,
    ended: bool,
    closed: bool,
    failed: bool,
}

impl Session {
    /// Begins one.
    ///
    /// # Errors
    /// If the library refuses the settings.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, SessionError> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            open: false,
            ended: false,
            closed: false,
            failed: false,
        })
    }

    /// Whether the handshake is done: only then can plain text be sent.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the client has said that it sends no more. An end of the connection without that
    /// may be an attacker's, who cuts the rest off.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether a record, or the handshake, is only half there.
    pub fn is_between(&self) -> bool {
        !self.partial.is_empty() || !self.open
    }

    /// Returns the protocol that was agreed on by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether the client has shown a certificate; it was verified then.
    pub fn client_is_verified(&self) -> bool {
        let shown = self.connection.peer_certificates();
        shown.is_some_and(|chain| !chain.is_empty())
    }

    /// Takes received bytes, which it decrypts in place: `plain` is given each piece of plain text,
    /// and `out` what must be sent.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is to be closed once `out`, which may end with an alert, is
    /// sent.
    pub fn received(
        &mut self,
        mut data: &mut [u8],
        out: &mut Vec<u8>,
        mut plain: impl FnMut(&[u8]),
    ) -> Result<(), SessionError> {
        while !self.partial.is_empty() && !data.is_empty() {
            let take = self.missing(data.len());
            let (taken, rest) = data.split_at_mut(take);
            self.partial.extend_from_slice(taken);
            data = rest;
            let mut partial = std::mem::take(&mut self.partial);
            let done = self.run(&mut partial, out, &mut plain)?;
            if done < partial.len() {
                partial.drain(..done);
                self.partial = partial;
            }
            self.check_partial()?;
        }
        if !data.is_empty() {
            let done = self.run(data, out, &mut plain)?;
            self.partial.extend_from_slice(&data[done..]);
            self.check_partial()?;
        }
        Ok(())
    }

    /// Returns how many of `available` bytes are to be added to what is kept: as few as make the
    /// record whole, so that those after it are decrypted where they are.
    fn missing(&self, available: usize) -> usize {
        if !self.open {
            // A message may be in several records, which have to be seen together.
            return available;
        }
        let wanted = match self.partial.get(3..RECORD_HEAD) {
            Some(length) => RECORD_HEAD + usize::from(u16::from_be_bytes([length[0], length[1]])),
            None => RECORD_HEAD,
        };
        match wanted.checked_sub(self.partial.len()) {
            Some(missing) if missing > 0 => missing.min(available),
            // A whole record that is kept waits for what follows it.
            _ => available,
        }
    }

    fn check_partial(&self) -> Result<(), SessionError> {
        if self.partial.len() > HANDSHAKE_BYTES {
            return Err(SessionError::Handshake);
        }
        Ok(())
    }

    /// Processes what is there, and returns how many bytes of it are done with.
    fn run(
        &mut self,
        data: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut impl FnMut(&[u8]),
    ) -> Result<usize, SessionError> {
        let mut done = 0;
        loop {
            let status = self.connection.process_tls_records(&mut data[done..]);
            let mut discard = status.discard;
            let state = match status.state {
                Ok(state) => state,
                Err(error) => {
                    self.alert(&mut data[done + discard..], out);
                    return Err(error.into());
                }
            };
            let more = match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain(record.payload);
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut encode) => {
                    append(out, |space| encode.encode(space))?;
                    true
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    true
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    true
                }
                ConnectionState::WriteTraffic(_) => {
                    self.open = true;
                    false
                }
                ConnectionState::Closed => {
                    self.ended = true;
                    false
                }
                // Waiting for more of the handshake; early data is never offered.
                _ => false,
            };
            done += discard;
            if !more {
                // What comes after the end is nobody's.
                return Ok(if self.ended { data.len() } else { done });
            }
        }
    }

    /// Appends the alert that follows from an error. `data` is what was not done with: the library
    /// remembers places in it. It is asked once: the alert is all that is queued then, and asked
    /// again it would find the same error again, and panic because that was told already.
    fn alert(&mut self, data: &mut [u8], out: &mut Vec<u8>) {
        self.failed = true;
        let status = self.connection.process_tls_records(data);
        if let Ok(ConnectionState::EncodeTlsData(mut encode)) = status.state
            && let Err(error) = append(out, |space| encode.encode(space))
        {
            tracing::debug!(%error, "alert not sent");
        }
    }

    /// Encrypts plain text, appending what is to be sent to `out`; returns whether it could, which
    /// it cannot before the handshake is done and after [`Session::close`].
    ///
    /// # Errors
    /// [`SessionError`] if the keys are used up.
    pub fn encrypt(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<bool, SessionError> {
        if self.closed || self.failed {
            return Ok(false);
        }
        let records = text.len().div_ceil(RECORD_BYTES);
        let room = text.len() + records * RECORD_OVERHEAD;
        self.write(out, room, What::Text(text))
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// See [`Session::encrypt`].
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if std::mem::replace(&mut self.closed, true) || self.failed {
            return Ok(());
        }
        self.write(out, RECORD_OVERHEAD + 2, What::Close)?;
        Ok(())
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        what: What<'_>,
    ) -> Result<bool, SessionError> {
        // The library remembers places in what is kept, so it has to see it.
        let mut partial = std::mem::take(&mut self.partial);
        let mut done = 0;
        let written = self.write_beside(&mut partial, &mut done, out, room, what);
        partial.drain(..done);
        self.partial = partial;
        written
    }

    fn write_beside(
        &mut self,
        partial: &mut [u8],
        done: &mut usize,
        out: &mut Vec<u8>,
        room: usize,
        what: What<'_>,
    ) -> Result<bool, SessionError> {
        loop {
            let status = self.connection.process_tls_records(&mut partial[*done..]);
            *done += status.discard;
            match status.state? {
                ConnectionState::EncodeTlsData(mut encode) => {
                    append(out, |space| encode.encode(space))?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    let mut result = what.write(&mut traffic, &mut out[start..]);
                    if let Err(EncryptError::InsufficientSize(size)) = &result {
                        out.resize(start + size.required_size, 0);
                        result = what.write(&mut traffic, &mut out[start..]);
                    }
                    let written = result.as_ref().map_or(0, |written| *written);
                    out.truncate(start + written);
                    return match result {
                        Ok(_) => Ok(true),
                        Err(EncryptError::EncryptExhausted) => {
                            Err(rustls::Error::EncryptError.into())
                        }
                        Err(EncryptError::InsufficientSize(_)) => Ok(false),
                    };
                }
                _ => return Ok(false),
            }
        }
    }
}

/// What is written into a session.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Text(&'a [u8]),
    Close,
}

impl What<'_> {
    fn write(
        self,
        traffic: &mut WriteTraffic<'_, ServerConnectionData>,
        space: &mut [u8],
    ) -> Result<usize, EncryptError> {
        match self {
            Self::Text(text) => traffic.encrypt(text, space),
            Self::Close => traffic.queue_close_notify(space),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("open", &self.open)
            .field("ended", &self.ended)
            .field("partial", &self.partial.len())
            .finish_non_exhaustive()
    }
}

fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), SessionError> {
    let start = out.len();
    let required = match encode(&mut []) {
        Ok(written) => written,
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    out.resize(start + required, 0);
    match encode(&mut out[start..]) {
        Ok(_) | Err(EncodeError::AlreadyEncoded) => Ok(()),
        Err(EncodeError::InsufficientSize(_)) => Err(rustls::Error::EncryptError.into()),
    }
}
