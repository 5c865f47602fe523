//! The nodes of a chain of proxies as they are written (RFC 7239, 4 and 6).

use std::net::{IpAddr, SocketAddr};

/// Returns the address of an entry, which may have a port; none for `unknown` and names of hops.
pub(super) fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let plain = bare.unwrap_or(text).parse::<IpAddr>();
    let address = plain.or_else(|_| text.parse::<SocketAddr>().map(|both| both.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Gives the `for` of each element of a `Forwarded` field, without quotes. Returns whether the
/// field is well formed: no element reaches into what is appended to it.
pub(super) fn each_node(value: &[u8], see: &mut dyn FnMut(Option<&[u8]>)) -> bool {
    let mut rest = value.trim_ascii_start();
    let (mut node, mut any) = (None, false);
    loop {
        match rest.first() {
            None | Some(b',') => {
                if std::mem::take(&mut any) {
                    see(node.take());
                }
                if rest.is_empty() {
                    return true;
                }
                rest = rest[1..].trim_ascii_start();
                continue;
            }
            Some(b';') => {
                rest = rest[1..].trim_ascii_start();
                continue;
            }
            Some(_) => {}
        }
        let Some((name, value, after)) = pair(rest) else {
            return false;
        };
        any = true;
        if name.eq_ignore_ascii_case(b"for") {
            if node.is_some() {
                return false;
            }
            node = Some(value);
        }
        rest = after.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            return false;
        }
    }
}

/// Splits `name=value` or `name="value"` off.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&text[..end], &text[end + 1..]);
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    if name.is_empty() || !name.iter().all(letter) {
        return None;
    }
    if value.first() != Some(&b'"') {
        // Wider than a token: many write an address with its port without quotes.
        let inside = |byte: &u8| byte.is_ascii_graphic() && !b",;\"\\".contains(byte);
        let end = value.iter().position(|byte| !inside(byte));
        let (value, after) = value.split_at(end.unwrap_or(value.len()));
        return (!value.is_empty()).then_some((name, value, after));
    }
    let mut end = 1;
    loop {
        match value.get(end)? {
            b'"' => return Some((name, &value[1..end], &value[end + 1..])),
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
}
