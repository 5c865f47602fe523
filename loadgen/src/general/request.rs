//! The head of a request of HTTP/2.

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri, Version};

use crate::plan::{Plan, Protocol, Request, Target, Template};
use crate::record::ErrorClass;

use super::work::{Job, Work};

/// Headers that HTTP/2 knows no more.
const OF_HTTP1: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// A head, with all of it done that does not change from request to request.
pub struct Head {
    method: Method,
    scheme: &'static str,
    authority: String,
    /// Set if the path has no places.
    uri: Option<Uri>,
    path: Template,
    headers: HeaderMap,
    places: Vec<(HeaderName, Template)>,
    ids: Option<String>,
    has_length: bool,
}

impl Head {
    pub fn new(target: &Target, request: &Request, plan: &Plan) -> Self {
        let is_grpc = matches!(plan.protocol, Protocol::Grpc { .. });
        let mut head = Self {
            method: request.method.clone(),
            scheme: if target.tls.is_some() {
                "https"
            } else {
                "http"
            },
            authority: target.authority.clone(),
            uri: None,
            path: request.path.clone(),
            headers: HeaderMap::new(),
            places: Vec::new(),
            ids: plan.request_ids.clone(),
            has_length: is_grpc,
        };
        if is_grpc {
            let known = HeaderValue::from_static;
            head.headers
                .insert("content-type", known("application/grpc"));
            head.headers.insert("te", known("trailers"));
        }
        for (name, value) in &request.headers {
            let Ok(name) = HeaderName::try_from(name.as_str()) else {
                continue;
            };
            head.has_length |= name == http::header::CONTENT_LENGTH;
            let literal: Option<Vec<u8>> = value
                .is_literal()
                .then(|| value.literals().flatten().copied().collect());
            match literal {
                _ if OF_HTTP1.contains(&name.as_str()) => {}
                Some(value) if name == HOST => {
                    head.authority = String::from_utf8_lossy(&value).into_owned();
                }
                Some(value) => {
                    if let Ok(value) = HeaderValue::from_bytes(&value) {
                        head.headers.append(name, value);
                    }
                }
                None => head.places.push((name, value.clone())),
            }
        }
        if head.path.is_literal() {
            let path: Vec<u8> = head.path.literals().flatten().copied().collect();
            head.uri = head.uri_of(path).ok();
        }
        head
    }

    fn uri_of(&self, path: Vec<u8>) -> Result<Uri, ErrorClass> {
        Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_| ErrorClass::Other)
    }

    /// Returns the head of `job`'s request.
    ///
    /// # Errors
    /// [`ErrorClass::Other`] if its templates made what is no path or no header.
    pub fn render(
        &self,
        work: &Work,
        job: &Job,
        body_bytes: usize,
    ) -> Result<http::Request<()>, ErrorClass> {
        let mut request = http::Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = match &self.uri {
            Some(uri) => uri.clone(),
            None => self.uri_of(work.render(&self.path, job.number))?,
        };
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        for (name, value) in &self.places {
            let value =
                HeaderValue::from_maybe_shared(bytes::Bytes::from(work.render(value, job.number)));
            headers.append(name, value.map_err(|_| ErrorClass::Other)?);
        }
        if let Some(prefix) = &self.ids {
            let id = HeaderValue::try_from(format!("{prefix}-{}", job.number));
            headers.insert("x-request-id", id.map_err(|_| ErrorClass::Other)?);
        }
        if body_bytes > 0 && !self.has_length {
            headers.insert(http::header::CONTENT_LENGTH, body_bytes.into());
        }
        Ok(request)
    }
}
