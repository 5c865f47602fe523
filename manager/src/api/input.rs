//! What requests bring: JSON bodies and query parameters, each mistake named with its place.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer};

use super::problem::{ApiError, Kind};

/// Bytes of a body at most: a stack of a thousand services has about 1 MiB.
pub const BODY_BYTES: usize = 8 << 20;

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_type(&request)?;
        let bytes = read_body(request.into_body()).await?;
        parse(&bytes).map(Self)
    }
}

/// A body without a type is taken for JSON.
fn check_type(request: &Request) -> Result<(), ApiError> {
    let Some(given) = request.headers().get(CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or("(not text)");
    let essence = given.split(';').next().unwrap_or(given).trim();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let shown: String = essence.chars().take(64).collect();
    let detail = format!("the body's content type is `{shown}`");
    Err(ApiError::new(Kind::NotJson, detail).nearest(Some("application/json")))
}

async fn read_body(body: Body) -> Result<Vec<u8>, ApiError> {
    match Limited::new(body, BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let detail = format!("a body has at most {BODY_BYTES} bytes");
            let most = BODY_BYTES.to_string();
            Err(ApiError::new(Kind::BodyTooLarge, detail).nearest(Some(most)))
        }
        Err(error) => {
            let detail = format!("the body did not arrive whole: {error}");
            Err(ApiError::new(Kind::MalformedJson, detail))
        }
    }
}

/// Reads a JSON text.
///
/// # Errors
/// With line and column, and for a wrong field its path and the nearest that would be right.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| describe(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| describe("", &error))?;
    Ok(value)
}

fn describe(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if error.classify() != serde_json::error::Category::Data {
        return ApiError::new(Kind::MalformedJson, text);
    }
    let reason = text.split(" at line ").next().unwrap_or(&text);
    let place = format!("line {}, column {}", error.line(), error.column());
    ApiError::new(Kind::InvalidField, format!("{reason} ({place})"))
        .at(if path == "." { "" } else { path })
        .nearest(nearest_of(reason))
}

/// Returns the nearest of the names that serde lists in "unknown field `x`, expected one of `a`,
/// `b`" and the like; the missing one of "missing field `x`".
fn nearest_of(reason: &str) -> Option<String> {
    let mut names = reason.split('`').skip(1).step_by(2);
    let given = names.next()?;
    if reason.starts_with("missing field") {
        return Some(given.to_owned());
    }
    if !reason.starts_with("unknown ") {
        return None;
    }
    ballast_model::nearest(given, names).map(ToOwned::to_owned)
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let rejection = match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => return Ok(Self(value)),
            Err(rejection) => rejection,
        };
        let text = rejection.body_text();
        let start = text.find("unknown field").unwrap_or(0);
        let reason = &text[start..];
        let field = reason
            .split('`')
            .nth(1)
            .filter(|_| reason.starts_with("unknown"));
        Err(ApiError::new(Kind::InvalidQuery, &*text)
            .at(field.unwrap_or_default())
            .nearest(nearest_of(reason)))
    }
}

/// Reads a switch of a query: `?follow`, `?follow=1` and `?follow=true` are on.
pub fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => {
            let shown: String = other.chars().take(32).collect();
            let reason = format!("`{shown}` is neither true nor false");
            Err(serde::de::Error::custom(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use ballast_model::ServiceSpec;

    use super::*;

    #[test]
    fn mistakes_in_bodies_are_named_with_their_place() {
        for (body, kind, field, nearest) in [
            ("{", "malformed-json", None, None),
            ("{} x", "invalid-field", None, Some("name")),
            (
                r#"{"name":"a","task":{"comand":["x"]}}"#,
                "invalid-field",
                Some("task.comand"),
                Some("command"),
            ),
            (
                r#"{"name":"a","task":{"command":["x"]},"mode":{"replcated":{"replicas":1}}}"#,
                "invalid-field",
                Some("mode"),
                Some("replicated"),
            ),
            (
                r#"{"name":"a","task":{"resources":{"memory":"-64m"}}}"#,
                "invalid-field",
                Some("task.resources.memory"),
                None,
            ),
        ] {
            let error = parse::<ServiceSpec>(body.as_bytes()).expect_err(body);
            let error = error.document();
            let kind = format!("urn:ballast:problem:{kind}");
            assert_eq!(error.r#type, kind, "{error:?}");
            assert_eq!(error.field.as_deref(), field, "{error:?}");
            assert_eq!(error.nearest.as_deref(), nearest, "{error:?}");
        }
        let error = parse::<ServiceSpec>(b"{\n \"nam\": 1}").expect_err("unknown");
        assert!(error.document().detail.contains("line 2"), "{error:?}");
    }
}
