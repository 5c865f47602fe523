//! What must outlive a table: shared by the pools of one name that follow each other.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{RetryBudget, Settings};

/// The state of a pool across tables; see the module.
#[derive(Debug)]
pub struct PoolState {
    settings: ArcSwap<Settings>,
    /// What is left of the retries.
    pub budget: RetryBudget,
}

impl PoolState {
    /// Makes one that nothing has happened to.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            budget: RetryBudget::default(),
        })
    }

    /// Returns the settings that count now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Takes other settings, if they are.
    pub fn set(&self, settings: &Settings) {
        if **self.settings.load() != *settings {
            self.settings.store(Arc::new(settings.clone()));
        }
    }
}

impl Default for PoolState {
    fn default() -> Self {
        Self {
            settings: ArcSwap::from_pointee(Settings::default()),
            budget: RetryBudget::default(),
        }
    }
}
