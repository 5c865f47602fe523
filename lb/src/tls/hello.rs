//! What a client asks for in its first message, read before anything is answered.
//!
//! The hot path serves HTTP/1.1; a connection on which HTTP/2 will be spoken goes to another part
//! of the process. If that is known before the first byte is answered, only a socket and the bytes
//! read so far have to move, and no cryptographic state.
//!
//! # Source
//! RFC 8446, section 4.1.2 (ClientHello) and 5.1 (records); RFC 7301 (ALPN).

use super::store::ACME_ALPN;

/// Bytes of a first message at most; the library refuses a larger one as well.
pub const HELLO_BYTES: usize = 0xffff;
const RECORD_HEAD: usize = 5;
const MESSAGE_HEAD: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const ALPN: u16 = 16;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// It offers HTTP/2, which is then spoken.
    Http2,
    /// It is an ACME server that looks for a challenge's certificate.
    Acme,
    /// Anything else, which also means what is no TLS: the session says what is wrong with it.
    Other,
}

/// Looks at the first bytes of a connection; `None` if there are not enough of them yet.
pub fn look(bytes: &[u8]) -> Option<Hello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if rest.first().is_some_and(|&kind| kind != HANDSHAKE) {
            return Some(Hello::Other);
        }
        let (head, after) = rest.split_first_chunk::<RECORD_HEAD>()?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 {
            return Some(Hello::Other);
        }
        let fragment = after.get(..length)?;
        if message.is_empty() {
            // As a rule the message is in one record, and is then read where it is.
            match whole(fragment) {
                Some(Ok(hello)) => return Some(offers(hello)),
                Some(Err(())) => return Some(Hello::Other),
                None => {}
            }
        }
        message.extend_from_slice(fragment);
        match whole(&message) {
            Some(Ok(hello)) => return Some(offers(hello)),
            Some(Err(())) => return Some(Hello::Other),
            None => rest = &after[length..],
        }
    }
}

/// Returns the content of a whole ClientHello; an error if it is something else.
fn whole(message: &[u8]) -> Option<Result<&[u8], ()>> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Some(Err(()));
    }
    let (head, after) = message.split_first_chunk::<MESSAGE_HEAD>()?;
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if length > HELLO_BYTES {
        return Some(Err(()));
    }
    after.get(..length).map(Ok)
}

fn offers(hello: &[u8]) -> Hello {
    let mut offered = Hello::Other;
    let Some(protocols) = protocols(hello) else {
        return offered;
    };
    let mut rest = Bytes(protocols);
    while let Some(name) = rest.prefixed(1) {
        if name == ACME_ALPN {
            return Hello::Acme;
        }
        if name == b"h2" {
            offered = Hello::Http2;
        }
    }
    offered
}

/// Returns the list of protocol names.
fn protocols(hello: &[u8]) -> Option<&[u8]> {
    /// The legacy version and the random.
    const FIXED: usize = 2 + 32;
    let mut rest = Bytes(hello.get(FIXED..)?);
    rest.prefixed(1)?; // Session id.
    rest.prefixed(2)?; // Cipher suites.
    rest.prefixed(1)?; // Compression methods.
    let mut extensions = Bytes(rest.prefixed(2)?);
    loop {
        let kind = extensions.number(2)?;
        let content = extensions.prefixed(2)?;
        if kind == usize::from(ALPN) {
            return Bytes(content).prefixed(2);
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn number(&mut self, width: usize) -> Option<usize> {
        let (number, rest) = self.0.split_at_checked(width)?;
        self.0 = rest;
        Some(
            number
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }

    fn prefixed(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|&name| name.to_vec()).collect();
        let name = "example.test".try_into().expect("is a name");
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("writes");
        bytes
    }

    /// Cuts the one record of a message into several.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in hello[RECORD_HEAD..].chunks(size) {
            bytes.extend_from_slice(&hello[..3]);
            let length = u16::try_from(part.len()).expect("is short");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    #[test]
    fn offered_protocols_are_found_in_one_record_and_in_many() {
        for (alpn, expected) in [
            (&[][..], Hello::Other),
            (&[&b"http/1.1"[..]][..], Hello::Other),
            (&[&b"h2"[..], b"http/1.1"][..], Hello::Http2),
            (&[&b"http/1.1"[..], b"h2"][..], Hello::Http2),
            (&[&b"acme-tls/1"[..]][..], Hello::Acme),
        ] {
            let bytes = hello(alpn);
            assert_eq!(look(&bytes), Some(expected), "{alpn:?}");
            for size in [1, 3, 100] {
                assert_eq!(look(&fragmented(&bytes, size)), Some(expected), "{size}");
            }
        }
    }

    #[test]
    fn every_part_of_a_message_is_too_short() {
        let bytes = hello(&[b"h2"]);
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_is_no_tls_is_left_to_the_session() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        ] {
            assert_eq!(look(bytes), Some(Hello::Other), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn prop_no_bytes_are_misread_or_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            place in 0usize..300,
        ) {
            let _ = look(&bytes);
            // The same inside of a real message, where the parser gets deeper.
            let mut real = hello(&[b"h2"]);
            let place = place.min(real.len() - 1);
            let end = (place + bytes.len()).min(real.len());
            real[place..end].copy_from_slice(&bytes[..end - place]);
            let _ = look(&real);
            bytes.insert(0, HANDSHAKE);
            let _ = look(&bytes);
        }
    }
}
