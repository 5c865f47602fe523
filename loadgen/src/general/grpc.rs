//! The frame of a unary gRPC call: five bytes before the message, and the status after it.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use crate::record::ErrorClass;

/// A byte that tells whether the message is compressed, and its length in four.
const PREFIX_BYTES: usize = 5;

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Unary {
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    message_read: u64,
}

impl Unary {
    /// Returns `message` with its prefix.
    ///
    /// # Panics
    /// If it is longer than 4 GiB, which no body is.
    pub fn frame(message: &[u8]) -> Bytes {
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("a message is shorter than 4 GiB"));
        framed.put_slice(message);
        framed.freeze()
    }

    fn message_bytes(&self) -> u64 {
        let [_, a, b, c, d] = self.prefix;
        u64::from(u32::from_be_bytes([a, b, c, d]))
    }

    /// Takes the next piece; gives what of it is message to `take`.
    ///
    /// # Errors
    /// [`ErrorClass::Protocol`] for a compressed message, which was not asked for, and for a
    /// second one.
    pub fn feed(
        &mut self,
        mut piece: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), ErrorClass> {
        if self.prefix_read < PREFIX_BYTES {
            let (prefix, rest) = piece.split_at(piece.len().min(PREFIX_BYTES - self.prefix_read));
            self.prefix[self.prefix_read..][..prefix.len()].copy_from_slice(prefix);
            self.prefix_read += prefix.len();
            piece = rest;
        }
        if self.prefix[0] != 0 {
            return Err(ErrorClass::Protocol);
        }
        if piece.is_empty() {
            return Ok(());
        }
        self.message_read += piece.len() as u64;
        if self.message_read > self.message_bytes() {
            return Err(ErrorClass::Protocol);
        }
        take(piece);
        Ok(())
    }

    /// Returns 200 for an answer that is whole and whose status in `last`, the trailers or the
    /// headers of an answer without, is `OK`.
    pub fn end(&self, last: &HeaderMap) -> Result<u16, ErrorClass> {
        match last.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") => {}
            Some(_) => return Err(ErrorClass::Status),
            None => return Err(ErrorClass::Protocol),
        }
        if self.prefix_read == PREFIX_BYTES && self.message_read == self.message_bytes() {
            Ok(200)
        } else {
            Err(ErrorClass::Protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn message_is_read_in_pieces_of_any_size() {
        let framed = Unary::frame(b"hello");
        for size in 1..=framed.len() {
            let (mut unary, mut message) = (Unary::default(), Vec::new());
            for piece in framed.chunks(size) {
                unary
                    .feed(piece, |part| message.extend_from_slice(part))
                    .expect("is well-formed");
            }
            assert_eq!(message, b"hello");
            assert_eq!(unary.end(&status("0")), Ok(200));
            assert_eq!(unary.end(&status("13")), Err(ErrorClass::Status));
            assert_eq!(unary.end(&HeaderMap::new()), Err(ErrorClass::Protocol));
        }
    }

    #[test]
    fn short_long_compressed_and_missing_messages_are_not_the_protocol() {
        let mut short = Unary::default();
        short
            .feed(&Unary::frame(b"hello")[..7], |_| ())
            .expect("so far");
        assert_eq!(short.end(&status("0")), Err(ErrorClass::Protocol));
        let mut long = Unary::default();
        let two = [Unary::frame(b"a"), Unary::frame(b"b")].concat();
        assert_eq!(long.feed(&two, |_| ()), Err(ErrorClass::Protocol));
        let compressed = [1, 0, 0, 0, 0];
        assert_eq!(
            Unary::default().feed(&compressed, |_| ()),
            Err(ErrorClass::Protocol)
        );
        assert_eq!(
            Unary::default().end(&status("0")),
            Err(ErrorClass::Protocol)
        );
    }
}
