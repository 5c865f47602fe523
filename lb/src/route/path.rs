//! The readings of a path that endpoints may have.
//!
//! A route may guard what lies behind it (networks, a password, a limit), and an endpoint may read
//! a path in another way than the ingress: `/x/../admin`, `/%61dmin`, `//admin`, `/x%2F..%2Fadmin`,
//! `/..;/admin`. So a path with such parts is matched in two readings: that of RFC 3986 (6.2.2),
//! and the widest that servers are known for. If they lead to different routes, the request is
//! refused: no other answer is right for both.

/// Whether every reading of a path is the path itself.
pub(super) fn is_plain(path: &str) -> bool {
    let mut before = 0;
    for &byte in path.as_bytes() {
        let odd =
            matches!(byte, b'%' | b'\\' | b';') || before == b'/' && matches!(byte, b'/' | b'.');
        if odd {
            return false;
        }
        before = byte;
    }
    true
}

/// Returns a path as RFC 3986 normalises it: unreserved characters decoded, dot segments resolved.
pub(super) fn strict(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match hex_pair(after.as_bytes()) {
            Some(byte) if is_unreserved(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            _ => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    without_dots(&text, false)
}

/// Returns a path in the widest reading: everything decoded that separates segments, backslashes
/// too, empty segments and parameters of segments dropped, dot segments resolved.
pub(super) fn loose(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, hex_pair(after)) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => bytes.push(byte),
        }
    }
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let segments: Vec<&str> = text
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or(segment))
        .collect();
    without_dots(&segments.join("/"), true)
}

fn without_dots(path: &str, merge: bool) -> String {
    let Some(rest) = path.strip_prefix('/') else {
        return path.to_owned();
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            "" if merge && !last => {}
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Reads two hexadecimal digits.
pub(super) fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (&high, &low) = (bytes.first()?, bytes.get(1)?);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readings_are_those_of_the_standard_and_of_wide_servers() {
        for (path, expected, wide) in [
            ("/a/./b/../c", "/a/c", "/a/c"),
            ("/../../a", "/a", "/a"),
            ("/a/..", "/", "/"),
            ("/a/.", "/a/", "/a/"),
            ("/%61dmin", "/admin", "/admin"),
            ("/a%2Fb", "/a%2Fb", "/a/b"),
            ("/x%2f..%2fadmin", "/x%2f..%2fadmin", "/admin"),
            ("/x/%2e%2e/admin", "/admin", "/admin"),
            ("//admin", "//admin", "/admin"),
            ("/..;/admin", "/..;/admin", "/admin"),
            ("/a;v=1/b", "/a;v=1/b", "/a/b"),
            ("/a\\b", "/a\\b", "/a/b"),
            ("/%zz%4", "/%zz%4", "/%zz%4"),
            ("/a/", "/a/", "/a/"),
            ("*", "*", "*"),
        ] {
            assert_eq!(strict(path), expected, "{path}");
            assert_eq!(loose(path), wide, "{path}");
        }
    }

    proptest! {
        #[test]
        fn prop_plain_path_is_read_as_it_is(path in "/[a-z0-9._~/%;-]{0,24}") {
            if is_plain(&path) {
                prop_assert_eq!(&strict(&path), &path);
                prop_assert_eq!(&loose(&path), &path);
            }
        }

        #[test]
        fn prop_no_reading_has_dot_segments(path in "/[.%25eF/;a\\\\]{0,24}") {
            for read in [strict(&path), loose(&path)] {
                let dots = read.split('/').any(|part| part == "." || part == "..");
                prop_assert!(!dots, "{} is read as {}", path, read);
            }
        }
    }
}
