//! The PROXY protocol: headers that are read, and what is none.

use std::net::SocketAddr;

use ballast_http1::proxy::{
    Addresses, Header, ProxyError, V1_BYTES, V2_BYTES, parse, write_v1, write_v2,
};
use proptest::prelude::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn a_line_of_version_1_tells_both_ends() {
    let bytes = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /";
    let header = parse(bytes).expect("a header").expect("whole");
    let expected = addresses("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(header.addresses, Some(expected));
    assert_eq!(&bytes[header.length..], b"GET /");
    assert_eq!(header.extensions().count(), 0);

    let bytes = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
    let header = parse(bytes).expect("a header").expect("whole");
    let expected = addresses("[2001:db8::1]:0", "[::1]:65535");
    assert_eq!(header.addresses, Some(expected));

    for bytes in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN \xc3\xa4 b c\r\n"] {
        let header = parse(bytes).expect("a header").expect("whole");
        assert_eq!((header.addresses, header.length), (None, bytes.len()));
    }
}

#[test]
fn a_line_that_is_not_quite_version_1_is_refused() {
    let lines = [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 0443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 +443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 ::1 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4\r\n",
        "PROXY \r\n",
        "PROXY  UNKNOWN\r\n",
    ];
    for line in lines {
        assert_eq!(parse(line.as_bytes()), Err(ProxyError::Line), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "a".repeat(V1_BYTES - 14));
    assert_eq!(parse(long.as_bytes()), Err(ProxyError::TooLong));
    for bytes in [
        &b"proxy"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\r",
    ] {
        assert_eq!(parse(bytes), Err(ProxyError::Missing));
    }
}

#[test]
fn version_2_tells_both_ends_and_what_else_it_was_given() {
    let rest = [
        &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb][..],
        &[0x02, 0, 1, b'a', 0x04, 0, 0],
    ];
    let mut bytes = v2(0x21, 0x11, &rest.concat());
    bytes.extend(b"GET");
    let header = parse(&bytes).expect("a header").expect("whole");
    let expected = addresses("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(header.addresses, Some(expected));
    assert_eq!(&bytes[header.length..], b"GET");
    let extensions: Vec<_> = header.extensions().collect();
    assert_eq!(extensions, [(2, &b"a"[..]), (4, &b""[..])]);
}

#[test]
fn version_2_without_an_address_of_the_internet_is_the_balancers_own() {
    let four = [1; 12];
    for bytes in [
        v2(0x20, 0, &[]),
        v2(0x20, 0x11, &four),
        v2(0x21, 0, b"whatever"),
        v2(0x21, 0x31, &[0; 216]),
        v2(0x21, 0x12, &four),
    ] {
        let header = parse(&bytes).expect("a header").expect("whole");
        assert_eq!((header.addresses, header.length), (None, bytes.len()));
    }
}

#[test]
fn version_2_that_contradicts_itself_is_refused() {
    let kind = [
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x41, &[0; 12]),
        v2(0x21, 0x13, &[0; 12]),
    ];
    for bytes in kind {
        assert_eq!(parse(&bytes), Err(ProxyError::Kind));
    }
    let length = [
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x11, &[0; 13]),
        v2(0x21, 0x11, &[&[0; 12][..], &[2, 0, 2, 0]].concat()),
    ];
    for bytes in length {
        assert_eq!(parse(&bytes), Err(ProxyError::Length));
    }
    let mut long = v2(0x21, 0x11, &[]);
    long[14..16].copy_from_slice(&u16::try_from(V2_BYTES - 15).expect("short").to_be_bytes());
    assert_eq!(parse(&long), Err(ProxyError::TooLong));
}

/// The checksum was computed by another implementation (Python's `crc32c` recipe, bit by bit).
#[test]
fn a_checksum_is_held() {
    const CHECKSUM: u32 = 0x9690_6c2e;
    let rest = [
        &[127, 0, 0, 1, 127, 0, 0, 1, 0, 1, 0, 2][..],
        &[0x03, 0, 4, 0, 0, 0, 0, 0x05, 0, 1, 9],
    ];
    let mut bytes = v2(0x21, 0x11, &rest.concat());
    assert_eq!(parse(&bytes), Err(ProxyError::Checksum));
    let at = bytes.len() - 8;
    bytes[at..at + 4].copy_from_slice(&CHECKSUM.to_be_bytes());
    let header = parse(&bytes).expect("a header").expect("whole");
    assert_eq!(
        header.addresses,
        Some(addresses("127.0.0.1:1", "127.0.0.1:2"))
    );
    for changed in [16, bytes.len() - 1] {
        bytes[changed] ^= 1;
        assert_eq!(parse(&bytes), Err(ProxyError::Checksum));
        bytes[changed] ^= 1;
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

proptest! {
    #[test]
    fn prop_what_is_written_is_read_whole_and_not_before(
        source in any_address(),
        destination in any_address(),
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let both = Addresses { source, destination };
        let mixed = source.is_ipv4() != destination.is_ipv4();
        let mut one = Vec::new();
        write_v1(&mut one, Some(&both));
        prop_assert!(one.len() <= V1_BYTES);
        let mut two = Vec::new();
        write_v2(&mut two, Some(&both), &[(5, &value)]);
        for bytes in [&one, &two] {
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
        }
        let header = parse(&one).unwrap().unwrap();
        prop_assert_eq!(header.addresses, (!mixed).then_some(both));
        let header: Header<'_> = parse(&two).unwrap().unwrap();
        let read = header.addresses.unwrap();
        let same = |a: SocketAddr, b: SocketAddr| {
            a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
        };
        prop_assert!(same(read.source, source) && same(read.destination, destination));
        prop_assert_eq!(header.extensions().collect::<Vec<_>>(), vec![(5, &value[..])]);
        prop_assert_eq!(header.length, two.len());
    }

    #[test]
    fn prop_no_bytes_break_the_reader(
        start in 0_usize..3,
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let start: &[u8] = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"][start];
        bytes.splice(..0, start.iter().copied());
        if let Ok(Some(header)) = parse(&bytes) {
            prop_assert!(header.length <= bytes.len());
            prop_assert!(header.extensions().count() <= header.length);
        }
    }
}
