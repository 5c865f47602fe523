//! Which pool a request belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_model::{Generation, Protocol, RouteRule};

use super::{Pool, PoolKey};

/// One immutable table: routes, published ports, pools.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// What the manager (or the file) called it.
    pub generation: Generation,
    /// Every pool; [`Routing`] names them by their place.
    pub pools: Vec<Arc<Pool>>,
    /// Which pool answers what; shared by tables that differ only in the pools' members.
    pub routing: Arc<Routing>,
}

impl RouteTable {
    /// Returns the pool behind a published port.
    pub fn published(&self, port: u16) -> Option<&Arc<Pool>> {
        let &(place, _) = self.routing.published.get(&port)?;
        self.pools.get(place)
    }

    /// Returns the pool that a request on a shared listener belongs to: the longest path prefix
    /// of the most exact host that has one.
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Pool>> {
        let place = self.routing.route(host, path)?;
        self.pools.get(place)
    }

    /// Returns the pool of this name.
    pub fn pool(&self, key: &PoolKey) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.key == *key)
    }
}

/// Routes and published ports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routing {
    published: HashMap<u16, (usize, Protocol)>,
    exact: HashMap<String, Paths>,
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

/// The path prefixes of one host, longest first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Paths(Vec<(String, usize)>);

impl Paths {
    fn insert(&mut self, prefix: &str, place: usize) -> bool {
        let prefix = prefix.trim_end_matches('/');
        if self.0.iter().any(|(known, _)| known == prefix) {
            return false;
        }
        let at = self
            .0
            .partition_point(|(known, _)| known.len() > prefix.len());
        self.0.insert(at, (prefix.to_owned(), place));
        true
    }

    fn find(&self, path: &str) -> Option<usize> {
        self.0
            .iter()
            .find(|(prefix, _)| {
                path.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    || prefix.is_empty()
            })
            .map(|&(_, place)| place)
    }
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

    /// Adds a route; `false` if another pool has the same one already.
    pub fn add(&mut self, rule: &RouteRule, place: usize) -> bool {
        let paths = match rule.host.as_deref() {
            None | Some("*") => &mut self.any,
            Some(host) => {
                let host = normal_host(host);
                match host.strip_prefix("*.") {
                    Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default(),
                    None => self.exact.entry(host).or_default(),
                }
            }
        };
        paths.insert(&rule.path_prefix, place)
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

    fn route(&self, host: &str, path: &str) -> Option<usize> {
        let host = normal_host(host);
        self.exact
            .get(&host)
            .and_then(|paths| paths.find(path))
            .or_else(|| self.route_wildcard(&host, path))
            .or_else(|| self.any.find(path))
    }

    /// The longest suffix wins; `*.a.test` does not match `a.test` itself.
    fn route_wildcard(&self, host: &str, path: &str) -> Option<usize> {
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            let found = self.wildcard.get(suffix).and_then(|paths| paths.find(path));
            if found.is_some() {
                return found;
            }
            rest = suffix;
        }
        None
    }
}

/// Returns a `Host` as routes hold it: lowercase, without port and final dot.
fn normal_host(host: &str) -> String {
    let name = if let Some(end) = host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        &host[..end + 2]
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routing(rules: &[(Option<&str>, &str)]) -> Routing {
        let mut routing = Routing::default();
        for (place, (host, path_prefix)) in rules.iter().enumerate() {
            routing.add(
                &RouteRule::new(host.map(str::to_owned), *path_prefix),
                place,
            );
        }
        routing
    }

    #[test]
    fn exact_host_beats_wildcard_beats_any() {
        let routing = routing(&[
            (None, "/"),
            (Some("*.a.test"), "/"),
            (Some("*.b.a.test"), "/"),
            (Some("x.a.test"), "/"),
            (Some("only.test"), "/here"),
        ]);
        for (host, place) in [
            ("x.a.test", 3),
            ("X.A.Test:8080", 3),
            ("x.a.test.", 3),
            ("y.a.test", 1),
            ("z.y.a.test", 1),
            ("c.b.a.test", 2),
            ("a.test", 0),
            ("other", 0),
            ("", 0),
            ("[::1]:80", 0),
            ("only.test", 0),
        ] {
            assert_eq!(routing.route(host, "/"), Some(place), "{host}");
        }
        assert_eq!(routing.route("only.test", "/here/it/is"), Some(4));
    }

    #[test]
    fn longest_prefix_wins_and_matches_whole_segments() {
        let routing = routing(&[(None, "/api"), (None, "/api/v2/"), (None, "/apis")]);
        for (path, place) in [
            ("/api", Some(0)),
            ("/api/", Some(0)),
            ("/api/v2", Some(1)),
            ("/api/v2/x", Some(1)),
            ("/api/v22", Some(0)),
            ("/apis/x", Some(2)),
            ("/apia", None),
            ("/", None),
        ] {
            assert_eq!(routing.route("h", path), place, "{path}");
        }
    }

    #[test]
    fn first_of_two_equal_routes_or_ports_stays() {
        let mut routing = routing(&[(Some("a"), "/x")]);
        let rule = RouteRule::new(Some("A".to_owned()), "/x/");
        assert!(!routing.add(&rule, 1));
        assert!(routing.publish(80, Protocol::Http, 0));
        assert!(!routing.publish(80, Protocol::Tcp, 1));
        assert_eq!(routing.ports(), [(80, Protocol::Http)]);
    }

    proptest! {
        #[test]
        fn prop_any_host_and_path_is_routed_without_a_panic(host in ".{0,40}", path in ".{0,40}") {
            let routing = routing(&[(Some("*.a"), "/"), (Some("b"), "/x"), (None, "/")]);
            prop_assert!(routing.route(&host, &path).is_some());
        }
    }
}
