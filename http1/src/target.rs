//! What a request is for: the four forms of a target, and hosts.

use crate::head::{Step, refuse};
use crate::method::Method;
use crate::refusal::Rule;
use crate::request::ascii;
use crate::scan;

/// A target, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub target: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub authority: Option<&'a str>,
    default_port: Option<&'static str>,
}

impl Parts<'_> {
    /// Whether this is the host of the target: letters' case and a default port aside.
    pub fn agrees(&self, host: &str) -> bool {
        let Some(authority) = self.authority else {
            return true;
        };
        let without = |host: &'_ str| -> usize {
            let port = self.default_port.unwrap_or("\n");
            let name = host.strip_suffix(port).and_then(|h| h.strip_suffix(':'));
            name.or(host.strip_suffix(':')).unwrap_or(host).len()
        };
        let (left, right) = (&authority[..without(authority)], &host[..without(host)]);
        left.eq_ignore_ascii_case(right)
    }
}

/// Takes a target apart, all of whose bytes may stand in one.
pub(crate) fn split<'a>(method: Method<'_>, target: &'a str, at: usize) -> Step<Parts<'a>> {
    let mut parts = Parts {
        target,
        path: target,
        query: None,
        authority: None,
        default_port: None,
    };
    if method == Method::Connect {
        parts.authority = Some(host(target.as_bytes(), at)?);
        let port = target.rsplit_once(':').map_or("", |(_, port)| port);
        if port.is_empty() || port.ends_with(']') {
            return refuse(Rule::TargetForm, at);
        }
        parts.path = "";
        return Ok(parts);
    }
    if target == "*" {
        if method != Method::Options {
            return refuse(Rule::TargetForm, at);
        }
        return Ok(parts);
    }
    let mut rest = target;
    if !target.starts_with('/') {
        let (port, after) = scheme(target, at)?;
        let end = after.find(['/', '?']).unwrap_or(after.len());
        parts.default_port = Some(port);
        parts.authority = Some(host(&after.as_bytes()[..end], at)?);
        rest = &after[end..];
    }
    let (path, query) = match scan::find(rest.as_bytes(), b'?') {
        Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
        None => (rest, None),
    };
    parts.query = query;
    parts.path = match path {
        // RFC 9112, 3.2.4.
        "" if method == Method::Options && query.is_none() => "*",
        "" => "/",
        path => path,
    };
    Ok(parts)
}

/// Returns a scheme's default port and what follows the scheme.
fn scheme(target: &str, at: usize) -> Step<(&'static str, &str)> {
    for (scheme, port) in [("http://", "80"), ("https://", "443")] {
        if let Some(start) = target.get(..scheme.len())
            && start.eq_ignore_ascii_case(scheme)
        {
            return Ok((port, &target[scheme.len()..]));
        }
    }
    refuse(Rule::Target, at)
}

/// Returns the host and port that these bytes are.
pub(crate) fn host(value: &[u8], at: usize) -> Step<&str> {
    let (name, port) = if let [b'[', rest @ ..] = value {
        let Some(end) = rest.iter().position(|&byte| byte == b']') else {
            return refuse(Rule::Host, at);
        };
        let is_address = std::str::from_utf8(&rest[..end])
            .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        if !is_address {
            return refuse(Rule::Host, at);
        }
        (&rest[..end], &rest[end + 1..])
    } else {
        let end = value.iter().position(|&byte| !scan::is_host(byte));
        value.split_at(end.unwrap_or(value.len()))
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if name.is_empty() || !is_port {
        return refuse(Rule::Host, at);
    }
    Ok(ascii(value))
}
