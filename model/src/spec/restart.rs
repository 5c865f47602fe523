//! What happens when a task ends.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Whether, how soon and how often a task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartPolicy {
    /// Which ends are followed by another try.
    pub condition: RestartCondition,
    /// Before the second restart in a row; the first is immediate. Doubles with each further one up
    /// to `max_delay`.
    #[schema(value_type = String, example = "100ms")]
    pub delay: Millis,
    /// The longest delay of the backoff.
    #[schema(value_type = String, example = "30s")]
    pub max_delay: Millis,
    /// Restarts allowed within `window`; 0 sets no limit. When they are used up the slot stays
    /// failed and says so.
    pub max_attempts: u32,
    /// A task that ran this long starts the count and the backoff anew.
    #[schema(value_type = String, example = "10s")]
    pub window: Millis,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Millis(100),
            max_delay: Millis::from_secs(30),
            max_attempts: 0,
            window: Millis::from_secs(10),
        }
    }
}

/// Which ends of a task are followed by another try.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RestartCondition {
    /// Every one.
    #[default]
    Any,
    /// Exit status other than 0, a signal, or a failed health check.
    OnFailure,
    /// None.
    None,
}

impl RestartPolicy {
    /// Returns how long to wait before restart number `nth` in a row (from 1).
    ///
    /// The first is immediate: a replica that ran well and died is replaced at once. From the
    /// second on the delay doubles, so that a crash loop does not eat the node.
    pub fn delay_before(&self, nth: u32) -> Millis {
        match nth {
            0 | 1 => Millis(0),
            _ => {
                let doublings = (nth - 2).min(40);
                Millis(
                    self.delay
                        .0
                        .saturating_mul(1 << doublings)
                        .min(self.max_delay.0),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_bound() {
        let policy = RestartPolicy::default();
        let delays: Vec<u64> = (1..=5).map(|nth| policy.delay_before(nth).0).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800]);
        assert_eq!(policy.delay_before(u32::MAX), policy.max_delay);
    }
}
