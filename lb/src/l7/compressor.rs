//! Compresses the bodies that go to clients, as pingora's module: only a module sees the end of
//! every body. pingora's own takes the first coding that the client names, whether the route
//! offers it or not, so this one decides itself.

use std::any::Any;
use std::io::Write as _;

use ballast_model::CompressionAlgorithm;
use brotli::CompressorWriter;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, TRANSFER_ENCODING, VARY,
};
use http::{Method, Version};
use pingora::ErrorType::InternalError;
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora::protocols::http::compression::{Algorithm, Encode};
use pingora::proxy::Session;
use pingora::{OrErr as _, Result};

use crate::route::Route;
use crate::route::compress::{Compressible, is_compressible, name_of, negotiate};

/// How hard each works, chosen so that they cost alike: what is compressed on the fly must not
/// cost more than it saves.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const ZSTD_LEVEL: u32 = 3;

/// What brotli keeps of what came, as a power of two: 512 KiB.
const BROTLI_WINDOW: u32 = 19;
/// Bytes that brotli gathers before it hands them on.
const BROTLI_BUFFER: usize = 4096;

/// Compresses one response, if it was told to.
#[derive(Default)]
pub(super) struct Compressor(Option<Encoder>);

enum Encoder {
    Pingora(Box<dyn Encode + Send + Sync>),
    /// pingora's own flushes at the end and writes no last block: decoders find it cut.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    fn of(algorithm: CompressionAlgorithm) -> Option<Self> {
        let (algorithm, level) = match algorithm {
            CompressionAlgorithm::Gzip => (Algorithm::Gzip, GZIP_LEVEL),
            CompressionAlgorithm::Zstd => (Algorithm::Zstd, ZSTD_LEVEL),
            CompressionAlgorithm::Brotli => {
                let out = Vec::new();
                let writer = CompressorWriter::new(out, BROTLI_BUFFER, BROTLI_LEVEL, BROTLI_WINDOW);
                return Some(Self::Brotli(Box::new(writer)));
            }
        };
        algorithm.compressor(level).map(Self::Pingora)
    }

    fn encode(&mut self, data: &[u8]) -> Result<Bytes> {
        match self {
            Self::Pingora(encoder) => encoder.encode(data, false),
            Self::Brotli(writer) => {
                writer
                    .write_all(data)
                    .or_err(InternalError, "while compressing")?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }

    fn finish(self, data: &[u8]) -> Result<Bytes> {
        match self {
            Self::Pingora(mut encoder) => encoder.encode(data, true),
            Self::Brotli(mut writer) => {
                writer
                    .write_all(data)
                    .or_err(InternalError, "while compressing")?;
                Ok(writer.into_inner().into())
            }
        }
    }
}

/// Makes a [`Compressor`] for each request.
pub(super) struct CompressorBuilder;

impl HttpModuleBuilder for CompressorBuilder {
    fn init(&self) -> Module {
        Box::new(Compressor::default())
    }
}

impl HttpModule for Compressor {
    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let data = body.as_deref().unwrap_or_default();
        if data.is_empty() && !end {
            return Ok(());
        }
        if end {
            if let Some(encoder) = self.0.take() {
                *body = Some(encoder.finish(data)?);
            }
        } else if let Some(encoder) = &mut self.0 {
            *body = Some(encoder.encode(data)?);
        }
        Ok(())
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        let encoder = self.0.take();
        encoder.map(|encoder| encoder.finish(&[])).transpose()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Begins to compress a response, if its route, the client and the response itself allow it.
pub(super) fn begin(
    session: &mut Session,
    response: &mut ResponseHeader,
    route: &Route,
) -> Result<()> {
    let Some(spec) = &route.compression else {
        return Ok(());
    };
    let text = |name: HeaderName| response.headers.get(name)?.to_str().ok();
    let seen = Compressible {
        status: response.status.as_u16(),
        media: text(CONTENT_TYPE),
        length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        encoded: response.headers.contains_key(CONTENT_ENCODING)
            || response.headers.contains_key(CONTENT_RANGE),
        cache: text(CACHE_CONTROL),
    };
    if !is_compressible(spec, &seen) {
        return Ok(());
    }
    // What a cache has of it depends on what was accepted, also when nothing was.
    response.append_header(VARY, "accept-encoding")?;
    let head = session.req_header();
    let bodiless = head.method == Method::HEAD;
    // HTTP/1.0 has no chunks, and the length is not known ahead.
    let old = head.version < Version::HTTP_11;
    let accept = head.headers.get(ACCEPT_ENCODING);
    let accept = accept.and_then(|value| value.to_str().ok());
    let chosen = accept.and_then(|accept| negotiate(spec, accept));
    let Some(algorithm) = chosen.filter(|_| !bodiless && !old) else {
        return Ok(());
    };
    let Some(module) = session.downstream_modules_ctx.get_mut::<Compressor>() else {
        return Ok(());
    };
    module.0 = Encoder::of(algorithm);
    change_head(response, name_of(algorithm))
}

fn change_head(response: &mut ResponseHeader, coding: &str) -> Result<()> {
    response.insert_header(CONTENT_ENCODING, coding)?;
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&ACCEPT_RANGES);
    response.insert_header(TRANSFER_ENCODING, "chunked")?;
    let etag = response.headers.get(ETAG).cloned();
    if let Some(etag) = etag.filter(|etag| etag.as_bytes().starts_with(b"\"")) {
        // Other bytes, the same meaning: that is what a weak validator says.
        response.insert_header(ETAG, [b"W/", etag.as_bytes()].concat())?;
    }
    Ok(())
}
