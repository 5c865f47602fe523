//! Heads of answers: where their bodies end, and what is refused.

use ballast_http1::{
    BodyLength, KnownField, Limits, Refusal, RequestKind, Response, Rule, Scratch, parse_response,
};

const NONE: BodyLength = BodyLength::None;

fn with_response<T>(
    head: &str,
    kind: RequestKind,
    look: impl FnOnce(&Response<'_>) -> T,
) -> Result<T, Rule> {
    let mut scratch = Scratch::default();
    parse_response(head.as_bytes(), &mut scratch, kind, &Limits::default())
        .map(|response| look(&response.expect("whole")))
        .map_err(Refusal::rule)
}

fn body(head: &str, kind: RequestKind) -> Result<(BodyLength, bool), Rule> {
    with_response(head, kind, |response| {
        (response.body(), response.keep_alive())
    })
}

#[test]
fn an_answer_is_read_in_place() {
    let head = "HTTP/1.1 404 Not  Found\r\nContent-Length: 2\r\nA: b\r\n\r\nhi";
    with_response(head, RequestKind::Other, |response| {
        assert_eq!(response.status(), 404);
        assert_eq!(response.reason(), b"Not  Found");
        assert_eq!(response.body(), BodyLength::Length(2));
        assert!(response.keep_alive() && !response.is_interim());
        assert_eq!(response.fields().get("a"), Some(&b"b"[..]));
        assert_eq!(&head[response.head_len()..], "hi");
    })
    .expect("well-formed");
}

#[test]
fn a_status_line_is_a_version_three_digits_and_a_reason() {
    for line in [
        "HTTP/1.1 200 ",
        "HTTP/1.1 200",
        "HTTP/1.0 999 \u{e4}\t!",
        "HTTP/1.1 100 x",
    ] {
        let head = format!("{line}\r\n\r\n");
        assert!(body(&head, RequestKind::Other).is_ok(), "{line}");
    }
    let cases = [
        ("HTTP/1.1 20", Rule::Status),
        ("HTTP/1.1 2000", Rule::Status),
        ("HTTP/1.1 099", Rule::Status),
        ("HTTP/1.1 2x0", Rule::Status),
        ("HTTP/1.1  200", Rule::Status),
        ("HTTP/1.1 +20", Rule::Status),
        ("HTTP/1.1\t200", Rule::StatusLine),
        ("HTTP/1.1", Rule::StatusLine),
        ("HTTP/2 200", Rule::Version),
        ("HTTP/2.0 200", Rule::VersionNotSupported),
        ("ICY 200 OK", Rule::Version),
        (" HTTP/1.1 200 OK", Rule::Version),
        ("\r\nHTTP/1.1 200 OK", Rule::Version),
        ("HTTP/1.1 200 a\u{0}b", Rule::StatusLine),
        ("HTTP/1.1 200 a\rb", Rule::BareCarriageReturn),
        ("HTTP/1.1 200 a\nb", Rule::BareLineFeed),
        ("HTTP/1.1 200\nb", Rule::BareLineFeed),
    ];
    for (line, rule) in cases {
        let verdict = body(&format!("{line}\r\n\r\n"), RequestKind::Other);
        assert_eq!(verdict, Err(rule), "{line:?}");
    }
}

#[test]
fn where_the_body_ends_depends_on_request_status_and_fields() {
    use RequestKind::{Connect, Head, Other};
    let long = "content-length: 5\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    // Status, fields, request, body, whether the connection stays.
    let cases = [
        (200, long, Other, BodyLength::Length(5), true),
        (200, chunked, Other, BodyLength::Chunked, true),
        (200, "", Other, BodyLength::UntilClose, false),
        (500, "", Other, BodyLength::UntilClose, false),
        (200, long, Head, NONE, true),
        (200, chunked, Head, NONE, true),
        (200, "", Head, NONE, true),
        (304, long, Other, NONE, true),
        (304, "", Other, NONE, true),
        (204, "", Other, NONE, true),
        (204, "content-length: 0\r\n", Other, NONE, true),
        (204, long, Other, NONE, false),
        (204, chunked, Other, NONE, false),
        (100, "", Other, NONE, true),
        (101, "", Other, NONE, true),
        (200, "", Connect, NONE, false),
        (200, long, Connect, NONE, false),
        (407, long, Connect, BodyLength::Length(5), true),
        (
            205,
            "content-length: 0\r\n",
            Other,
            BodyLength::Length(0),
            true,
        ),
    ];
    for (status, fields, kind, length, stays) in cases {
        let head = format!("HTTP/1.1 {status} \r\n{fields}\r\n");
        assert_eq!(
            body(&head, kind),
            Ok((length, stays)),
            "{head:?} to {kind:?}"
        );
    }
}

#[test]
fn two_lengths_are_as_wrong_in_an_answer() {
    let cases = [
        (
            "1.1",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            Rule::TwoLengths,
        ),
        (
            "1.1",
            "content-length: 5\r\ncontent-length: 5\r\n",
            Rule::ContentLengthTwice,
        ),
        ("1.1", "content-length: 5, 5\r\n", Rule::ContentLength),
        (
            "1.1",
            "transfer-encoding: identity\r\n",
            Rule::TransferEncoding,
        ),
        (
            "1.1",
            "transfer-encoding: gzip, chunked\r\n",
            Rule::TransferCodingUnknown,
        ),
        (
            "1.0",
            "transfer-encoding: chunked\r\n",
            Rule::TransferEncodingHere,
        ),
    ];
    for (version, fields, rule) in cases {
        let head = format!("HTTP/{version} 200 OK\r\n{fields}\r\n");
        for kind in [RequestKind::Other, RequestKind::Head] {
            assert_eq!(body(&head, kind), Err(rule), "{head:?}");
        }
    }
}

#[test]
fn an_http_1_0_answer_keeps_the_connection_only_if_it_says_so() {
    let keeps = |fields: &str| {
        let head = format!("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
        body(&head, RequestKind::Other).expect("well-formed").1
    };
    assert!(!keeps(""));
    assert!(keeps("connection: keep-alive\r\n"));
    assert!(!keeps("connection: keep-alive, close\r\n"));
}

#[test]
fn a_length_where_no_body_can_be_is_not_passed_on() {
    let passes = |status: u16| {
        let head = format!("HTTP/1.1 {status} \r\ncontent-length: 0\r\n\r\n");
        with_response(&head, RequestKind::Other, |response| {
            let mut fields = response.fields().iter();
            fields.any(|field| field.known == Some(KnownField::ContentLength) && !field.hop_by_hop)
        })
    };
    assert_eq!(passes(204), Ok(false));
    assert_eq!(passes(103), Ok(false));
    assert_eq!(passes(200), Ok(true));
    assert_eq!(passes(304), Ok(true));
}

#[test]
fn what_comes_before_the_answer_is_told_from_it() {
    let interim = |status: u16| {
        let head = format!("HTTP/1.1 {status} \r\n\r\n");
        with_response(&head, RequestKind::Other, |it| {
            (it.is_interim(), it.status()).0
        })
    };
    assert_eq!([100, 102, 103, 199].map(interim), [Ok(true); 4]);
    assert_eq!([101, 200, 404].map(interim), [Ok(false); 3]);
    let head = "HTTP/1.1 101 \r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upgrade = with_response(head, RequestKind::Other, |response| {
        response.upgrade().map(str::to_owned)
    });
    assert_eq!(upgrade, Ok(Some("websocket".to_owned())));
}
