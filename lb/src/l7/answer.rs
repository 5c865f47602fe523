//! What the ingress itself answers: small problem documents (RFC 9457).

use bytes::Bytes;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

/// The header that tells the ingress's own answers from those of an endpoint.
pub const REASON_HEADER: &str = "x-ballast-reason";

/// Why the ingress answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No route matches.
    NoRoute,
    /// The service has no endpoint that takes requests.
    NoEndpoint,
    /// No endpoint accepted a connection.
    ConnectFailed,
    /// The endpoint ended the connection before it had answered, and the request must not be sent
    /// twice.
    EndpointFailed,
    /// Nothing came in time.
    Timeout,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The request is not valid HTTP, or asks for what is not served.
    BadRequest,
    /// A fault of the ingress.
    Internal,
}

impl Reason {
    /// Returns the HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::NoEndpoint => 503,
            Self::ConnectFailed | Self::EndpointFailed => 502,
            Self::Timeout => 504,
            Self::RequestTimeout => 408,
            Self::BadRequest => 400,
            Self::Internal => 500,
        }
    }

    /// Returns its name in [`REASON_HEADER`].
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "connect-failed",
            Self::EndpointFailed => "endpoint-failed",
            Self::Timeout => "timeout",
            Self::RequestTimeout => "request-timeout",
            Self::BadRequest => "bad-request",
            Self::Internal => "internal",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::NoRoute => "no route matches this host and path",
            Self::NoEndpoint => "no endpoint of the service takes requests",
            Self::ConnectFailed => "no endpoint of the service accepted a connection",
            Self::EndpointFailed => "the endpoint ended the connection before it had answered",
            Self::Timeout => "the endpoint did not answer in time",
            Self::RequestTimeout => "the request did not come in time",
            Self::BadRequest => "the request cannot be served",
            Self::Internal => "the ingress failed",
        }
    }

    /// Returns the problem document.
    pub fn body(self) -> String {
        format!(
            "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},\"reason\":\"{}\"}}\n",
            self.title(),
            self.status(),
            self.code()
        )
    }
}

/// Answers the request, if nothing was answered yet.
///
/// # Errors
/// When the client cannot be written to.
pub async fn answer(session: &mut Session, reason: Reason) -> Result<()> {
    if session.response_written().is_some() {
        return Ok(());
    }
    let body = reason.body();
    let mut head = ResponseHeader::build(reason.status(), Some(5))?;
    head.insert_header(CONTENT_TYPE, "application/problem+json")?;
    head.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    head.insert_header(REASON_HEADER, reason.code())?;
    if reason == Reason::NoEndpoint {
        head.insert_header(RETRY_AFTER, "1")?;
    }
    let bodiless = session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if !bodiless {
        let body = Bytes::from(body);
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
