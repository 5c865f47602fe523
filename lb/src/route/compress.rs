//! Whether a response is compressed, and how (RFC 9110, 12.5.3).

use ballast_model::{Compression, CompressionAlgorithm};

/// Media types that are compressed if the route names none: text, and no streams of events, which
/// would wait in the compressor.
const TYPES: [&str; 12] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/xml",
    "text/csv",
    "text/markdown",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];

/// What of a response decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compressible<'a> {
    /// Its status.
    pub status: u16,
    /// `Content-Type`.
    pub media: Option<&'a str>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// Whether it has a `Content-Encoding` or `Content-Range`.
    pub encoded: bool,
    /// `Cache-Control`.
    pub cache: Option<&'a str>,
}

/// Returns whether such a response gains from being compressed.
pub fn is_compressible(spec: &Compression, response: &Compressible<'_>) -> bool {
    if !(200..=599).contains(&response.status) || [204, 206, 304].contains(&response.status) {
        return false;
    }
    let transformable = !response.cache.is_some_and(|c| c.contains("no-transform"));
    let long = response
        .length
        .is_none_or(|length| length >= spec.min_bytes.0);
    let Some(media) = response.media else {
        return false;
    };
    let media = media.split(';').next().unwrap_or("").trim();
    let is = |pattern: &str| match pattern.strip_suffix("/*") {
        Some(kind) => media
            .split('/')
            .next()
            .is_some_and(|k| k.eq_ignore_ascii_case(kind)),
        None => media.eq_ignore_ascii_case(pattern),
    };
    let listed = if spec.types.is_empty() {
        TYPES.into_iter().any(is) || media.ends_with("+json") || media.ends_with("+xml")
    } else {
        spec.types.iter().any(|pattern| is(pattern))
    };
    transformable && long && !response.encoded && listed
}

/// Returns the coding that the route prefers among those that the client takes as readily as any.
pub fn negotiate(spec: &Compression, accept: &str) -> Option<CompressionAlgorithm> {
    let mut best: Option<(u16, CompressionAlgorithm)> = None;
    for &algorithm in &spec.algorithms {
        let quality = quality_of(name_of(algorithm), accept);
        if quality > best.map_or(0, |(known, _)| known) {
            best = Some((quality, algorithm));
        }
    }
    best.map(|(_, algorithm)| algorithm)
}

/// Returns the name of a coding.
pub const fn name_of(algorithm: CompressionAlgorithm) -> &'static str {
    match algorithm {
        CompressionAlgorithm::Gzip => "gzip",
        CompressionAlgorithm::Brotli => "br",
        CompressionAlgorithm::Zstd => "zstd",
    }
}

/// Returns thousandths; 0 if it is not taken.
fn quality_of(name: &str, accept: &str) -> u16 {
    let mut any = 0;
    for part in accept.split(',') {
        let (coding, parameters) = part.split_once(';').unwrap_or((part, ""));
        let quality = parameters
            .split(';')
            .find_map(|one| one.trim().strip_prefix("q="))
            .map_or(1000, thousandths);
        if coding.trim().eq_ignore_ascii_case(name) {
            return quality;
        }
        if coding.trim() == "*" {
            any = quality;
        }
    }
    any
}

/// Reads `0`, `0.5`, `1.000`; what is none of them is not taken.
fn thousandths(text: &str) -> u16 {
    let quality: f32 = text.trim().parse().unwrap_or(0.0);
    if !(0.0..=1.0).contains(&quality) {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000"
    )]
    let thousandths = (quality * 1000.0) as u16;
    thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_prefers_among_what_the_client_takes() {
        use CompressionAlgorithm::{Brotli, Gzip, Zstd};
        let spec = Compression::default();
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("GZIP", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("zstd;q=0, *", Some(Brotli)),
            ("br;q=2, gzip;q=x", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(negotiate(&spec, accept), expected, "{accept}");
        }
    }

    #[test]
    fn only_text_that_is_long_and_whole_is_compressed() {
        let spec = Compression::default();
        let text = Compressible {
            status: 200,
            media: Some("text/html; charset=utf-8"),
            length: Some(5000),
            ..Compressible::default()
        };
        assert!(is_compressible(&spec, &text));
        let json = Compressible {
            media: Some("application/problem+json"),
            length: None,
            ..text
        };
        assert!(is_compressible(&spec, &json));
        for other in [
            Compressible {
                status: 206,
                ..text
            },
            Compressible {
                status: 304,
                ..text
            },
            Compressible {
                length: Some(10),
                ..text
            },
            Compressible {
                encoded: true,
                ..text
            },
            Compressible {
                media: None,
                ..text
            },
            Compressible {
                media: Some("image/png"),
                ..text
            },
            Compressible {
                media: Some("text/event-stream"),
                ..text
            },
            Compressible {
                cache: Some("public, no-transform"),
                ..text
            },
        ] {
            assert!(!is_compressible(&spec, &other), "{other:?}");
        }
        let all = Compression {
            types: vec!["image/*".to_owned()],
            ..spec
        };
        let png = Compressible {
            media: Some("image/png"),
            ..text
        };
        assert!(is_compressible(&all, &png) && !is_compressible(&all, &text));
    }
}
