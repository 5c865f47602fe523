//! Which bytes may stand where, and how far they go.

/// A bit for each place.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const HOST: u8 = 8;

/// The places in which each byte may stand.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        classes[byte as usize] = class(byte);
        if byte == 255 {
            return classes;
        }
        byte += 1;
    }
}

const fn class(byte: u8) -> u8 {
    let mut class = 0;
    if byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
    {
        class |= TOKEN;
    }
    // More than RFC 3986 has (`"<>\^`{|}`), since browsers send them; but no fragment.
    if byte.is_ascii_graphic() && byte != b'#' {
        class |= TARGET;
    }
    if byte == b'\t' || byte == b' ' || byte.is_ascii_graphic() || byte >= 0x80 {
        class |= VALUE;
    }
    // Unreserved, percent-encoded, sub-delims: RFC 3986, 3.2.2.
    if byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
    {
        class |= HOST;
    }
    class
}

/// Whether a method or a field's name may have it.
#[inline]
pub(crate) fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Whether a target may have it.
#[inline]
pub(crate) fn is_target(byte: u8) -> bool {
    CLASSES[byte as usize] & TARGET != 0
}

/// Whether a field's value may have it.
#[inline]
pub(crate) fn is_value(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// Whether the name of a host may have it.
#[inline]
pub(crate) fn is_host(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// Where the token that begins here ends.
#[inline]
pub(crate) fn token_end(bytes: &[u8], start: usize) -> usize {
    end_of(bytes, start, is_token)
}

/// Where what might be a field's name ends: at the first colon, or a byte that no token has, though
/// not all such bytes end it. Finds the colon in fewer steps than [`token_end`].
#[inline]
pub(crate) fn name_end(bytes: &[u8], start: usize) -> usize {
    let at = skip_words(bytes, start, |word| {
        below(word, 0x21) | equal(word, b':') | (word & HIGH)
    });
    end_of(bytes, at, |byte| byte > b' ' && byte < 0x80 && byte != b':')
}

/// Where the target that begins here ends.
#[inline]
pub(crate) fn target_end(bytes: &[u8], start: usize) -> usize {
    let at = skip_words(bytes, start, |word| {
        below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#') | (word & HIGH)
    });
    end_of(bytes, at, is_target)
}

/// Where the value that begins here ends, blanks around it included.
#[inline]
pub(crate) fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        at = skip_words(bytes, at, |word| below(word, 0x20) | equal(word, 0x7f));
        match bytes.get(at) {
            // Rare, and the words before it stopped for it.
            Some(b'\t') => at += 1,
            Some(&byte) if is_value(byte) => at = end_of(bytes, at, is_value),
            _ => return at,
        }
    }
}

/// Where this byte is first; none if it is not there.
#[inline]
pub(crate) fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    let at = skip_words(bytes, 0, |word| equal(word, byte));
    let at = end_of(bytes, at, |other| other != byte);
    (at < bytes.len()).then_some(at)
}

#[inline]
fn end_of(bytes: &[u8], start: usize, may: impl Fn(u8) -> bool) -> usize {
    let mut at = start;
    while let Some(&byte) = bytes.get(at)
        && may(byte)
    {
        at += 1;
    }
    at
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Goes on by eight bytes at a time; returns where the first one is that is marked, or where fewer
/// than eight are left.
#[inline]
fn skip_words(bytes: &[u8], start: usize, marks: impl Fn(u64) -> u64) -> usize {
    let mut at = start;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let marked = marks(word);
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at
}

/// The high bit of each byte below a bound (of at most 128). A borrow comes only out of a byte that
/// is marked itself, so that the first mark is always right.
#[inline]
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGH
}

/// The high bit of each byte that equals; the first mark is always right.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Without the blanks around it.
#[inline]
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The elements of a list, without blanks and without the empty ones.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|&byte| byte == b',').map(trim);
    elements.filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte value at each place of a word, behind bytes that may stand there.
    #[test]
    fn words_stop_where_bytes_would() {
        for byte in 0..=255_u8 {
            for at in 0..24 {
                for good in [b'a', 0x21, 0x7e] {
                    let mut bytes = [good; 26];
                    bytes[at] = byte;
                    let expected = bytes.iter().position(|&byte| !is_target(byte));
                    assert_eq!(target_end(&bytes, 0), expected.unwrap_or(26));
                    let expected = bytes.iter().position(|&byte| !is_value(byte));
                    assert_eq!(value_end(&bytes, 0), expected.unwrap_or(26));
                }
                let mut bytes = [b'\t', 0x80, 0xff, b' '].repeat(7);
                bytes[at] = byte;
                let expected = bytes.iter().position(|&byte| !is_value(byte));
                assert_eq!(value_end(&bytes, 0), expected.unwrap_or(28));
            }
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for length in 0..20 {
            for at in 0..length {
                let mut bytes = vec![b'a'; length];
                assert_eq!(find(&bytes, b'?'), None);
                bytes[at] = b'?';
                bytes[length - 1] = b'?';
                assert_eq!(find(&bytes, b'?'), Some(at));
            }
        }
    }

    #[test]
    fn a_list_has_no_empty_elements() {
        let all: Vec<_> = elements(b" a ,, b\t,,").collect();
        assert_eq!(all, [b"a", b"b"]);
        assert_eq!(elements(b" , ").count(), 0);
    }
}
