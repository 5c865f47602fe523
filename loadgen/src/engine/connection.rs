//! What the core knows of one connection.

use super::response::Response;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits until it may be opened.
    Closed,
    /// Is being opened.
    Connecting,
    /// Can be used.
    Open,
}

/// One of the connections that are kept open. Its number stays when it is opened anew.
#[derive(Debug)]
pub struct Connection {
    /// Where it stands.
    pub state: State,
    /// Which pool it belongs to.
    pub pool: u16,
    /// How often it was opened: what was meant for an earlier time is told by it.
    pub generation: u32,
    /// Since when it has been opening.
    pub began_ns: u64,
    /// Requests sent since it was opened.
    pub asked: u64,
    /// Of these, those that were answered.
    pub answered: u64,
    /// Attempts in a row that did not open it, or opened it for nothing.
    pub failures: u32,
    /// Pauses that end with a request on it.
    pub pauses: u32,
    /// Whether its number is in its pool's list of free ones.
    pub is_listed: bool,
    /// Whether it is to be closed as soon as nothing is in flight on it.
    pub is_retiring: bool,
    /// Its reading half.
    pub response: Response,
    /// Of the answer that is being read: when its first byte came; 0 if none did.
    pub first_byte_ns: u64,
    /// Of the answer that is being read: its bytes so far.
    pub received_bytes: u64,
    /// Of the answer that is being read: its status.
    pub status: u16,
}

impl Connection {
    /// Returns a closed one.
    pub fn new(pool: u16) -> Self {
        Self {
            state: State::Closed,
            pool,
            generation: 0,
            began_ns: 0,
            asked: 0,
            answered: 0,
            failures: 0,
            pauses: 0,
            is_listed: false,
            is_retiring: false,
            response: Response::new(),
            first_byte_ns: 0,
            received_bytes: 0,
            status: 0,
        }
    }

    /// Begins a new life, at the begin of an attempt to connect.
    pub fn begin(&mut self, now_ns: u64) {
        self.state = State::Connecting;
        self.generation = self.generation.wrapping_add(1);
        self.began_ns = now_ns;
        self.asked = 0;
        self.answered = 0;
        self.pauses = 0;
        self.is_retiring = false;
        self.response.reset();
        self.expect();
    }

    /// Gets ready for the next answer.
    pub fn expect(&mut self) {
        self.first_byte_ns = 0;
        self.received_bytes = 0;
        self.status = 0;
    }
}
