//! Flags that have a form of their own.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use ballast_loadgen::plan::units::{self, InvalidQuantity};
use ballast_loadgen::plan::{Template, TemplateError, Think};

/// A target with its share: `weight=3,url=http://host/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// Relative to the others'.
    pub weight: u32,
    /// As it was written; may have commas, so it comes last.
    pub url: String,
}

/// What is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// A part that is not known.
    #[error("`{0}` is no part of a target: write weight=N,url=URL (the URL last)")]
    Part(String),
    /// Not a weight.
    #[error("`{0}` is no weight: it is a number from 0 to 1000000")]
    Weight(String),
    /// The URL is missing.
    #[error("it has no url=…: write weight=N,url=URL (the URL last)")]
    NoUrl,
}

impl FromStr for TargetSpec {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let mut weight = 1;
        let mut rest = text;
        loop {
            if let Some(url) = rest.strip_prefix("url=") {
                return Ok(Self {
                    weight,
                    url: url.to_owned(),
                });
            }
            if rest.is_empty() {
                return Err(InvalidTarget::NoUrl);
            }
            let (part, after) = rest.split_once(',').unwrap_or((rest, ""));
            let number = part
                .strip_prefix("weight=")
                .ok_or_else(|| InvalidTarget::Part(part.to_owned()))?;
            weight = number
                .parse()
                .ok()
                .filter(|weight| *weight <= 1_000_000)
                .ok_or_else(|| InvalidTarget::Weight(number.to_owned()))?;
            rest = after;
        }
    }
}

/// A header, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderLine {
    /// Lowercase.
    pub name: String,
    /// What is sent.
    pub value: Template,
}

/// What is no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// No colon.
    #[error("`{0}` is not NAME: VALUE")]
    Form(String),
    /// No name.
    #[error("`{0}` is no header name")]
    Name(String),
    /// A line break, or another byte that no header may have.
    #[error("the value of `{0}` has a line break or control character in it")]
    Value(String),
    /// No template.
    #[error("the value of `{0}`, {1}")]
    Template(String, TemplateError),
    /// The engine's own.
    #[error("`{0}` follows from the request and cannot be given")]
    Reserved(String),
}

impl FromStr for HeaderLine {
    type Err = InvalidHeader;

    fn from_str(line: &str) -> Result<Self, InvalidHeader> {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| InvalidHeader::Form(line.to_owned()))?;
        let parsed: http::HeaderName = name
            .trim_end()
            .parse()
            .map_err(|_| InvalidHeader::Name(name.to_owned()))?;
        let name = parsed.as_str().to_owned();
        if matches!(name.as_str(), "content-length" | "transfer-encoding") {
            return Err(InvalidHeader::Reserved(name));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(InvalidHeader::Value(name));
        }
        let value = Template::parse(value.trim())
            .map_err(|error| InvalidHeader::Template(name.clone(), error))?;
        Ok(Self { name, value })
    }
}

/// Returns the pause in `text`: `10ms` or `exp:10ms`.
///
/// # Errors
/// [`InvalidQuantity`] for what is no duration.
pub fn think(text: &str) -> Result<Think, InvalidQuantity> {
    match text.strip_prefix("exp:") {
        Some(mean) => Ok(Think::Exponential(units::span(mean)?)),
        None => Ok(Think::Constant(units::span(text)?)),
    }
}

/// Returns the address to listen on: `HOST:PORT`.
///
/// # Errors
/// What it is not, in words.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let no = |why: &str| {
        format!(
            "`{text}` is no address{why}: write HOST:PORT, such as 127.0.0.1:9090 or [::1]:9090"
        )
    };
    match text.to_socket_addrs() {
        Ok(mut all) => all.next().ok_or_else(|| no("")),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Err(no("")),
        Err(error) => Err(no(&format!(" ({error})"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn target_has_a_weight_and_a_url_with_commas() {
        let spec: TargetSpec = "weight=3,url=http://a/?b=1,2".parse().expect("parses");
        assert_eq!((spec.weight, spec.url.as_str()), (3, "http://a/?b=1,2"));
        assert_eq!(
            "url=http://a/"
                .parse::<TargetSpec>()
                .expect("parses")
                .weight,
            1
        );
        for bad in [
            "",
            "weight=3",
            "wait=3,url=http://a/",
            "weight=-1,url=http://a/",
            "http://a/",
        ] {
            assert!(bad.parse::<TargetSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_have_a_name_and_a_value_without_line_breaks() {
        let header: HeaderLine = "X-A:  b {{counter}}".parse().expect("parses");
        assert_eq!(header.name, "x-a");
        assert_eq!(
            header.value,
            Template::parse("b {{counter}}").expect("parses")
        );
        for bad in [
            "x",
            ": a",
            "a b: c",
            "a: b\r\nc: d",
            "content-length: 3",
            "a: {{b}}",
        ] {
            assert!(bad.parse::<HeaderLine>().is_err(), "{bad}");
        }
    }

    #[test]
    fn address_to_listen_on_is_a_host_and_a_port() {
        let local = SocketAddr::from(([127, 0, 0, 1], 9090));
        assert_eq!(address("127.0.0.1:9090"), Ok(local));
        assert!(address("localhost:9090").is_ok_and(|it| it.ip().is_loopback()));
        for bad in ["", "foo", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"] {
            let error = address(bad).expect_err(bad);
            assert!(error.contains("write HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn think_time_is_constant_or_exponential() {
        let ten = Duration::from_millis(10);
        assert_eq!(think("10ms"), Ok(Think::Constant(ten)));
        assert_eq!(think("exp:10ms"), Ok(Think::Exponential(ten)));
        assert!(think("exp:").is_err() && think("0s").is_err());
    }
}
