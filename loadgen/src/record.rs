//! What became of one request.

use serde::Serialize;

/// How a request failed before it had a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Nobody listens.
    Refused,
    /// The connection broke, or ended before the answer did.
    Reset,
    /// No whole answer in time.
    Timeout,
    /// What came was not HTTP.
    Protocol,
    /// A status of 400 or more, or not one of those that were asked for.
    Status,
    /// An answer that was not as [`crate::plan::Check`] asked.
    Check,
    /// Never sent: too many were waiting for a connection ([`crate::config::BACKLOG`]).
    Overload,
    /// Any other error of the operating system.
    Other,
}

impl ErrorClass {
    /// Returns the name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Check => "check",
            Self::Overload => "overload",
            Self::Other => "other",
        }
    }

    /// Returns the class of an operating system's error on a connection.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::UnexpectedEof => Self::Reset,
            Kind::TimedOut => Self::Timeout,
            Kind::InvalidData => Self::Protocol,
            _ => Self::Other,
        }
    }
}

/// A status, or why there is none.
pub type Result = std::result::Result<u16, ErrorClass>;

/// `GET` or `POST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Without a body; safe to repeat.
    Get,
    /// With a body; must not be executed twice.
    Post,
}

impl Method {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One request, for those who look for stalls. Times are microseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Counts up from 0; with ids on, the request's is the prefix, `-` and this.
    pub number: u64,
    /// Its method.
    pub method: Method,
    /// When it was due.
    pub scheduled_us: u64,
    /// When a connection took it up.
    pub sent_us: u64,
    /// When the answer was whole, or it failed.
    pub done_us: u64,
    /// What came of it.
    pub result: Result,
}

impl Record {
    /// Returns how it failed, if it did: an error, or a status of 400 or more.
    pub fn failure(&self) -> Option<ErrorClass> {
        match self.result {
            Ok(status) if status < 400 => None,
            Ok(_) => Some(ErrorClass::Status),
            Err(class) => Some(class),
        }
    }

    /// Returns the microseconds from when it was due to when it was done.
    pub fn latency_us(&self) -> u64 {
        self.done_us.saturating_sub(self.scheduled_us)
    }

    /// Returns the microseconds from when it was sent to when it was done.
    pub fn service_time_us(&self) -> u64 {
        self.done_us.saturating_sub(self.sent_us)
    }
}
