//! Many tasks at once. How fast, and what they cost, `cargo xtask bench scale` measures.

mod common;

use ballast_model::TaskState;
use common::{Harness, Service, eventually};

#[test]
fn tasks_of_one_set_all_come_to_run() {
    const TASKS: u32 = 50;
    let mut service = Service::shell("");
    service.template.command = vec!["/bin/sleep".to_owned(), "1000".to_owned()];
    let mut node = Harness::new();
    node.assign(&[(service, TASKS)]);
    eventually("all tasks", || {
        let states = node.agent().count_by_state();
        states.get(&TaskState::Running) == Some(&(TASKS as usize))
    });
}
