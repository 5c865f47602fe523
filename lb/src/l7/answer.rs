//! What the ingress itself answers: small problem documents (RFC 9457).

use http::Method;
use http::header::CONTENT_LENGTH;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::route::Answer;

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
    /// The body is longer than the route takes.
    BodyTooLarge,
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
            Self::BodyTooLarge => 413,
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
            Self::BodyTooLarge => "body-too-large",
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
            Self::BodyTooLarge => "the body is longer than this route takes",
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

    fn whole(self) -> Answer {
        let answer = Answer::problem(self.status(), self.code(), self.title());
        match self {
            Self::NoEndpoint => answer.with("retry-after", "1"),
            _ => answer,
        }
    }
}

/// Answers the request with a reason, if nothing was answered yet.
///
/// # Errors
/// When the client cannot be written to.
pub async fn answer(session: &mut Session, reason: Reason) -> Result<()> {
    reply(session, reason.whole()).await
}

/// Answers the request, if nothing was answered yet.
///
/// # Errors
/// When the client cannot be written to.
pub async fn reply(session: &mut Session, answer: Answer) -> Result<()> {
    if session.response_written().is_some() {
        return Ok(());
    }
    let mut head = ResponseHeader::build(answer.status, Some(answer.fields.len() + 1))?;
    for (name, value) in answer.fields {
        head.append_header(name, value)?;
    }
    if answer.status != 204 {
        head.insert_header(CONTENT_LENGTH, answer.body.len().to_string())?;
    }
    let bodiless = session.req_header().method == Method::HEAD || answer.status == 204;
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if !bodiless {
        session.write_response_body(Some(answer.body), true).await?;
    }
    Ok(())
}
