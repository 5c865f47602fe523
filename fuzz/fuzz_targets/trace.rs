//! Lists of nodes and tasks, and the short forms of made-up ones.
#![no_main]

use ballast_simulate::trace::{Generated, Uniform, read_nodes, read_tasks};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = read_nodes(bytes);
    let _ = read_tasks(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Uniform>();
        let _ = text.parse::<Generated>();
    }
});
