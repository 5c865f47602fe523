//! What a bench found.

use serde_json::{Value, json};

use crate::figures::Figures;
use crate::machine;

/// What a bench found.
#[derive(Debug)]
pub struct Bench {
    /// Its name.
    pub name: &'static str,
    /// What it measured.
    pub figures: Figures,
    /// What the figures were made of.
    pub raw: Value,
    /// What it could not measure, and why.
    pub missing: Vec<String>,
}

impl Bench {
    /// Returns a bench that found nothing yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            figures: Figures::default(),
            raw: json!({}),
            missing: Vec::new(),
        }
    }

    /// Returns everything, with the machine and the commit, for `bench/runs/`.
    pub fn to_json(&self) -> Value {
        json!({
            "bench": self.name,
            "command": format!("cargo xtask bench {}", self.name),
            "commit": machine::commit(),
            "machine": machine::describe(),
            "figures": self.figures.to_json(),
            "not_measured": self.missing,
            "raw": self.raw,
        })
    }
}
