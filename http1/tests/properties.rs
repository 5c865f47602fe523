//! What holds of all heads, bodies and PROXY headers, and not only of those somebody thought of.

mod oracle;

use ballast_http1::{RequestKind, Scratch, parse_request, render};
use proptest::prelude::*;

/// Words that heads are made of, and those that they are broken with.
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ": ",
    ",",
    ";",
    "=",
    "\"",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{e4}",
    "#",
    "?",
    "/",
    "*",
    "@",
    "[::1]",
    "GET ",
    "POST ",
    "HEAD ",
    "CONNECT ",
    "OPTIONS ",
    "get",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/1.1 ",
    "HTTP/1.",
    "1",
    "0",
    "HTTP/2.0",
    "200 OK\r\n",
    "204 ",
    "101",
    "304",
    "Host: a\r\n",
    "host: b\r\n",
    "host",
    "a",
    "A",
    "a:80",
    "http://",
    "https://",
    "http://a/",
    "content-length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length",
    "content-length: 05\r\n",
    "Content_Length",
    "5",
    "05",
    "+5",
    "-5",
    "5,5",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding",
    "transfer_encoding: chunked\r\n",
    "chunked",
    "Chunked",
    "gzip",
    "identity",
    "xchunked",
    "connection: close\r\n",
    "Connection: keep-alive\r\n",
    "connection",
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade: websocket\r\n",
    "expect: 100-continue\r\n",
    "expect",
    "te",
    "Expect: x\r\n",
    "x: y\r\n",
    " folded\r\n",
    "cookie: a=b; c=d\r\n",
    "abc",
    "0\r\n\r\n",
];

/// Words that chunked bodies are made of, and those that they are broken with.
const CHUNK_WORDS: &[&str] = &[
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "0",
    "1",
    "3",
    "a",
    "F",
    "00",
    "0\r\n",
    "0\r\n\r\n",
    "1\r\nx\r\n",
    "3\r\nabc\r\n",
    "3;a=b\r\nabc\r\n",
    "5\r\nab\r\nc\r\n",
    ";",
    "=",
    "\"",
    "\\",
    ";a",
    ";a=b",
    ";a=\"b;c\"",
    " ",
    "\t",
    "\0",
    "\u{7f}",
    "\u{e4}",
    "0x",
    "+",
    "-",
    "_",
    "g",
    ":",
    "x: y\r\n",
    "x:\r\n",
    "x : y\r\n",
    "content-length: 1\r\n",
    "Host: a\r\n",
    "trailer",
    "ffffffffffffffff",
    "7fffffffffffffff",
    "0000000000000000",
    " folded\r\n",
    "GET / HTTP/1.1\r\n",
];

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a?b HTTP/1.1\r\nhost: a:80\r\ncontent-length: 5\r\n\r\nhello",
    "PUT http://a/b HTTP/1.1\r\nhost: A\r\ntransfer-encoding: chunked\r\nTE: trailers\r\n\r\n0\r\n\r\n",
    "\r\nGET /x HTTP/1.0\r\nconnection: keep-alive, x\r\nX: \ty \r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\nhost: [::1]:1\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nexpect: 100-continue\r\n\r\n",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nserver: x\r\n\r\nhello",
    "HTTP/1.1 404\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 \r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 304 x\r\n\r\n",
    "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
];

const BODIES: &[&str] = &[
    "3\r\nabc\r\n0\r\n\r\n",
    "a;x=\"y\\\"z\";w\r\n0123456789\r\n1\r\n!\r\n000;q=r\r\nx-sum: 1\r\ny:\r\n\r\nGET",
];

/// Words in any order.
fn jumble(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat().into_bytes())
}

/// Something good, with a few places changed.
fn broken(
    seeds: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<prop::sample::Index>(),
        0_usize..4,
        prop::sample::select(words),
    );
    let changes = prop::collection::vec(change, 0..4);
    (prop::sample::select(seeds), changes).prop_map(|(seed, changes)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (place, removed, word) in changes {
            let at = place.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, word.bytes());
        }
        bytes
    })
}

fn any_of(
    seeds: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => broken(seeds, words), 1 => jumble(words)]
}

fn any_kind() -> impl Strategy<Value = RequestKind> {
    prop::sample::select(vec![
        RequestKind::Head,
        RequestKind::Connect,
        RequestKind::Other,
    ])
}

fn name() -> impl Strategy<Value = String> {
    "x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0x21..0x7f_u8, Just(b' '), Just(b'\t'), 0x80..=255_u8];
    prop::collection::vec(byte, 0..30).prop_map(|value| value.trim_ascii().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn prop_requests_are_read_as_the_naive_readers_read_them(
        bytes in any_of(REQUESTS, WORDS),
        cut in 0_usize..120,
    ) {
        oracle::hold_request(&bytes, cut);
    }

    #[test]
    fn prop_answers_are_read_as_the_naive_readers_read_them(
        bytes in any_of(RESPONSES, WORDS),
        cut in 0_usize..120,
        kind in any_kind(),
    ) {
        oracle::hold_response(&bytes, cut, kind);
    }

    #[test]
    fn prop_chunked_bodies_are_read_as_the_naive_reader_reads_them(
        bytes in any_of(BODIES, CHUNK_WORDS),
        piece in 1_usize..20,
    ) {
        oracle::hold_chunked(&bytes, piece);
    }

    #[test]
    fn prop_proxy_headers_are_read_as_the_naive_reader_reads_them(
        bytes in proxy_header(),
        cut in 0_usize..120,
    ) {
        oracle::hold_proxy(&bytes, cut);
    }

    #[test]
    fn prop_a_head_that_was_rendered_is_read_back(
        path in "/[!-\"$->@-~]{0,40}",
        query in proptest::option::of("[!-\"$-~]{0,20}"),
        fields in prop::collection::vec((name(), value()), 0..20),
        length in 0..=i64::MAX as u64,
    ) {
        let mut bytes = Vec::new();
        render::request_line(&mut bytes, ballast_http1::Method::Put, &path, query.as_deref());
        render::field(&mut bytes, "host", b"a");
        for (name, value) in &fields {
            prop_assert!(render::is_name(name.as_bytes()) && render::is_value(value));
            render::field(&mut bytes, name, value);
        }
        render::content_length(&mut bytes, length);
        bytes.extend_from_slice(render::END);
        let mut scratch = Scratch::default();
        let request = parse_request(&bytes, &mut scratch, &ballast_http1::Limits::default());
        let request = request.unwrap().unwrap();
        prop_assert_eq!((request.path(), request.query()), (&path[..], query.as_deref()));
        prop_assert_eq!(request.body(), ballast_http1::BodyLength::Length(length));
        prop_assert_eq!(request.head_len(), bytes.len());
        let read: Vec<_> = request.fields().iter().map(|f| (f.name, f.value)).collect();
        let written = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        prop_assert!(read[1..read.len() - 1].iter().copied().eq(written));
        oracle::hold_request(&bytes, bytes.len() / 2);
    }
}

/// A header of either version, some of its bytes changed.
fn proxy_header() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET",
        "PROXY TCP6 2001:db8::1 ::1 0 65535\r\n",
        "PROXY UNKNOWN a b\r\n",
    ]);
    let words = prop::sample::select(vec![
        "\r\n", "\n", " ", "0", "1", ".", ":", "TCP6", "-", "\0",
    ]);
    let line = (lines, any::<prop::sample::Index>(), 0_usize..4, words).prop_map(
        |(line, place, removed, word)| {
            let mut bytes = line.as_bytes().to_vec();
            let at = place.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, word.bytes());
            bytes
        },
    );
    let kinds = prop::sample::select(vec![0x20, 0x21, 0x21, 0x21, 0x22, 0x11]);
    let families = prop::sample::select(vec![0, 0x11, 0x11, 0x12, 0x21, 0x21, 0x31, 0x33, 0x41]);
    let extension = (0_u8..6, prop::collection::vec(any::<u8>(), 0..6));
    let extensions = prop::collection::vec(extension, 0..3);
    let binary =
        (kinds, families, extensions, -2_i32..3).prop_map(|(kind, family, extensions, wrong)| {
            let size = [0, 12, 36, 216, 12][usize::from(family) >> 4];
            let mut rest = vec![7; size];
            for (kind, value) in extensions {
                rest.extend([kind, 0, u8::try_from(value.len()).expect("short")]);
                rest.extend(value);
            }
            let length = i32::try_from(rest.len()).expect("short") + wrong;
            let length = u16::try_from(length.max(0)).expect("short");
            let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            bytes.extend([kind, family]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(rest);
            bytes
        });
    prop_oneof![line, binary]
}
