//! What the reconciler does, as facts about a small cluster (`crate::fixture`).

mod chaos;
mod failure;
mod modes;
mod moves;
mod placing;
mod recovery;
mod rules;
mod scaling;
mod update;

use ballast_model::{Mode, ServiceSpec};

use crate::fixture::spec;

fn spec_global(name: &str) -> ServiceSpec {
    let mut spec = spec(name, 0);
    spec.mode = Mode::Global {};
    spec
}
