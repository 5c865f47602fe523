//! A client's connection under TLS.

use std::sync::Arc;

use ballast_ring::Token;
use rustls::ServerConfig;

use crate::tls::{Hello, Session, SessionError, look};

/// Bytes of a first message, and what may follow it, that are kept of one connection at most.
const HELLO_MAX: usize = 128 << 10;

/// Where it is.
#[derive(Debug)]
enum State {
    /// What the client wants to speak is not known yet.
    Hello(Vec<u8>),
    /// It is not ours to serve, and nothing was answered.
    Leaving(Vec<u8>, Arc<ServerConfig>),
    /// It is ours.
    Session(Box<Session>),
}

/// What is to be done after bytes were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing but what the plain text asks for.
    Go,
    /// The same; the handshake is done since.
    Opened,
    /// The connection is to be given away with what came of it.
    Leave,
}

/// A client's connection under TLS: whose it is, is decided by its first message.
#[derive(Debug)]
pub struct Secure {
    state: State,
    /// Where the plain text goes if what it asks for is not served here: the other end is
    /// pingora's.
    pub relay: Option<Token>,
}

impl Secure {
    /// Begins with a connection that was just accepted.
    pub fn new() -> Self {
        Self {
            state: State::Hello(Vec::new()),
            relay: None,
        }
    }

    /// Takes received bytes: appends plain text to `plain`, and to `cipher` what is to be sent.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is to be closed once `cipher` is sent.
    pub fn received(
        &mut self,
        data: &mut [u8],
        config: impl FnOnce() -> Option<Arc<ServerConfig>>,
        cipher: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Step, SessionError> {
        match &mut self.state {
            State::Session(session) => {
                let before = session.is_open();
                session.received(data, cipher, |text| plain.extend_from_slice(text))?;
                Ok(if before == session.is_open() {
                    Step::Go
                } else {
                    Step::Opened
                })
            }
            State::Leaving(bytes, _) => {
                bytes.extend_from_slice(data);
                limit(bytes)?;
                Ok(Step::Go)
            }
            State::Hello(bytes) => {
                bytes.extend_from_slice(data);
                limit(bytes)?;
                let Some(hello) = look(bytes) else {
                    return Ok(Step::Go);
                };
                let config = config().ok_or(SessionError::Unprepared)?;
                let mut bytes = std::mem::take(bytes);
                if hello != Hello::Other {
                    self.state = State::Leaving(bytes, config);
                    return Ok(Step::Leave);
                }
                let mut session = Box::new(Session::new(config)?);
                let result =
                    session.received(&mut bytes, cipher, |text| plain.extend_from_slice(text));
                let opened = session.is_open();
                self.state = State::Session(session);
                result.map(|()| if opened { Step::Opened } else { Step::Go })
            }
        }
    }

    /// Whether the handshake is done.
    pub fn is_open(&self) -> bool {
        matches!(&self.state, State::Session(session) if session.is_open())
    }

    /// Whether the client has said that it sends no more.
    pub fn is_ended(&self) -> bool {
        matches!(&self.state, State::Session(session) if session.is_ended())
    }

    /// Encrypts plain text.
    ///
    /// # Errors
    /// See [`Session::encrypt`].
    pub fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), SessionError> {
        if let State::Session(session) = &mut self.state {
            session.encrypt(plain, cipher)?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self, cipher: &mut Vec<u8>) {
        if let State::Session(session) = &mut self.state
            && let Err(error) = session.close(cipher)
        {
            tracing::debug!(%error, "TLS not closed in order");
        }
    }

    /// Returns what came and was not answered, if it is to be given away.
    pub fn into_hello(self) -> Option<(Vec<u8>, Arc<ServerConfig>)> {
        match self.state {
            State::Leaving(bytes, config) => Some((bytes, config)),
            State::Hello(_) | State::Session(_) => None,
        }
    }
}

fn limit(bytes: &[u8]) -> Result<(), SessionError> {
    if bytes.len() > HELLO_MAX {
        return Err(SessionError::Handshake);
    }
    Ok(())
}
