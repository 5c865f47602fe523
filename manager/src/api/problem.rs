//! RFC 9457 problem documents: what is wrong, where, and what would be right.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ballast_model::InvalidSpec;
use ballast_model::view::Problem;

use crate::raft::{ProposeError, RETRY_AFTER_SECS};
use crate::state::{Rejection, RejectionKind};

/// A kind of problem: it names the URI, the title and the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The body is not JSON.
    MalformedJson,
    /// A field is unknown, missing or of the wrong type or value.
    InvalidField,
    /// A query parameter is.
    InvalidQuery,
    /// There is no such thing.
    NotFound,
    /// There is no such path.
    NoSuchPath,
    /// The path is known, the method is not.
    MethodNotAllowed,
    /// Something else has this name, port or route, or stands in the way.
    Conflict,
    /// It changed since it was read.
    Stale,
    /// A limit of the cluster is reached.
    Limit,
    /// The body is too long.
    BodyTooLarge,
    /// The body is said to be something else than JSON.
    NotJson,
    /// Too many changes wait.
    Overloaded,
    /// Another manager leads, or none.
    NotLeader,
    /// The manager's disk is full.
    DiskFull,
    /// The manager is stopping.
    Stopping,
    /// A mistake of ours.
    Internal,
}

impl Kind {
    /// Returns the last part of the URI, the title and the status.
    const fn describe(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => ("malformed-json", "The body is not JSON", S::BAD_REQUEST),
            Self::InvalidField => (
                "invalid-field",
                "A field cannot be accepted",
                S::UNPROCESSABLE_ENTITY,
            ),
            Self::InvalidQuery => (
                "invalid-query",
                "A query parameter cannot be accepted",
                S::BAD_REQUEST,
            ),
            Self::NotFound => ("not-found", "There is no such thing", S::NOT_FOUND),
            Self::NoSuchPath => ("no-such-path", "There is no such path", S::NOT_FOUND),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                "The path does not have this method",
                S::METHOD_NOT_ALLOWED,
            ),
            Self::Conflict => ("conflict", "Something stands in the way", S::CONFLICT),
            Self::Stale => ("stale", "It changed since it was read", S::CONFLICT),
            Self::Limit => ("limit", "A limit is reached", S::UNPROCESSABLE_ENTITY),
            Self::BodyTooLarge => (
                "body-too-large",
                "The body is too long",
                S::PAYLOAD_TOO_LARGE,
            ),
            Self::NotJson => (
                "not-json",
                "The body's type is not JSON",
                S::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::Overloaded => (
                "overloaded",
                "Too many changes wait",
                S::SERVICE_UNAVAILABLE,
            ),
            Self::NotLeader => (
                "not-leader",
                "This manager does not lead",
                S::SERVICE_UNAVAILABLE,
            ),
            Self::DiskFull => (
                "disk-full",
                "The manager's disk is full",
                S::INSUFFICIENT_STORAGE,
            ),
            Self::Stopping => (
                "stopping",
                "The manager is stopping",
                S::SERVICE_UNAVAILABLE,
            ),
            Self::Internal => ("internal", "A mistake of ours", S::INTERNAL_SERVER_ERROR),
        }
    }
}

/// An answer that is a problem document.
#[derive(Debug, Clone)]
pub struct ApiError {
    kind: Kind,
    detail: String,
    field: Option<String>,
    nearest: Option<String>,
}

impl ApiError {
    /// Says what is wrong.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            field: None,
            nearest: None,
        }
    }

    /// Names the field that is wrong.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into()).filter(|field: &String| !field.is_empty());
        self
    }

    /// Names what would be right.
    #[must_use]
    pub fn nearest(mut self, nearest: Option<impl Into<String>>) -> Self {
        self.nearest = nearest.map(Into::into);
        self
    }

    /// Says that there is no `what` with this name, and which is nearest.
    pub fn no_such<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let shown: String = name.chars().take(64).collect();
        let nearest = ballast_model::nearest(&shown, known).map(ToOwned::to_owned);
        Self::new(Kind::NotFound, format!("there is no {what} `{shown}`")).nearest(nearest)
    }

    /// Returns the document.
    pub fn document(&self) -> Problem {
        let (name, title, status) = self.kind.describe();
        Problem {
            r#type: format!("urn:ballast:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            nearest: self.nearest.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, _, status) = self.kind.describe();
        let body = serde_json::to_vec(&self.document()).expect("a problem has only strings");
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], body).into_response();
        if matches!(
            self.kind,
            Kind::Overloaded | Kind::NotLeader | Kind::DiskFull
        ) {
            let seconds = HeaderValue::from(RETRY_AFTER_SECS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<InvalidSpec> for ApiError {
    fn from(invalid: InvalidSpec) -> Self {
        Self::new(Kind::InvalidField, invalid.reason)
            .at(invalid.field)
            .nearest(invalid.nearest)
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.kind {
            RejectionKind::NotFound => Kind::NotFound,
            RejectionKind::Conflict => Kind::Conflict,
            RejectionKind::Stale => Kind::Stale,
            RejectionKind::Invalid => Kind::InvalidField,
            RejectionKind::Limit => Kind::Limit,
        };
        Self::new(kind, rejection.reason)
            .at(rejection.field.unwrap_or_default())
            .nearest(rejection.nearest)
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let detail = error.to_string();
        match error {
            ProposeError::Overloaded => Self::new(Kind::Overloaded, detail),
            ProposeError::DiskFull { .. } => Self::new(Kind::DiskFull, detail),
            ProposeError::NotLeader { leader } => {
                Self::new(Kind::NotLeader, detail).nearest(leader)
            }
            ProposeError::Stopped(_) => Self::new(Kind::Stopping, detail),
        }
    }
}
