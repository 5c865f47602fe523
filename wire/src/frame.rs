//! Frames: length, version, body.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte that this build writes and reads.
pub const VERSION: u8 = 1;

/// Bytes of one frame's body at most: a full set of 100,000 assignments has about 8 MiB.
/// A longer frame is refused before anything is allocated for it.
pub const MAX_FRAME: usize = 64 << 20;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// No version byte.
    #[error("an empty frame")]
    Empty,
    /// Written by another version.
    #[error("version {0} of the encoding; this build reads version {VERSION}")]
    Version(u8),
    /// Not this message.
    #[error("not a valid message: {0}")]
    Malformed(String),
    /// The message ends before the frame does.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// A message that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Longer than [`MAX_FRAME`].
    #[error("a message of {0} bytes is longer than the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// A type that the format cannot carry: a mistake in the message's definition.
    #[error("cannot be encoded: {0}")]
    Unsupported(String),
}

/// Returns the version byte and the message: a frame without its length.
///
/// # Errors
/// [`EncodeError`] if it is too long.
pub fn to_bytes<M: Serialize>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let bytes = postcard::to_extend(message, vec![VERSION])
        .map_err(|error| EncodeError::Unsupported(error.to_string()))?;
    if bytes.len() > MAX_FRAME {
        return Err(EncodeError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Reads a version byte and a message that fill `bytes` exactly.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn from_bytes<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (message, rest) = postcard::take_from_bytes(body)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}

/// Appends a whole frame to `out`.
///
/// # Errors
/// [`EncodeError`] if the message is too long; `out` is unchanged then.
pub fn encode<M: Serialize>(message: &M, out: &mut BytesMut) -> Result<(), EncodeError> {
    let body = to_bytes(message)?;
    let length = u32::try_from(body.len()).map_err(|_| EncodeError::TooLong(body.len()))?;
    out.reserve(4 + body.len());
    out.put_u32(length);
    out.put_slice(&body);
    Ok(())
}

/// Takes one whole frame off the front of `input`; `None` if it has not all arrived.
///
/// # Errors
/// [`DecodeError`]; the link is then out of step and must be closed.
pub fn decode<M: DeserializeOwned>(input: &mut BytesMut) -> Result<Option<M>, DecodeError> {
    let Some(frame) = take_frame(input)? else {
        return Ok(None);
    };
    from_bytes(&frame).map(Some)
}

fn take_frame(input: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
    let Some(head) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(DecodeError::TooLong(length));
    }
    if input.len() < 4 + length {
        // Not reserved: a peer that announces much and sends little costs nothing.
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_arrive_in_pieces() {
        let mut whole = BytesMut::new();
        encode(&"hello".to_owned(), &mut whole).expect("short");
        let mut input = BytesMut::new();
        for byte in &whole[..whole.len() - 1] {
            input.put_u8(*byte);
            assert_eq!(decode::<String>(&mut input), Ok(None));
        }
        input.put_u8(whole[whole.len() - 1]);
        assert_eq!(decode::<String>(&mut input), Ok(Some("hello".to_owned())));
        assert!(input.is_empty());
    }

    #[test]
    fn long_frame_is_refused_by_its_length_alone() {
        let mut input = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(
            decode::<String>(&mut input),
            Err(DecodeError::TooLong(_))
        ));
    }

    #[test]
    fn other_version_and_trailing_bytes_are_named() {
        assert_eq!(from_bytes::<u8>(&[9, 1]), Err(DecodeError::Version(9)));
        assert_eq!(
            from_bytes::<u8>(&[VERSION, 1, 1]),
            Err(DecodeError::Trailing(1))
        );
        assert_eq!(from_bytes::<u8>(&[]), Err(DecodeError::Empty));
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_not_a_panic(bytes: Vec<u8>) {
            let _ = from_bytes::<crate::agent::AgentToManager>(&bytes);
            let _ = from_bytes::<crate::agent::ManagerToAgent>(&bytes);
            let _ = from_bytes::<crate::ingress::ManagerToIngress>(&bytes);
            let _ = from_bytes::<crate::feed::AgentToIngress>(&bytes);
        }
    }
}
