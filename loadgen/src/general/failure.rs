//! Which class an error is.

use std::io;

use crate::record::ErrorClass;

/// Returns the class of an error on a connection, TLS or not.
pub fn of_io(error: &io::Error) -> ErrorClass {
    match error.get_ref() {
        Some(inner) if inner.is::<rustls::Error>() => ErrorClass::Tls,
        _ => ErrorClass::of(error),
    }
}

/// Returns the class of an error in a TLS handshake. A peer that closes in the middle of one does
/// not want it, which is no broken connection.
pub fn of_handshake(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorClass::Tls,
        _ => of_io(error),
    }
}

/// Returns the class of an error of a stream or a connection of HTTP/2.
pub fn of_h2(error: &h2::Error) -> ErrorClass {
    if let Some(error) = error.get_io() {
        return of_io(error);
    }
    match error.reason() {
        Some(
            h2::Reason::REFUSED_STREAM
            | h2::Reason::INADEQUATE_SECURITY
            | h2::Reason::HTTP_1_1_REQUIRED,
        ) => ErrorClass::Refused,
        // The peer gave up: the stream, or with a GOAWAY the connection.
        Some(
            h2::Reason::NO_ERROR
            | h2::Reason::CANCEL
            | h2::Reason::INTERNAL_ERROR
            | h2::Reason::ENHANCE_YOUR_CALM
            | h2::Reason::CONNECT_ERROR,
        ) => ErrorClass::Reset,
        Some(_) => ErrorClass::Protocol,
        None => ErrorClass::Other,
    }
}
