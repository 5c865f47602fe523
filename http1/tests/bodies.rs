//! Where bodies end, whatever pieces they come in.

use ballast_http1::limits::CHUNK_EXCESS_BYTES;
use ballast_http1::{BodyLength, BodyReader, Limits, Rule};

/// Reads a chunked body; returns its payload and how many bytes it took, or the rule it breaks.
/// None: it is not over.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Rule> {
    chunked_within(bytes, &Limits::default())
}

fn chunked_within(bytes: &[u8], limits: &Limits) -> Result<Option<(Vec<u8>, usize)>, Rule> {
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let (mut payload, mut taken) = (Vec::new(), 0);
    loop {
        let fed = reader.feed(&bytes[taken..], limits);
        let fed = fed.map_err(ballast_http1::Refusal::rule)?;
        payload.extend_from_slice(&bytes[taken..][fed.data]);
        taken += fed.taken;
        if fed.done {
            return Ok(Some((payload, taken)));
        }
        if taken == bytes.len() {
            return Ok(None);
        }
        assert!(fed.taken > 0, "it goes on");
    }
}

#[test]
fn a_body_of_a_known_length_ends_after_it() {
    let mut reader = BodyReader::new(BodyLength::Length(5));
    let limits = Limits::default();
    assert_eq!(reader.expected(), Some(5));
    let fed = reader.feed(b"abc", &limits).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (3, 0..3, false));
    assert_eq!(reader.expected(), Some(2));
    assert!(reader.ended().is_err());
    let fed = reader.feed(b"defg", &limits).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (2, 0..2, true));
    let fed = reader.feed(b"fg", &limits).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (0, 0..0, true));
    assert!(reader.is_done() && reader.ended().is_ok());
}

#[test]
fn no_body_is_done_before_it_begins() {
    for length in [BodyLength::None, BodyLength::Length(0)] {
        let mut reader = BodyReader::new(length);
        assert!(reader.is_done());
        let fed = reader.feed(b"GET", &Limits::default()).expect("no body");
        assert_eq!((fed.taken, fed.done), (0, true));
    }
}

#[test]
fn a_body_until_the_close_is_whole_whenever_that_comes() {
    let mut reader = BodyReader::new(BodyLength::UntilClose);
    let fed = reader.feed(b"abc", &Limits::default()).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (3, 0..3, false));
    assert!(!reader.is_done() && reader.ended().is_ok());
}

#[test]
fn a_chunked_body_is_its_chunks() {
    let bodies: [(&[u8], &[u8]); 9] = [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\na\r\n00002\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (
            b"a\r\n\r\n0\r\n\r\n\r\n!\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n\r\n!",
        ),
        (b"3;a;b=c;d=\"e;\\\"f\"\r\nabc\r\n0;x\r\n\r\n", b"abc"),
        (b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\n", b"abc"),
        (b"0\r\nContent-Lengthy: 1\r\n\r\n", b""),
    ];
    for (bytes, payload) in bodies {
        let mut more = bytes.to_vec();
        more.extend_from_slice(b"GET /");
        let expected = Ok(Some((payload.to_vec(), bytes.len())));
        assert_eq!(chunked(&more), expected, "{}", bytes.escape_ascii());
        assert_eq!(chunked(&bytes[..bytes.len() - 1]), Ok(None));
    }
}

#[test]
fn one_call_takes_a_chunk_and_all_framing_around_it() {
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let limits = Limits::default();
    let bytes = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nrest";
    let fed = reader.feed(bytes, &limits).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (11, 3..6, false));
    assert_eq!(reader.expected(), Some(2));
    let fed = reader.feed(&bytes[11..], &limits).expect("a body");
    assert_eq!((fed.taken, fed.data, fed.done), (9, 0..2, true));

    let mut reader = BodyReader::new(BodyLength::Chunked);
    let skimmed = reader.skim(bytes, &limits).expect("a body");
    assert_eq!(
        (skimmed.taken, skimmed.payload, skimmed.done),
        (20, 5, true)
    );
}

#[test]
fn framing_that_anybody_could_read_otherwise_is_refused() {
    let cases: [(&[u8], Rule); 42] = [
        (b"\r\n", Rule::ChunkSize),
        (b"x\r\n", Rule::ChunkSize),
        (b"-1\r\n", Rule::ChunkSize),
        (b"+1\r\n", Rule::ChunkSize),
        (b" 1\r\n", Rule::ChunkSize),
        (b"0x1\r\n", Rule::ChunkSize),
        (b"1g\r\n", Rule::ChunkSize),
        (b";a\r\n", Rule::ChunkSize),
        (b"1 \r\n", Rule::ChunkExtension),
        (b"1\t\r\n", Rule::ChunkExtension),
        (b"1 ;a\r\n", Rule::ChunkExtension),
        (b"1_0\r\n", Rule::ChunkExtension),
        (b"1,1\r\n", Rule::ChunkExtension),
        (b"1;\r\n", Rule::ChunkExtension),
        (b"1; a\r\n", Rule::ChunkExtension),
        (b"1;a =b\r\n", Rule::ChunkExtension),
        (b"1;a=\r\n", Rule::ChunkExtension),
        (b"1;a=b c\r\n", Rule::ChunkExtension),
        (b"1;a=\"b\"c\r\n", Rule::ChunkExtension),
        (b"1;a=\"b\r\n\"\r\n", Rule::ChunkExtension),
        (b"1;a=\"\x00\"\r\n", Rule::ChunkExtension),
        (b"1;a\x00\r\n", Rule::ChunkExtension),
        (b"1\n", Rule::BareLineFeed),
        (b"1;a\n", Rule::BareLineFeed),
        (b"1;a=\"\n", Rule::BareLineFeed),
        (b"1\rx", Rule::BareCarriageReturn),
        (b"1\r\r\n", Rule::BareCarriageReturn),
        (b"1;a\rX", Rule::BareCarriageReturn),
        (b"1\r\nab\r\n", Rule::ChunkEnd),
        (b"1\r\na\n", Rule::BareLineFeed),
        (b"1\r\na\r0", Rule::BareCarriageReturn),
        (b"8000000000000000\r\n", Rule::ChunkTooLarge),
        (b"ffffffffffffffff\r\n", Rule::ChunkTooLarge),
        (b"10000000000000000\r\n", Rule::ChunkTooLarge),
        (b"00000000000000001\r\n", Rule::ChunkTooLarge),
        (b"0\r\na\r\n", Rule::FieldName),
        (b"0\r\na : b\r\n", Rule::FieldName),
        (b"0\r\n: b\r\n", Rule::FieldName),
        (b"0\r\na: b\r\n c\r\n", Rule::FoldedField),
        (b"0\r\na: \x00", Rule::FieldValue),
        (b"0\r\na: b\n", Rule::BareLineFeed),
        (b"0\r\n\rX", Rule::BareCarriageReturn),
    ];
    for (bytes, rule) in cases {
        assert_eq!(chunked(bytes), Err(rule), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_trailer_holds_nothing_that_decides_about_the_message() {
    let names = [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Expect",
        "X-Forwarded-For",
        "Forwarded",
    ];
    for name in names {
        let body = format!("0\r\nx-fine: 1\r\n{name}: 1\r\n\r\n");
        assert_eq!(chunked(body.as_bytes()), Err(Rule::TrailerField), "{name}");
    }
}

#[test]
fn each_limit_of_a_body_holds_to_the_byte() {
    let mut limits = Limits {
        chunk_line_bytes: 7,
        ..Limits::default()
    };
    let body = b"1;abc\r\nx\r\n0\r\n\r\n";
    assert!(chunked_within(body, &limits).is_ok());
    limits.chunk_line_bytes = 6;
    assert_eq!(chunked_within(body, &limits), Err(Rule::ChunkLineTooLong));

    let mut limits = Limits {
        trailer_bytes: 12,
        ..Limits::default()
    };
    let body = b"0\r\na: b\r\nc: d\r\n\r\n";
    assert!(chunked_within(body, &limits).is_ok());
    limits.trailer_bytes = 11;
    assert_eq!(chunked_within(body, &limits), Err(Rule::TrailerTooLarge));

    let mut limits = Limits {
        fields: 2,
        ..Limits::default()
    };
    assert!(chunked_within(body, &limits).is_ok());
    limits.fields = 1;
    assert_eq!(chunked_within(body, &limits), Err(Rule::TooManyFields));
}

#[test]
fn framing_out_of_proportion_to_the_payload_is_refused_and_small_chunks_are_not() {
    let honest = b"1\r\nx\r\n".repeat(50_000);
    assert_eq!(chunked(&honest), Ok(None));
    let line = format!("1;{}\r\nx\r\n", "a".repeat(200));
    let count = CHUNK_EXCESS_BYTES as usize / 180;
    let flood = line.as_bytes().repeat(count + 5);
    assert_eq!(chunked(&flood), Err(Rule::ChunkOverhead));
    assert_eq!(chunked(&line.as_bytes().repeat(count / 2)), Ok(None));
}

#[test]
fn a_chunked_body_that_is_cut_anywhere_is_not_whole() {
    let body = b"3;a=b\r\nabc\r\n0\r\na: b\r\n\r\n";
    for cut in 0..body.len() {
        let mut reader = BodyReader::new(BodyLength::Chunked);
        reader
            .skim(&body[..cut], &Limits::default())
            .expect("a body");
        let refusal = reader.ended().expect_err("cut short");
        assert_eq!(refusal.rule(), Rule::CutShort);
    }
}
