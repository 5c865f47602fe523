//! What became of one request.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What a FIN in the middle of an answer is called.
pub(crate) const CLOSED: &str = "the peer closed the connection before its answer was whole";

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Nobody listens.
    Refused,
    /// The connection broke, or ended before the answer did.
    Reset,
    /// No whole answer in time.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// What came was not the protocol that was spoken.
    Protocol,
    /// A status that was not asked for: 400 or more, if nothing else was said.
    Status,
    /// An answer that did not pass a check of its body or headers.
    Check,
    /// No route to the target.
    Unreachable,
    /// Never sent: too many were waiting for a connection ([`crate::plan::BACKLOG`]).
    Overload,
    /// Never sent: no local port was left.
    Ports,
    /// Never sent: no file descriptor was left.
    Descriptors,
    /// Any other error of the operating system.
    Other,
}

impl ErrorClass {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::Reset,
        Self::Timeout,
        Self::Tls,
        Self::Protocol,
        Self::Status,
        Self::Check,
        Self::Unreachable,
        Self::Overload,
        Self::Ports,
        Self::Descriptors,
        Self::Other,
    ];

    /// Returns the name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Check => "check",
            Self::Unreachable => "unreachable",
            Self::Overload => "overload",
            Self::Ports => "ports",
            Self::Descriptors => "descriptors",
            Self::Other => "other",
        }
    }

    /// Returns its place in [`ErrorClass::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns whether the target answered all the same.
    pub const fn answered(self) -> bool {
        matches!(self, Self::Status | Self::Check)
    }

    /// Returns whether the request never left the generator.
    pub const fn unsent(self) -> bool {
        matches!(self, Self::Overload | Self::Ports | Self::Descriptors)
    }

    /// Returns the class of an operating system's error on a connection.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match Errno::from_io_error(error) {
            Some(Errno::ADDRNOTAVAIL) => return Self::Ports,
            Some(Errno::MFILE | Errno::NFILE) => return Self::Descriptors,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN) => {
                return Self::Unreachable;
            }
            _ => {}
        }
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

/// What matters of a request's method to those who look for lost or repeated requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Without a body; safe to repeat.
    Get,
    /// With a body; must not be executed twice.
    Post,
    /// Any other.
    Other,
}

impl Method {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Other => "OTHER",
        }
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        match *method {
            http::Method::GET => Self::Get,
            http::Method::POST => Self::Post,
            _ => Self::Other,
        }
    }
}

/// One request, for those who look for stalls. Times are microseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_the_order_of_their_numbers() {
        for (index, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
            let json = serde_json::to_string(&class).expect("serializes");
            assert_eq!(json, format!("\"{}\"", class.name()));
        }
    }

    #[test]
    fn own_limits_are_told_from_the_targets_faults() {
        let class = |errno: Errno| ErrorClass::of(&errno.into());
        assert_eq!(class(Errno::ADDRNOTAVAIL), ErrorClass::Ports);
        assert_eq!(class(Errno::MFILE), ErrorClass::Descriptors);
        assert_eq!(class(Errno::HOSTUNREACH), ErrorClass::Unreachable);
        assert_eq!(class(Errno::CONNREFUSED), ErrorClass::Refused);
        assert_eq!(class(Errno::PIPE), ErrorClass::Reset);
    }
}
