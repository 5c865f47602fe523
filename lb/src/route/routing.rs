//! Routes and published ports, without the pools they lead to.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_model::{Protocol, RouteRule};

use super::conditions::Conditions;
use super::paths::{Candidate, Paths};
use super::{RequestView, Route, path};

/// Bytes of a host name at most (RFC 1035): a longer one is nobody's.
const HOST_BYTES: usize = 255;

/// Routes and published ports. Pools are named by their place in the table.
#[derive(Debug, Default, PartialEq)]
pub struct Routing {
    published: HashMap<u16, (usize, Protocol)>,
    exact: HashMap<String, Paths>,
    wildcard: HashMap<String, Paths>,
    any: Paths,
    /// Every route, to be taken over into the next table.
    routes: HashMap<RouteRule, Arc<Route>>,
    /// What is done with requests to published ports: nothing.
    pub(super) plain: Arc<Route>,
}

/// What was found for a request.
#[derive(Debug)]
pub(super) enum Found<'t> {
    /// This route, and its path if that is not read as it came.
    Route(&'t Candidate, Option<String>),
    /// Nothing.
    Nothing,
    /// Different routes, depending on how the path is read.
    Ambiguous,
}

impl Routing {
    /// Publishes a port; `false` if another pool has it already.
    pub fn publish(&mut self, port: u16, protocol: Protocol, place: usize) -> bool {
        if self.published.contains_key(&port) {
            return false;
        }
        self.published.insert(port, (place, protocol));
        true
    }

    /// Adds a route; `false` if there is one already that matches the same requests. Routes that
    /// `before` has, too, go on as they are: their rate limits remember.
    pub fn add(&mut self, rule: &RouteRule, place: usize, before: &Self) -> bool {
        let route = match before.routes.get(rule) {
            Some(route) => Arc::clone(route),
            None => Arc::new(Route::new(rule.clone())),
        };
        let candidate = Candidate {
            conditions: Conditions::new(&rule.when),
            route: Arc::clone(&route),
            place,
            split: Vec::new(),
            mirror: None,
        };
        let paths = match rule.host.as_deref() {
            None | Some("*") => &mut self.any,
            Some(host) => {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix("*.") {
                    Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default(),
                    None => self.exact.entry(host).or_default(),
                }
            }
        };
        let added = paths.add(rule, candidate);
        if added {
            self.routes.insert(rule.clone(), route);
        }
        added
    }

    /// Finds the services that routes name, by the place of their first HTTP port. Returns those
    /// that do not exist: their shares go to the others.
    pub fn link(&mut self, services: &HashMap<&str, usize>) -> Vec<String> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            let place = services.get(name).copied();
            if place.is_none() {
                missing.push(name.to_owned());
            }
            place
        };
        let hosts = self.exact.values_mut().chain(self.wildcard.values_mut());
        for paths in hosts.chain([&mut self.any]) {
            paths.each_mut(&mut |candidate| {
                let then = &candidate.route.rule().then;
                let mut sum = 0;
                candidate.split = then
                    .split
                    .to
                    .iter()
                    .filter(|share| share.weight > 0)
                    .filter_map(|share| {
                        let place = find(&share.service)?;
                        sum += share.weight;
                        Some((sum, place))
                    })
                    .collect();
                candidate.mirror = then.mirror.as_ref().and_then(|m| find(&m.service));
            });
        }
        missing
    }

    /// Returns the published ports and what is spoken on them, in order.
    pub fn ports(&self) -> Vec<(u16, Protocol)> {
        let mut ports: Vec<_> = self
            .published
            .iter()
            .map(|(&port, &(_, protocol))| (port, protocol))
            .collect();
        ports.sort_unstable();
        ports
    }

    /// Returns the place of the pool behind a published port.
    pub fn published(&self, port: u16) -> Option<usize> {
        self.published.get(&port).map(|&(place, _)| place)
    }

    /// Returns the route of a request.
    pub(super) fn find(&self, request: &RequestView<'_>) -> Found<'_> {
        let mut room = [0; HOST_BYTES];
        let host = normal_host(request.host, &mut room);
        if path::is_plain(request.path) {
            return match self.route(host, request.path, request) {
                Some(candidate) => Found::Route(candidate, None),
                None => Found::Nothing,
            };
        }
        let read = path::strict(request.path);
        let strict = self.route(host, &read, request);
        let loose = self.route(host, &path::loose(request.path), request);
        match (strict, loose) {
            (None, None) => Found::Nothing,
            (Some(one), Some(other)) if std::ptr::eq(one, other) => Found::Route(one, Some(read)),
            _ => Found::Ambiguous,
        }
    }

    fn route(&self, host: &str, path: &str, request: &RequestView<'_>) -> Option<&Candidate> {
        let exact = self.exact.get(host);
        exact
            .and_then(|paths| paths.find(path, request))
            .or_else(|| self.route_wildcard(host, path, request))
            .or_else(|| self.any.find(path, request))
    }

    /// The longest suffix wins; `*.a.test` does not match `a.test` itself.
    fn route_wildcard(
        &self,
        host: &str,
        path: &str,
        request: &RequestView<'_>,
    ) -> Option<&Candidate> {
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            let found = self.wildcard.get(suffix);
            if let Some(found) = found.and_then(|paths| paths.find(path, request)) {
                return Some(found);
            }
            rest = suffix;
        }
        None
    }
}

/// Returns a host as routes are kept: without port and final dot, in lower case.
pub(super) fn normal_host<'a>(host: &'a str, room: &'a mut [u8; HOST_BYTES]) -> &'a str {
    let name = if host.starts_with('[') {
        host.split_inclusive(']').next().unwrap_or(host)
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return name;
    }
    let Some(room) = room.get_mut(..name.len()) else {
        return "";
    };
    room.copy_from_slice(name.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).unwrap_or("")
}
