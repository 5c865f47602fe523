//! The routes of the file.

use std::collections::{BTreeMap, HashSet};

use ballast_model::{
    FieldMatch, Generation, PortTable, Protocol, RouteActions, RouteMatch, RouteRule, ServiceId,
    ServiceTable, validate_route,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig, stable_hash, with_nearest};

/// The service of routes that need none, since the ingress answers them itself.
const ANSWERS: &str = "ingress";

/// A stand-alone route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// What it matches; everything if left out.
    #[serde(default, rename = "match")]
    pub matches: RawMatch,
    /// Where it leads. May be left out if `then` says where, or answers.
    #[serde(default)]
    pub service: Option<Spanned<String>>,
    /// What is done besides forwarding.
    #[serde(default)]
    pub then: RouteActions,
}

/// What a route matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMatch {
    /// Exact host, `*.suffix`, or none for any.
    pub host: Option<String>,
    /// Whole path segments.
    pub path_prefix: Option<Spanned<String>>,
    /// See [`RouteMatch::path`].
    pub path: Option<String>,
    /// See [`RouteMatch::methods`].
    pub methods: Vec<String>,
    /// See [`RouteMatch::headers`].
    pub headers: Vec<FieldMatch>,
    /// See [`RouteMatch::query`].
    pub query: Vec<FieldMatch>,
    /// See [`RouteMatch::cookies`].
    pub cookies: Vec<FieldMatch>,
}

impl RawConfig {
    /// Returns the rules of each service.
    pub(super) fn rules(&self) -> Result<BTreeMap<String, Vec<RouteRule>>, ConfigError> {
        let mut rules: BTreeMap<String, Vec<RouteRule>> = BTreeMap::new();
        let mut known = HashSet::new();
        for route in &self.routes {
            let service = self.owner(route)?;
            let rule = self.rule(route)?;
            let host = rule.host.as_ref().map(|host| host.to_ascii_lowercase());
            let path = rule.path_prefix.trim_end_matches('/').to_owned();
            if !known.insert((host, path, rule.when.clone())) {
                let message = "another route matches the same requests: this one never would";
                return Err(self.at(route, message.to_owned()));
            }
            rules.entry(service).or_default().push(rule);
        }
        Ok(rules)
    }

    /// Returns the service that a route belongs to, and proves those that it names.
    fn owner(&self, route: &Spanned<RawRoute>) -> Result<String, ConfigError> {
        let then = &route.value.then;
        if let Some(service) = &route.value.service {
            self.known(service, &service.value)?;
        }
        let shares = then.split.to.iter().map(|share| &share.service);
        for name in shares.chain(then.mirror.iter().map(|mirror| &mirror.service)) {
            self.known(route, name)?;
        }
        let split = then.split.to.first().map(|share| share.service.clone());
        let answers = then.redirect.is_some() || then.maintenance.is_some();
        let named = route.value.service.as_ref();
        let owner = named.map(|service| service.value.clone()).or(split);
        match owner {
            Some(service) => Ok(service),
            None if answers => Ok(ANSWERS.to_owned()),
            None => {
                let message = "a route needs a `service`, a `split`, or an answer of its own";
                Err(self.at(route, message.to_owned()))
            }
        }
    }

    fn known<T>(&self, place: &Spanned<T>, name: &str) -> Result<(), ConfigError> {
        let services = self.services.iter().flatten();
        let mut names = services.map(|(name, _)| name.as_str());
        if names.clone().any(|known| known == name) {
            return Ok(());
        }
        let message = format!("no service is called `{name}`");
        Err(self.at(place, with_nearest(message, name, names.by_ref())))
    }

    fn rule(&self, route: &Spanned<RawRoute>) -> Result<RouteRule, ConfigError> {
        let raw = &route.value.matches;
        let path_prefix = match &raw.path_prefix {
            Some(prefix) if !prefix.value.starts_with('/') => {
                let message = format!("path prefix `{}` does not start with `/`", prefix.value);
                return Err(self.at(prefix, message));
            }
            Some(prefix) => prefix.value.clone(),
            None => "/".to_owned(),
        };
        let rule = RouteRule {
            host: raw.host.clone(),
            path_prefix,
            when: RouteMatch {
                path: raw.path.clone(),
                methods: raw.methods.clone(),
                headers: raw.headers.clone(),
                query: raw.query.clone(),
                cookies: raw.cookies.clone(),
            },
            then: route.value.then.clone(),
        };
        validate_route("route", &rule.path_prefix, &rule.when, &rule.then)
            .map_err(|error| self.at(route, error.to_string().replace("route.when.", "match.")))?;
        Ok(rule)
    }
}

/// Returns the table of the routes that belong to no service.
pub(super) fn answers(rules: Vec<RouteRule>) -> ServiceTable {
    ServiceTable {
        service: ServiceId::from_bits(stable_hash(&[ANSWERS, ""])),
        name: ANSWERS.to_owned(),
        generation: Generation(0),
        ports: vec![PortTable {
            name: "http".to_owned(),
            protocol: Protocol::Http,
            published: None,
            routes: rules,
            endpoints: Vec::new(),
            balance: None,
            upstream: None,
        }],
    }
}
