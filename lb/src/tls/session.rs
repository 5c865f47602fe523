//! TLS without sockets: bytes in, plain text out, and the other way round.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};

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
                    self.alert(out);
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

    /// Appends the alert that follows from an error.
    fn alert(&mut self, out: &mut Vec<u8>) {
        // The error stays, so that only what is queued comes before it.
        while let Ok(state) = self.connection.process_tls_records(&mut []).state {
            match state {
                ConnectionState::EncodeTlsData(mut encode) => {
                    if append(out, |space| encode.encode(space)).is_err() {
                        return;
                    }
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                _ => return,
            }
        }
    }

    /// Encrypts plain text, appending what is to be sent to `out`; returns whether it could, which
    /// it cannot before the handshake is done and after [`Session::close`].
    ///
    /// # Errors
    /// [`SessionError`] if the keys are used up.
    pub fn encrypt(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<bool, SessionError> {
        if self.closed {
            return Ok(false);
        }
        let records = text.len().div_ceil(RECORD_BYTES);
        self.write(
            out,
            text.len() + records * RECORD_OVERHEAD,
            |traffic, space| traffic.encrypt(text, space),
        )
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// See [`Session::encrypt`].
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.write(out, RECORD_OVERHEAD + 2, |traffic, space| {
            traffic.queue_close_notify(space)
        })?;
        Ok(())
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        mut write: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<bool, SessionError> {
        loop {
            match self.connection.process_tls_records(&mut []).state? {
                ConnectionState::EncodeTlsData(mut encode) => {
                    append(out, |space| encode.encode(space))?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    let mut result = write(&mut traffic, &mut out[start..]);
                    if let Err(EncryptError::InsufficientSize(size)) = &result {
                        out.resize(start + size.required_size, 0);
                        result = write(&mut traffic, &mut out[start..]);
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
