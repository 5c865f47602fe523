//! A session against the library's own client, in one thread and without sockets.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, SupportedProtocolVersion};

use super::{Identity, Session, SessionError, Store};

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

struct Pair {
    server: Session,
    client: ClientConnection,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// Plain text as the server got it.
    got: Vec<u8>,
}

fn authority() -> (
    CertificateDer<'static>,
    rcgen::Issuer<'static, rcgen::KeyPair>,
) {
    let key = rcgen::KeyPair::generate().expect("makes a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("signs");
    (certificate.der().clone(), rcgen::Issuer::new(params, key))
}

fn pair(version: &'static SupportedProtocolVersion, padding: usize) -> Pair {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (root, issuer) = authority();
    let key = rcgen::KeyPair::generate().expect("makes a key");
    let mut params =
        rcgen::CertificateParams::new(vec!["example.test".to_owned()]).expect("a name");
    // A certificate that does not fit into one record.
    let filler = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], vec![4; padding]);
    params.custom_extensions.push(filler);
    let certificate = params.signed_by(&key, &issuer).expect("signs");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let chain = vec![certificate.der().clone()];
    let identity = Identity::from_parts(Path::new("test"), chain, key).expect("fits");
    let store = Store::default();
    store.set_files(vec![identity], true);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&BOTH)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(store));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = "example.test".try_into().expect("a name");
    Pair {
        server: Session::new(Arc::new(config)).expect("a session"),
        client: ClientConnection::new(Arc::new(client), name).expect("a connection"),
        to_server: Vec::new(),
        to_client: Vec::new(),
        got: Vec::new(),
    }
}

impl Pair {
    /// Moves what is on its way to the server, in pieces of these sizes by turns.
    fn up(&mut self, sizes: &[usize]) -> Result<(), SessionError> {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server).expect("writes");
        }
        let mut bytes = std::mem::take(&mut self.to_server);
        let mut rest = &mut bytes[..];
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                return Ok(());
            }
            let (piece, after) = rest.split_at_mut((*size).clamp(1, rest.len()));
            rest = after;
            let got = &mut self.got;
            self.server.received(piece, &mut self.to_client, |text| {
                got.extend_from_slice(text);
            })?;
        }
        Ok(())
    }

    /// Moves what is on its way to the client, and returns the plain text.
    fn down(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut text = Vec::new();
        let bytes = std::mem::take(&mut self.to_client);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("reads");
            let state = self.client.process_new_packets()?;
            let mut part = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut part).expect("reads");
            text.extend(part);
        }
        Ok(text)
    }

    fn shake_hands(&mut self, sizes: &[usize]) {
        for _ in 0..10 {
            self.up(sizes).expect("the server goes on");
            assert_eq!(self.down().expect("the client goes on"), b"");
            if self.server.is_open() && !self.client.is_handshaking() {
                return;
            }
        }
        panic!("no handshake");
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the bytes are cut, what goes in comes out, in order and nothing else.
    #[test]
    fn prop_text_survives_any_cut(
        new in any::<bool>(),
        sizes in proptest::collection::vec(1usize..70_000, 1..5),
        small in proptest::collection::vec(1usize..40, 1..4),
        up in proptest::collection::vec(0usize..60_000, 1..4),
        down in proptest::collection::vec(0usize..60_000, 1..4),
    ) {
        let mut pair = pair(BOTH[usize::from(new)], 100);
        pair.shake_hands(&small);
        prop_assert_eq!(pair.server.protocol(), Some(&b"http/1.1"[..]));
        pair.client.set_buffer_limit(None);
        for length in up {
            let sent = text(length);
            pair.client.writer().write_all(&sent).expect("writes");
            pair.up(&sizes).expect("goes on");
            prop_assert_eq!(std::mem::take(&mut pair.got), sent);
            prop_assert!(!pair.server.is_between());
        }
        for length in down {
            let sent = text(length);
            prop_assert!(pair.server.encrypt(&sent, &mut pair.to_client).expect("encrypts"));
            prop_assert_eq!(pair.down().expect("is decrypted"), sent);
        }
    }
}

#[test]
fn handshake_larger_than_a_record_is_done() {
    for version in BOTH {
        let mut pair = pair(version, 40_000);
        pair.shake_hands(&[1000]);
    }
}

#[test]
fn nothing_is_encrypted_before_the_handshake_and_after_the_close() {
    let mut pair = pair(BOTH[1], 100);
    let mut out = Vec::new();
    assert!(!pair.server.encrypt(b"early", &mut out).expect("no error"));
    assert!(out.is_empty() && pair.server.is_between());
    pair.shake_hands(&[usize::MAX]);
    pair.server.close(&mut pair.to_client).expect("closes");
    assert!(!pair.server.encrypt(b"late", &mut out).expect("no error"));
    assert!(out.is_empty());
    assert_eq!(pair.down().expect("is understood"), b"");
    assert!(
        matches!(pair.client.reader().read(&mut [0; 8]), Ok(0)),
        "a clean end"
    );
}

#[test]
fn end_that_the_client_announced_is_told_from_one_that_it_did_not() {
    let mut pair = pair(BOTH[1], 100);
    pair.shake_hands(&[usize::MAX]);
    assert!(!pair.server.is_ended());
    pair.client.writer().write_all(b"last").expect("writes");
    pair.client.send_close_notify();
    pair.up(&[7]).expect("goes on");
    assert_eq!(pair.got, b"last");
    assert!(pair.server.is_ended());
    // The other direction is still open.
    assert!(
        pair.server
            .encrypt(b"answer", &mut pair.to_client)
            .expect("encrypts")
    );
    assert_eq!(pair.down().expect("is decrypted"), b"answer");
}

#[test]
fn changed_byte_ends_the_session_with_an_alert() {
    for version in BOTH {
        let mut pair = pair(version, 100);
        pair.shake_hands(&[usize::MAX]);
        pair.client.writer().write_all(b"secret").expect("writes");
        pair.client.write_tls(&mut pair.to_server).expect("writes");
        let last = pair.to_server.len() - 1;
        pair.to_server[last] ^= 1;
        assert!(pair.up(&[usize::MAX]).is_err());
        assert!(pair.got.is_empty());
        assert!(!pair.to_client.is_empty(), "an alert is sent");
        let error = pair.down().expect_err("an alert");
        assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
    }
}

#[test]
fn unknown_name_and_plain_text_are_refused_with_an_alert() {
    let mut pair = pair(BOTH[1], 100);
    let mut request = b"GET / HTTP/1.1\r\nhost: example.test\r\n\r\n".to_vec();
    let result = pair
        .server
        .received(&mut request, &mut pair.to_client, |_| {});
    assert!(result.is_err());
    assert_eq!(pair.to_client.first(), Some(&21), "an alert");
}

#[test]
fn keys_are_changed_when_the_client_asks() {
    let mut pair = pair(BOTH[1], 100);
    pair.shake_hands(&[usize::MAX]);
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().expect("changes keys");
        pair.client.writer().write_all(b"up").expect("writes");
        pair.up(&[9]).expect("goes on");
        assert_eq!(std::mem::take(&mut pair.got), b"up");
        assert!(
            pair.server
                .encrypt(b"down", &mut pair.to_client)
                .expect("encrypts")
        );
        assert_eq!(pair.down().expect("is decrypted"), b"down");
    }
}

#[test]
fn endless_handshake_message_is_bounded() {
    let mut pair = pair(BOTH[1], 100);
    // A message of the greatest length that is announced, in records that never complete it.
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    let mut out = Vec::new();
    for _ in 0..8 {
        let mut bytes = record.clone();
        if pair.server.received(&mut bytes, &mut out, |_| {}).is_err() {
            return;
        }
    }
    panic!("128 KiB of a handshake were kept");
}

/// What the library remembers of a half message is its place in what is kept: it must still be
/// there when something is encrypted in between.
#[test]
fn text_is_encrypted_while_a_message_is_half_there() {
    let mut pair = pair(BOTH[1], 100);
    pair.shake_hands(&[usize::MAX]);
    pair.client.refresh_traffic_keys().expect("changes keys");
    pair.client.write_tls(&mut pair.to_server).expect("writes");
    let mut bytes = std::mem::take(&mut pair.to_server);
    let half = bytes.len() / 2;
    let (first, second) = bytes.split_at_mut(half);
    for part in [first, second] {
        let received = pair.server.received(part, &mut pair.to_client, |_| {});
        received.expect("goes on");
        assert!(
            pair.server
                .encrypt(b"down", &mut pair.to_client)
                .expect("encrypts")
        );
        assert_eq!(pair.down().expect("is decrypted"), b"down");
    }
}

#[test]
fn nothing_breaks_after_a_failure_at_any_byte_of_the_handshake() {
    for version in BOTH {
        let mut first = pair(version, 100);
        first.up(&[usize::MAX]).expect("goes on");
        first.down().expect("goes on");
        first
            .client
            .write_tls(&mut first.to_server)
            .expect("writes");
        let length = first.to_server.len();
        for place in (0..length).step_by(7) {
            let mut pair = pair(version, 100);
            pair.up(&[usize::MAX]).expect("goes on");
            pair.down().expect("goes on");
            pair.client.write_tls(&mut pair.to_server).expect("writes");
            let place = place.min(pair.to_server.len() - 1);
            pair.to_server[place] ^= 0x55;
            let failed = pair.up(&[50]).is_err();
            let sent = pair.server.encrypt(b"after", &mut pair.to_client);
            assert!(!failed || !sent.expect("no error"), "{place}");
            pair.server.close(&mut pair.to_client).ok();
            pair.to_server.clear();
        }
    }
}
