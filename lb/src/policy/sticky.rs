//! The cookie that keeps a client at its endpoint, and the hashes of keys.

use std::fmt::Write as _;

use ballast_model::StickySpec;

use super::draw::mix;

/// Returns the hash of a key, the same in every ingress.
pub fn hash_of(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ key.len() as u64;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let bytes: [u8; 8] = chunk.try_into().expect("eight bytes");
        hash = mix(hash ^ u64::from_le_bytes(bytes));
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash ^ u64::from_le_bytes(rest))
}

/// Returns the value of a cookie in a `Cookie` field's value.
pub fn cookie<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    field.split(|&byte| byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// Returns the endpoint that a request's `Cookie` field names.
pub fn endpoint_in(field: &[u8], spec: &StickySpec) -> Option<u64> {
    let value = cookie(field, &spec.cookie)?;
    let text = std::str::from_utf8(value).ok()?;
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

/// Returns the value of the `Set-Cookie` field that names an endpoint.
pub fn set_cookie(spec: &StickySpec, endpoint: u64, secure: bool) -> String {
    let mut text = format!(
        "{}={endpoint:016x}; Path=/; HttpOnly; SameSite=Lax",
        spec.cookie
    );
    let seconds = spec.lifetime.0 / 1000;
    if seconds > 0 {
        let written = write!(text, "; Max-Age={seconds}");
        written.expect("a string takes all");
    }
    if secure {
        text.push_str("; Secure");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookie_is_found_among_others_and_by_its_whole_name() {
        let field = b"a=1; xb=2;b=\"3\"; c = 4 ;b=5";
        assert_eq!(cookie(field, "b"), Some(&b"3"[..]));
        assert_eq!(cookie(field, "a"), Some(&b"1"[..]));
        assert_eq!(cookie(field, "x"), None);
        assert_eq!(cookie(b"", "x"), None);
    }

    #[test]
    fn lifetime_and_tls_are_told_to_the_browser() {
        let mut spec = StickySpec::default();
        let session = set_cookie(&spec, 7, false);
        assert!(!session.contains("Max-Age") && !session.contains("Secure"));
        spec.lifetime = ballast_model::Millis::from_secs(60);
        let kept = set_cookie(&spec, 7, true);
        assert!(kept.ends_with("; Max-Age=60; Secure"), "{kept}");
    }

    proptest! {
        #[test]
        fn prop_what_is_set_is_read_again(endpoint: u64, before in "[a-z=; ]{0,20}") {
            let spec = StickySpec::default();
            let set = set_cookie(&spec, endpoint, false);
            let sent = format!("{before};{}", set.split(';').next().unwrap_or(""));
            prop_assert_eq!(endpoint_in(sent.as_bytes(), &spec), Some(endpoint));
        }

        #[test]
        fn prop_any_field_is_read_without_a_panic(field in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = endpoint_in(&field, &StickySpec::default());
            let _ = hash_of(&field);
        }
    }
}
