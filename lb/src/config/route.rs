//! The routes of the file.

use ballast_model::RouteRule;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig};

/// A stand-alone route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// What it matches; everything if left out.
    #[serde(default, rename = "match")]
    pub matches: RawMatch,
    /// Where it leads.
    pub service: Spanned<String>,
}

/// What a route matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMatch {
    /// Exact host, `*.suffix`, or none for any.
    pub host: Option<String>,
    /// Whole path segments.
    pub path_prefix: Option<Spanned<String>>,
}

impl RawConfig {
    pub(super) fn rule(&self, raw: &RawMatch) -> Result<RouteRule, ConfigError> {
        let path_prefix = match &raw.path_prefix {
            Some(prefix) if !prefix.value.starts_with('/') => {
                let message = format!("path prefix `{}` does not start with `/`", prefix.value);
                return Err(self.at(prefix, message));
            }
            Some(prefix) => prefix.value.clone(),
            None => "/".to_owned(),
        };
        Ok(RouteRule::new(raw.host.clone(), path_prefix))
    }
}
