//! What tells clients apart: keys of rate limits, splits and hashing policies.

use std::borrow::Cow;
use std::net::IpAddr;

use ballast_model::{HashKey, RequestKey};

use super::{FieldLookup, RequestView};
use crate::policy::Affinity;
use crate::policy::sticky::{self, hash_of};
use crate::table::Pool;

/// Calls `use_it` with the key's bytes if the request has one.
pub(super) fn with_key<R>(
    key: &RequestKey,
    request: &RequestView<'_>,
    use_it: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    match key {
        RequestKey::Client => Some(use_it(&client_bytes(request.client))),
        RequestKey::Header(name) => request.fields.get(name).map(use_it),
        RequestKey::Cookie(name) => cookie(request.fields, name).map(use_it),
        RequestKey::Query(name) => parameter(request.query, name).map(|v| use_it(v.as_bytes())),
        RequestKey::Path => Some(use_it(request.path.as_bytes())),
        RequestKey::Host => Some(use_it(request.host.as_bytes())),
    }
}

/// Returns the hash of what a pool's policy looks at.
fn hash_key(key: &HashKey, request: &RequestView<'_>) -> Option<u64> {
    match key {
        HashKey::Client => Some(hash_of(&client_bytes(request.client))),
        HashKey::Header(name) => request.fields.get(name).map(hash_of),
        HashKey::Cookie(name) => cookie(request.fields, name).map(hash_of),
        HashKey::Path => Some(hash_of(request.path.as_bytes())),
    }
}

/// The address that stands for a client: of IPv6 the network of 64 bits, since one client has all
/// of it.
pub fn client_bytes(client: IpAddr) -> [u8; 8] {
    match client.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 4]
        }
        IpAddr::V6(v6) => {
            let network = v6.to_bits() >> 64;
            u64::try_from(network).unwrap_or(0).to_be_bytes()
        }
    }
}

/// Returns what binds a request to an endpoint of a pool.
pub(super) fn affinity(pool: &Pool, request: &RequestView<'_>) -> Affinity {
    let hash = pool.hash_key().and_then(|key| hash_key(key, request));
    let sticky = pool.sticky().and_then(|spec| {
        let mut found = None;
        request.fields.each("cookie", &mut |field| {
            found = found.or_else(|| sticky::endpoint_in(field, spec));
        });
        found
    });
    Affinity { hash, sticky }
}

/// Returns the value of a cookie.
pub(super) fn cookie<'a>(fields: &'a dyn FieldLookup, name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    fields.each("cookie", &mut |field| {
        found = found.or_else(|| sticky::cookie(field, name));
    });
    found
}

/// Returns the first value of a parameter of a query, decoded; empty if it has a name alone.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    query?.split('&').find_map(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(known) == name).then(|| decoded(value))
    })
}

/// Decodes a form's text; what is no UTF-8 then stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, super::path::hex_pair(after)) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = &after[2..];
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Some("a=1&b%20c=x%2Fy+z&flag&bad=%zz%f");
        for (name, expected) in [
            ("a", Some("1")),
            ("b c", Some("x/y z")),
            ("flag", Some("")),
            ("bad", Some("%zz%f")),
            ("none", None),
        ] {
            assert_eq!(parameter(query, name).as_deref(), expected, "{name}");
        }
        assert_eq!(parameter(None, "a"), None);
    }

    #[test]
    fn ipv6_client_is_its_network() {
        let of = |text: &str| client_bytes(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
