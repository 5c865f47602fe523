//! How tasks are replaced when a spec changes.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// A rolling update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdatePolicy {
    /// Whether the new task runs before the old one stops.
    pub order: UpdateOrder,
    /// Slots replaced at once; 0 means all.
    pub parallelism: u32,
    /// Between two batches.
    #[schema(value_type = String, example = "0s")]
    pub delay: Millis,
    /// What happens when a new task fails before it was healthy.
    pub failure_action: UpdateFailureAction,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            order: UpdateOrder::StartFirst,
            parallelism: 1,
            delay: Millis(0),
            failure_action: UpdateFailureAction::Pause,
        }
    }
}

/// Whether the new task runs before the old one stops.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// New healthy, then old stopped: no capacity is lost.
    #[default]
    StartFirst,
    /// Old stopped, then new started: for programs that cannot run twice.
    StopFirst,
}

/// What happens when a new task fails before it was healthy.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateFailureAction {
    /// The rest keep the old version until the user decides.
    #[default]
    Pause,
    /// Back to the spec before.
    Rollback,
    /// Carry on.
    Continue,
}
