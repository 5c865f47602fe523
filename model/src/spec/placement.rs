//! Where tasks may run, where they would rather run, and who gives way to whom.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Constraint;
use crate::TaintEffect;

/// Where the tasks of a service run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// All must hold on a node, such as `node.labels.zone==b`.
    #[schema(value_type = Vec<String>, example = json!(["node.labels.zone==b"]))]
    pub constraints: Vec<Constraint>,
    /// What would be better or worse on a node.
    pub affinities: Vec<Affinity>,
    /// Near to or away from tasks of other services, or of this one.
    pub services: Vec<ServiceAffinity>,
    /// Over what its tasks are spread.
    pub spread: Vec<SpreadRule>,
    /// Which of the nodes that fit is best.
    pub policy: Policy,
    /// The most tasks of this service on one node; 0 sets no limit.
    pub max_replicas_per_node: u32,
    /// 0: sockets do not matter; 1: a task within one socket; n: evenly over n sockets. Holds on
    /// nodes that report their sockets; others are not taken.
    pub sockets: u8,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Its rank: higher ones are placed first and may take the place of lower ones.
    pub priority: i32,
    /// Whether it may stop tasks of lower priority to get their place.
    pub preempts: bool,
    /// Disruption budget: the most replicas that are moved or preempted at one time.
    #[schema(example = 1)]
    pub max_disrupted: u32,
    /// All missing replicas are placed together, or none.
    pub gang: bool,
    /// Whether its tasks may be moved to even out or empty nodes.
    pub rebalance: bool,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            constraints: Vec::new(),
            affinities: Vec::new(),
            services: Vec::new(),
            spread: Vec::new(),
            policy: Policy::Auto,
            max_replicas_per_node: 0,
            sockets: 0,
            tolerations: Vec::new(),
            priority: 0,
            preempts: true,
            max_disrupted: 1,
            gang: false,
            rebalance: true,
        }
    }
}

/// How nodes that fit are ranked.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The one that suits what is asked: devices are packed by what else may want them, the rest
    /// by fullness.
    #[default]
    Auto,
    /// The node that is fullest afterwards.
    Binpack,
    /// The node with the fewest tasks of this service, then the emptiest.
    Spread,
    /// Fragmentation gradient descent: the node on which the least room becomes useless to what
    /// is usually asked for (Weng et al., USENIX ATC'23).
    Fgd,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Binpack => "binpack",
            Self::Spread => "spread",
            Self::Fgd => "fgd",
        })
    }
}

/// A policy that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a policy; there are auto, binpack, spread and fgd")]
pub struct InvalidPolicy(String);

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        match text {
            "auto" => Ok(Self::Auto),
            "binpack" => Ok(Self::Binpack),
            "spread" => Ok(Self::Spread),
            "fgd" => Ok(Self::Fgd),
            _ => Err(InvalidPolicy(text.chars().take(32).collect())),
        }
    }
}

/// A wish: nodes where the condition holds are better, or with a negative weight worse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// The condition.
    #[schema(value_type = String, example = "node.labels.disk==ssd")]
    pub constraint: Constraint,
    /// −100 to 100.
    pub weight: i8,
}

/// Near to tasks of a service, or away from them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAffinity {
    /// The other service's name; empty or `self` for this service itself.
    #[serde(default)]
    pub service: String,
    /// What counts as near: one node, or one value of a label.
    #[serde(default)]
    #[schema(value_type = String, example = "node")]
    pub over: TopologyKey,
    /// −100 to 100; negative keeps away.
    pub weight: i8,
    /// A rule and not a wish.
    #[serde(default)]
    pub required: bool,
}

impl ServiceAffinity {
    /// Returns whether it is to the service that has it.
    pub fn is_own(&self) -> bool {
        self.service.is_empty() || self.service == "self"
    }
}

/// Evenly over nodes or label values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpreadRule {
    /// Over what.
    #[serde(default)]
    #[schema(value_type = String, example = "node.labels.zone")]
    pub over: TopologyKey,
    /// The most that one may have more than another that the task may run in, whether or not that
    /// has room; 0 makes it a wish without a limit.
    #[serde(default)]
    pub max_skew: u32,
}

/// What makes two nodes one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TopologyKey {
    /// `node`: each is a place of its own.
    #[default]
    Node,
    /// `node.labels.KEY`: those with the same value of this label.
    Label(String),
}

impl fmt::Display for TopologyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Label(key) => write!(f, "node.labels.{key}"),
        }
    }
}

impl FromStr for TopologyKey {
    type Err = Infallible;

    /// Reads `node`, `node.labels.KEY` or a bare label key.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "" | "node" | "node.id" | "node.name" | "node.hostname" => Self::Node,
            _ => Self::Label(text.strip_prefix("node.labels.").unwrap_or(text).to_owned()),
        })
    }
}

impl Serialize for TopologyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopologyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or_default())
    }
}

/// A taint that a service bears.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; empty bears every key.
    pub key: String,
    /// Its value; none bears every value.
    pub value: Option<String>,
    /// Its effect; none bears every effect.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Returns whether it bears this taint.
    pub fn bears(&self, taint: &crate::Taint) -> bool {
        (self.key.is_empty() || self.key == taint.key)
            && self
                .value
                .as_ref()
                .is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Taint;

    #[test]
    fn topology_keys_read_and_print() {
        for (text, key) in [
            ("node", TopologyKey::Node),
            ("node.labels.rack", TopologyKey::Label("rack".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(key.clone()));
            assert_eq!(key.to_string(), text);
        }
        assert_eq!("rack".parse(), Ok(TopologyKey::Label("rack".to_owned())));
    }

    #[test]
    fn a_toleration_bears_what_it_does_not_narrow() {
        let taint = Taint {
            key: "gpu".to_owned(),
            value: "yes".to_owned(),
            effect: TaintEffect::NoSchedule,
        };
        let mut bears = Toleration::default();
        assert!(bears.bears(&taint));
        bears.key = "gpu".to_owned();
        assert!(bears.bears(&taint));
        bears.value = Some("no".to_owned());
        assert!(!bears.bears(&taint));
        bears.value = None;
        bears.effect = Some(TaintEffect::NoExecute);
        assert!(!bears.bears(&taint));
    }
}
