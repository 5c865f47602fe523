//! Heads of requests: what is taken, what is refused, and how.

use ballast_http1::{
    BodyLength, KnownField, Limits, Method, Rule, Scratch, Version, is_http2_preface, may_end,
    parse_request,
};

/// What a head comes to: taken, refused, or unfinished.
fn verdict(head: &[u8]) -> Result<bool, Rule> {
    verdict_within(head, &Limits::default())
}

fn verdict_within(head: &[u8], limits: &Limits) -> Result<bool, Rule> {
    let mut scratch = Scratch::default();
    parse_request(head, &mut scratch, limits)
        .map(|request| request.is_some())
        .map_err(ballast_http1::Refusal::rule)
}

/// A request with these field lines and a host.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nhost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn a_request_is_read_in_place() {
    let bytes = b"POST /a/b?c=d&e?f HTTP/1.1\r\nHost: example.test:8080\r\nContent-Length: 3\r\n\
                  X-Some:  one two\t \r\nEmpty:\r\nCONNECTION: keep-alive, x-sOME\r\n\r\nabc";
    let mut scratch = Scratch::default();
    let request = parse_request(bytes, &mut scratch, &Limits::default());
    let request = request.expect("well-formed").expect("whole");
    assert_eq!(request.method(), Method::Post);
    assert_eq!(request.target(), "/a/b?c=d&e?f");
    assert_eq!(request.path(), "/a/b");
    assert_eq!(request.query(), Some("c=d&e?f"));
    assert_eq!(request.host(), "example.test:8080");
    assert_eq!(request.version(), Version::Http11);
    assert_eq!(request.body(), BodyLength::Length(3));
    assert!(request.keep_alive() && !request.expects_continue());
    assert_eq!(request.upgrade(), None);
    assert_eq!(&bytes[request.head_len()..], b"abc");

    let fields = request.fields();
    assert_eq!(fields.len(), 5);
    assert_eq!(fields.get("x-sOME"), Some(&b"one two"[..]));
    assert_eq!(fields.get("empty"), Some(&b""[..]));
    assert_eq!(fields.get("absent"), None);
    assert_eq!(fields.known(KnownField::ContentLength), Some(&b"3"[..]));
    let hop: Vec<bool> = fields.iter().map(|field| field.hop_by_hop).collect();
    assert_eq!(hop, [false, false, true, false, true]);
}

#[test]
fn fields_that_are_kept_are_copied_as_they_came() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nconnection: close\r\nA:1\r\nB:  2 \r\n\
                  Keep-Alive: 5\r\nTE: trailers\r\nC: 3\r\n\r\n";
    let mut scratch = Scratch::default();
    let request = parse_request(bytes, &mut scratch, &Limits::default());
    let fields = request.expect("well-formed").expect("whole").fields();
    let copy = |keep: &dyn Fn(&ballast_http1::Field<'_>) -> bool| {
        let mut out = Vec::new();
        fields.copy_kept(&mut out, keep);
        String::from_utf8(out).expect("ASCII")
    };
    assert_eq!(
        copy(&|field| !field.hop_by_hop),
        "Host: a\r\nA:1\r\nB:  2 \r\nC: 3\r\n"
    );
    assert_eq!(
        copy(&|field| field.known.is_none()),
        "A:1\r\nB:  2 \r\nC: 3\r\n"
    );
    assert_eq!(
        copy(&|field| field.is("host") || field.is("c")),
        "Host: a\r\nC: 3\r\n"
    );
    assert_eq!(copy(&|_| false), "");
    let whole = copy(&|_| true);
    assert!(bytes.ends_with(format!("HTTP/1.1\r\n{whole}\r\n").as_bytes()));
}

#[test]
fn each_form_of_a_target_has_its_path_query_and_host() {
    // Head without fields, path, query, host.
    let cases = [
        ("GET /?", "/", Some(""), "a"),
        ("GET //x/../y", "//x/../y", None, "a"),
        ("GET http://a/b?c", "/b", Some("c"), "a"),
        ("GET HTTP://A", "/", None, "a"),
        ("GET http://a:80?x", "/", Some("x"), "a"),
        ("GET https://a:443/", "/", None, "a"),
        ("OPTIONS *", "*", None, "a"),
        ("OPTIONS http://a", "*", None, "a"),
        ("OPTIONS http://a/", "/", None, "a"),
    ];
    for (line, path, query, host) in cases {
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut scratch = Scratch::default();
        let request = parse_request(head.as_bytes(), &mut scratch, &Limits::default());
        let request = request.expect(line).expect(line);
        let parts = (request.path(), request.query(), request.host());
        assert_eq!(parts, (path, query, host), "{line}");
    }
    let connect = b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n";
    let mut scratch = Scratch::default();
    let request = parse_request(connect, &mut scratch, &Limits::default());
    let request = request.expect("well-formed").expect("whole");
    assert_eq!((request.path(), request.host()), ("", "a:443"));
}

#[test]
fn a_target_that_fits_neither_its_form_nor_its_host_is_refused() {
    let cases = [
        ("GET *", Rule::TargetForm),
        ("GET a", Rule::Target),
        ("GET ?a", Rule::Target),
        ("GET ftp://a/", Rule::Target),
        ("GET /a#b", Rule::Target),
        ("GET /\u{e9}", Rule::Target),
        ("GET /a\u{7f}", Rule::Target),
        ("GET /a\tb", Rule::Target),
        ("GET http://b/", Rule::HostDisagrees),
        ("GET http://a:81/", Rule::HostDisagrees),
        ("GET https://a:80/", Rule::HostDisagrees),
        ("GET http://", Rule::Host),
        ("GET http:///a", Rule::Host),
        ("GET http://u@a/", Rule::Host),
        ("GET http://u:p@a/", Rule::Host),
        ("GET http://a\\b/", Rule::Host),
        ("CONNECT a", Rule::TargetForm),
        ("CONNECT a:", Rule::TargetForm),
        ("CONNECT /", Rule::Host),
        ("CONNECT [::1]", Rule::TargetForm),
        ("CONNECT a:1", Rule::HostDisagrees),
    ];
    for (line, rule) in cases {
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(verdict(head.as_bytes()), Err(rule), "{line}");
    }
}

#[test]
fn a_request_line_is_three_words_with_one_space_between() {
    let fields = "\r\nhost: a\r\n\r\n";
    let cases = [
        ("GET  / HTTP/1.1", Rule::Target),
        ("GET /  HTTP/1.1", Rule::Version),
        ("GET / HTTP/1.1 ", Rule::RequestLine),
        (" GET / HTTP/1.1", Rule::Method),
        ("GET\t/ HTTP/1.1", Rule::Method),
        ("G@T / HTTP/1.1", Rule::Method),
        ("\u{16}\u{3}\u{1}", Rule::Method),
        ("GET /", Rule::RequestLine),
        ("GET", Rule::Method),
        ("GET / http/1.1", Rule::Version),
        ("GET / HTTP/1.10", Rule::RequestLine),
        ("GET / HTTP/11", Rule::Version),
        ("GET / HTTP/ 1.1", Rule::Version),
        ("GET / HTTPS/1.1", Rule::Version),
        ("GET / HTTP/1.2", Rule::VersionNotSupported),
        ("GET / HTTP/0.9", Rule::VersionNotSupported),
        ("PRI * HTTP/2.0", Rule::TargetForm),
        ("GET / HTTP/2.0", Rule::VersionNotSupported),
        (
            "A23456789012345678901234567890123 / HTTP/1.1",
            Rule::MethodTooLong,
        ),
    ];
    for (line, rule) in cases {
        assert_eq!(
            verdict(format!("{line}{fields}").as_bytes()),
            Err(rule),
            "{line}"
        );
    }
    assert_eq!(verdict(b"m-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n"), Ok(true));
}

#[test]
fn line_ends_are_two_bytes() {
    let cases: [(&[u8], Rule); 9] = [
        (b"GET / HTTP/1.1\nhost: a\r\n\r\n", Rule::BareLineFeed),
        (b"GET / HTTP/1.1\rhost: a\r\n\r\n", Rule::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nhost: a\n\r\n", Rule::BareLineFeed),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\n", Rule::BareLineFeed),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n",
            Rule::BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            Rule::BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\n\rx",
            Rule::BareCarriageReturn,
        ),
        (b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Rule::BareLineFeed),
        (b"GET / HTTP/1.1\r\nho\nst: a\r\n\r\n", Rule::BareLineFeed),
    ];
    for (head, rule) in cases {
        assert_eq!(verdict(head), Err(rule), "{}", head.escape_ascii());
    }
}

#[test]
fn one_empty_line_before_a_request_is_forgiven() {
    assert_eq!(verdict(b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"), Ok(true));
    assert_eq!(verdict(b"\r"), Ok(false));
    assert_eq!(verdict(b"\r\n"), Ok(false));
    assert_eq!(
        verdict(b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        Err(Rule::EmptyLines)
    );
}

#[test]
fn a_field_is_a_token_a_colon_and_a_value_on_one_line() {
    let cases: [(&str, Rule); 14] = [
        ("a : b\r\n", Rule::FieldName),
        ("a\t: b\r\n", Rule::FieldName),
        (": b\r\n", Rule::FieldName),
        ("a\r\n", Rule::FieldName),
        ("a b: c\r\n", Rule::FieldName),
        ("a(b): c\r\n", Rule::FieldName),
        ("a\u{0}: c\r\n", Rule::FieldName),
        ("\u{e4}: c\r\n", Rule::FieldName),
        ("a: b\r\n c\r\n", Rule::FoldedField),
        ("a: b\r\n\tc\r\n", Rule::FoldedField),
        ("a: \u{0}\r\n", Rule::FieldValue),
        ("a: b\u{7f}\r\n", Rule::FieldValue),
        ("a: b\u{b}c\r\n", Rule::FieldValue),
        ("a: \u{1b}[2J\r\n", Rule::FieldValue),
    ];
    for (lines, rule) in cases {
        assert_eq!(verdict(&with(lines)), Err(rule), "{lines:?}");
    }
    assert_eq!(
        verdict(b"GET / HTTP/1.1\r\n host: a\r\n\r\n"),
        Err(Rule::FoldedField)
    );
    assert_eq!(verdict(&with("a: \u{e4}\tb\r\nc:\r\nd:\t \r\n")), Ok(true));
}

/// Field lines, and the body that they tell of.
const LENGTHS: &[(&str, Result<BodyLength, Rule>)] = &[
    ("", Ok(BodyLength::None)),
    ("content-length: 0\r\n", Ok(BodyLength::Length(0))),
    ("content-length: 12\r\n", Ok(BodyLength::Length(12))),
    (
        "content-length: 9223372036854775807\r\n",
        Ok(BodyLength::Length(i64::MAX as u64)),
    ),
    ("transfer-encoding: chunked\r\n", Ok(BodyLength::Chunked)),
    ("Transfer-Encoding:\tCHUNKED \r\n", Ok(BodyLength::Chunked)),
    (
        "content-length: 9223372036854775808\r\n",
        Err(Rule::ContentLengthTooLarge),
    ),
    (
        "content-length: 99999999999999999999999\r\n",
        Err(Rule::ContentLengthTooLarge),
    ),
    ("content-length:\r\n", Err(Rule::ContentLength)),
    ("content-length: +1\r\n", Err(Rule::ContentLength)),
    ("content-length: -1\r\n", Err(Rule::ContentLength)),
    ("content-length: 0x1\r\n", Err(Rule::ContentLength)),
    ("content-length: 01\r\n", Err(Rule::ContentLength)),
    ("content-length: 1 1\r\n", Err(Rule::ContentLength)),
    ("content-length: 1,1\r\n", Err(Rule::ContentLength)),
    ("content-length: 1.0\r\n", Err(Rule::ContentLength)),
    ("content-length: 1_0\r\n", Err(Rule::ContentLength)),
    ("content-length: \u{661}\r\n", Err(Rule::ContentLength)),
    (
        "content-length: 1\r\ncontent-length: 1\r\n",
        Err(Rule::ContentLengthTwice),
    ),
    (
        "content-length: 1\r\nContent-Length: 2\r\n",
        Err(Rule::ContentLengthTwice),
    ),
    (
        "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        Err(Rule::TwoLengths),
    ),
    (
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
        Err(Rule::TwoLengths),
    ),
    (
        "transfer-encoding: identity\r\ncontent-length: 1\r\n",
        Err(Rule::TwoLengths),
    ),
    ("transfer-encoding:\r\n", Err(Rule::TransferEncoding)),
    (
        "transfer-encoding: identity\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: xchunked\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: chunked;q=1\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: \"chunked\"\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: chunked,\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: ,chunked\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: chunked, chunked\r\n",
        Err(Rule::TransferEncoding),
    ),
    (
        "transfer-encoding: chunked, gzip\r\n",
        Err(Rule::TransferEncoding),
    ),
    ("transfer-encoding: gzip\r\n", Err(Rule::TransferEncoding)),
    (
        "transfer-encoding: gzip, chunked\r\n",
        Err(Rule::TransferCodingUnknown),
    ),
    (
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        Err(Rule::TransferEncodingTwice),
    ),
    (
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        Err(Rule::TransferEncodingTwice),
    ),
    ("content_length: 1\r\n", Err(Rule::UnderscoredField)),
    (
        "Transfer_Encoding: chunked\r\n",
        Err(Rule::UnderscoredField),
    ),
];

#[test]
fn a_body_has_one_length() {
    for &(lines, expected) in LENGTHS {
        let head = with(lines);
        let mut scratch = Scratch::default();
        let request = parse_request(&head, &mut scratch, &Limits::default());
        let body = request
            .map(|request| request.expect("whole").body())
            .map_err(ballast_http1::Refusal::rule);
        assert_eq!(body, expected, "{lines:?}");
    }
    let old = b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(verdict(old), Err(Rule::TransferEncodingHere));
    let tunnel = b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(verdict(tunnel), Err(Rule::TargetForm));
}

#[test]
fn a_request_has_one_host() {
    let verdict_of = |lines: &str| verdict(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    assert_eq!(verdict_of(""), Err(Rule::HostMissing));
    assert_eq!(verdict_of("host: a\r\nhost: a\r\n"), Err(Rule::HostTwice));
    assert_eq!(verdict_of("host: a\r\nHOST: b\r\n"), Err(Rule::HostTwice));
    let good = [
        "a",
        "A.b",
        "127.0.0.1:80",
        "[::1]",
        "[fe80::1]:8080",
        "a:",
        "xn--a_b~",
        "a%20b",
        "a,b",
    ];
    for host in good {
        assert_eq!(verdict_of(&format!("host: {host}\r\n")), Ok(true), "{host}");
    }
    let bad = [
        "", "a b", "a/b", "a@b", "u:p@a", ":80", "a:b", "a:80:80", "a:123456", "[::1", "[a]",
        "[::1]a", "[]", "a#b", "a?b", "http://a", "\u{e4}", "a\tb", "\"a\"", "a:-1", "a: 80",
    ];
    for host in bad {
        let verdict = verdict_of(&format!("host: {host}\r\n"));
        assert_eq!(verdict, Err(Rule::Host), "{host}");
    }
    assert_eq!(verdict(b"GET / HTTP/1.0\r\n\r\n"), Ok(true));
}

#[test]
fn connection_says_whether_there_is_another_request_and_what_is_dropped() {
    let keeps = |version: &str, lines: &str| {
        let head = format!("GET / {version}\r\nhost: a\r\n{lines}\r\n");
        let mut scratch = Scratch::default();
        let request = parse_request(head.as_bytes(), &mut scratch, &Limits::default());
        request.expect("well-formed").expect("whole").keep_alive()
    };
    assert!(keeps("HTTP/1.1", ""));
    assert!(keeps("HTTP/1.1", "connection: keep-alive\r\n"));
    assert!(!keeps("HTTP/1.1", "connection: Close\r\n"));
    assert!(!keeps("HTTP/1.1", "connection: keep-alive, close\r\n"));
    assert!(!keeps(
        "HTTP/1.1",
        "connection: x\r\nconnection: ,close,\r\n"
    ));
    assert!(!keeps("HTTP/1.0", ""));
    assert!(keeps("HTTP/1.0", "connection: Keep-Alive\r\n"));
    assert!(!keeps("HTTP/1.0", "connection: keep-alive, close\r\n"));

    assert_eq!(verdict(&with("connection: a b\r\n")), Err(Rule::Connection));
    for name in ["host", "Content-Length", "cookie", "authorization"] {
        let verdict = verdict(&with(&format!("connection: {name}\r\n")));
        assert_eq!(verdict, Err(Rule::ConnectionNames), "{name}");
    }
    let many = format!("connection: {}\r\n", "a,".repeat(33));
    assert_eq!(verdict(&with(&many)), Err(Rule::Connection));
}

#[test]
fn an_upgrade_is_one_that_connection_names() {
    let upgrade = |head: &str| {
        let mut scratch = Scratch::default();
        let request = parse_request(head.as_bytes(), &mut scratch, &Limits::default());
        let request = request.expect("well-formed").expect("whole");
        request.upgrade().map(str::to_owned)
    };
    let both = "host: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(
        upgrade(&format!("GET / HTTP/1.1\r\n{both}")).as_deref(),
        Some("websocket")
    );
    assert_eq!(upgrade(&format!("GET / HTTP/1.0\r\n{both}")), None);
    assert_eq!(
        upgrade("GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n\r\n"),
        None
    );
    for hidden in ["h2c", "H2C", "websocket, h2c", "TLS/1.0", "HTTP/2.0", "tls"] {
        let fields = format!("host: a\r\nconnection: upgrade\r\nupgrade: {hidden}\r\n\r\n");
        assert_eq!(
            upgrade(&format!("GET / HTTP/1.1\r\n{fields}")),
            None,
            "{hidden}"
        );
    }
    let twice = with("upgrade: a\r\nupgrade: b\r\n");
    assert_eq!(verdict(&twice), Err(Rule::FieldTwice));
}

#[test]
fn one_expectation_is_known() {
    let expects = |head: &str| {
        let mut scratch = Scratch::default();
        let request = parse_request(head.as_bytes(), &mut scratch, &Limits::default());
        request
            .map(|request| request.expect("whole").expects_continue())
            .map_err(ballast_http1::Refusal::status)
    };
    let head = |version: &str, value: &str| {
        format!("PUT / {version}\r\nhost: a\r\nexpect: {value}\r\n\r\n")
    };
    assert_eq!(expects(&head("HTTP/1.1", "100-Continue")), Ok(true));
    assert_eq!(expects(&head("HTTP/1.0", "100-continue")), Ok(false));
    assert_eq!(expects(&head("HTTP/1.1", "200-ok")), Err(417));
}

#[test]
fn each_limit_holds_to_the_byte() {
    let head = with("abc: defg\r\nhij: k\r\n");
    let fits = |change: &dyn Fn(&mut Limits, usize), exact: usize, rule: Rule| {
        let mut limits = Limits::default();
        change(&mut limits, exact);
        assert_eq!(verdict_within(&head, &limits), Ok(true), "{rule:?}");
        change(&mut limits, exact - 1);
        assert_eq!(verdict_within(&head, &limits), Err(rule));
    };
    fits(
        &|limits, value| limits.head_bytes = value,
        head.len(),
        Rule::HeadTooLarge,
    );
    fits(
        &|limits, value| limits.fields = value,
        3,
        Rule::TooManyFields,
    );
    fits(
        &|limits, value| limits.target_bytes = value,
        2,
        Rule::TargetTooLong,
    );

    let limits = Limits::default();
    let endless = vec![b'a'; limits.head_bytes + 1];
    assert_eq!(verdict(&endless), Err(Rule::MethodTooLong));
    let target = [b"GET /", &endless[..limits.target_bytes]].concat();
    assert_eq!(verdict(&target), Err(Rule::TargetTooLong));
    let value = [b"GET / HTTP/1.1\r\na: ", &endless[..]].concat();
    assert_eq!(verdict(&value), Err(Rule::HeadTooLarge));
    assert_eq!(verdict(&value[..limits.head_bytes - 1]), Ok(false));
}

#[test]
fn a_refusal_has_the_status_that_it_is_answered_with() {
    let status = |head: &[u8]| {
        let mut scratch = Scratch::default();
        let refused = parse_request(head, &mut scratch, &Limits::default());
        refused.expect_err("is refused").status()
    };
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/3.0\r\n\r\n"), 505);
    assert_eq!(status(&with("transfer-encoding: gzip, chunked\r\n")), 501);
    assert_eq!(status(&with(&"a: b\r\n".repeat(100))), 431);
    assert_eq!(status(&[b"GET /", &[b'a'; 8192][..], b" "].concat()), 414);
}

#[test]
fn the_preface_of_http2_is_told_from_its_first_differing_byte() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore";
    assert_eq!(is_http2_preface(preface), Some(true));
    for cut in 0..24 {
        assert_eq!(is_http2_preface(&preface[..cut]), None);
        let mut other = *preface;
        other[cut] ^= 1;
        assert_eq!(is_http2_preface(&other[..=cut]), Some(false));
    }
}

#[test]
fn a_head_that_drips_is_read_again_only_when_that_may_change_something() {
    let limits = Limits::default();
    let heads: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\nb: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n\n",
    ];
    for head in heads {
        let asked = (1..=head.len()).filter(|&end| may_end(&head[..end], end - 1, &limits));
        let decided = (1..=head.len()).find(|&end| verdict(&head[..end]) != Ok(false));
        assert_eq!(asked.clone().next(), decided, "{}", head.escape_ascii());
    }
    let long = vec![b'a'; limits.head_bytes];
    assert!(may_end(&long, long.len() - 1, &limits));
}
