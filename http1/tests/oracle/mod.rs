//! Second implementations, written to be obvious instead of fast, and what is held against them.
//! The property tests and the fuzz targets share them.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(
    clippy::option_option,
    clippy::single_match_else,
    reason = "naive on purpose: refused is the outer none, absent the inner one"
)]

mod chunks;
mod heads;
mod lenient;
mod proxies;

use ballast_http1::{
    BodyLength, BodyReader, Limits, RequestKind, Scratch, Version, may_end, parse_request,
    parse_response,
};

/// Holds the reader of requests: cut anywhere it says nothing else, the naive reader agrees, httparse
/// reads the same words, and no lenient reader finds another end of the message.
pub fn hold_request(bytes: &[u8], cut: usize) {
    let limits = Limits::default();
    let mut scratch = Scratch::default();
    let naive = heads::request(bytes);
    let mut length = None;
    match parse_request(bytes, &mut scratch, &limits) {
        Ok(Some(request)) => {
            let naive = naive.expect("the naive reader takes it, too");
            assert_eq!(request.method().as_str(), naive.method);
            assert_eq!(request.target(), naive.target);
            assert_eq!(request.host(), naive.host);
            assert_eq!(request.version() == Version::Http11, naive.is_11);
            assert_eq!(request.keep_alive(), naive.keep_alive);
            assert_eq!(request.expects_continue(), naive.expects_continue);
            assert_eq!(request.body(), naive.body);
            assert_eq!(request.head_len(), naive.length);
            let fields: Vec<_> = request.fields().iter().collect();
            let ours: Vec<_> = fields.iter().map(|f| (f.name, f.value)).collect();
            assert_eq!(ours, naive.fields);
            let dropped: Vec<_> = fields.iter().map(|f| f.hop_by_hop).collect();
            assert_eq!(dropped, naive.dropped);
            heads::agree_with_httparse(bytes, &request);
            length = Some(naive.length);
            lenient::hold(bytes, naive.length, request.body());
        }
        Ok(None) | Err(_) => assert!(naive.is_none(), "the naive reader takes {naive:?}"),
    }
    // A piece of it is unfinished, or refused as the whole is.
    let piece = &bytes[..cut.min(bytes.len())];
    let mut scratch = Scratch::default();
    let early = parse_request(piece, &mut scratch, &limits).map(|request| request.is_some());
    match length {
        Some(length) => assert_eq!(early, Ok(piece.len() >= length)),
        None => assert_ne!(early, Ok(true)),
    }
    // Whoever reads again only when it may help misses nothing.
    let whole = parse_request(bytes, &mut scratch, &limits).map(|request| request.is_some());
    if early == Ok(false) && whole == Ok(true) {
        assert!(may_end(bytes, piece.len(), &limits));
    }
}

/// Holds the reader of answers, as [`hold_request`] does.
pub fn hold_response(bytes: &[u8], cut: usize, kind: RequestKind) {
    let limits = Limits::default();
    let mut scratch = Scratch::default();
    let naive = heads::response(bytes, kind);
    let mut length = None;
    match parse_response(bytes, &mut scratch, kind, &limits) {
        Ok(Some(response)) => {
            let naive = naive.expect("the naive reader takes it, too");
            assert_eq!(response.status(), naive.status);
            assert_eq!(response.reason(), naive.reason);
            assert_eq!(response.body(), naive.body);
            assert_eq!(response.keep_alive(), naive.keep_alive);
            assert_eq!(response.head_len(), naive.length);
            let fields = response.fields();
            let ours: Vec<_> = fields.iter().map(|f| (f.name, f.value)).collect();
            assert_eq!(ours, naive.fields);
            length = Some(naive.length);
        }
        Ok(None) | Err(_) => assert!(naive.is_none(), "the naive reader takes {naive:?}"),
    }
    let piece = &bytes[..cut.min(bytes.len())];
    let mut scratch = Scratch::default();
    let early = parse_response(piece, &mut scratch, kind, &limits).map(|head| head.is_some());
    match length {
        Some(length) => assert_eq!(early, Ok(piece.len() >= length)),
        None => assert_ne!(early, Ok(true)),
    }
}

/// Holds the reader of chunked bodies: fed in pieces it finds the payload and the end that the naive
/// one finds in the whole.
pub fn hold_chunked(bytes: &[u8], piece: usize) {
    let limits = Limits::default();
    let naive = chunks::decode(bytes);
    for piece in [piece.max(1), bytes.len().max(1)] {
        assert_eq!(in_pieces(bytes, piece, &limits), naive);
    }
    let mut reader = BodyReader::new(BodyLength::Chunked);
    match (reader.skim(bytes, &limits), &naive) {
        (Ok(skimmed), chunks::Verdict::Whole { payload, length }) => {
            assert!(skimmed.done && reader.ended().is_ok());
            assert_eq!((skimmed.taken, skimmed.payload), (*length, payload.len()));
        }
        (Ok(skimmed), chunks::Verdict::Unfinished) => {
            assert!(!skimmed.done && skimmed.taken == bytes.len() && reader.ended().is_err());
        }
        (Err(refusal), chunks::Verdict::Refused) => assert!(refusal.at() < bytes.len()),
        (skimmed, naive) => panic!("{skimmed:?} where the naive reader has {naive:?}"),
    }
}

fn in_pieces(bytes: &[u8], piece: usize, limits: &Limits) -> chunks::Verdict {
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let (mut payload, mut length) = (Vec::new(), 0);
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let Ok(fed) = reader.feed(rest, limits) else {
                return chunks::Verdict::Refused;
            };
            payload.extend_from_slice(&rest[fed.data]);
            length += fed.taken;
            if fed.done {
                return chunks::Verdict::Whole { payload, length };
            }
            assert!(fed.taken > 0, "it goes on");
            rest = &rest[fed.taken..];
        }
    }
    chunks::Verdict::Unfinished
}

/// Holds the reader of PROXY headers: the naive reader agrees, and a piece says nothing else.
pub fn hold_proxy(bytes: &[u8], cut: usize) {
    use ballast_http1::proxy::parse;
    let read = parse(bytes);
    let naive = proxies::read(bytes);
    match (&read, naive) {
        (Ok(Some(header)), proxies::Verdict::Header { addresses, length }) => {
            let ours = header.addresses.map(|both| (both.source, both.destination));
            assert_eq!((ours, header.length), (addresses, length));
        }
        (Ok(None), proxies::Verdict::Unfinished) | (Err(_), proxies::Verdict::Refused) => {}
        (read, naive) => panic!("{read:?} where the naive reader has {naive:?}"),
    }
    let piece = &bytes[..cut.min(bytes.len())];
    match (parse(piece), read) {
        (Ok(Some(early)), Ok(Some(late))) => assert_eq!(early, late),
        (Ok(Some(early)), other) => panic!("{early:?} became {other:?}"),
        (Err(early), late) => assert!(late.is_err(), "{early:?} became {late:?}"),
        (Ok(None), _) => {}
    }
}
