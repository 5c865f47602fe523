//! `--publish` arguments.
#![no_main]

use ballast_model::PortSpec;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(port) = text.parse::<PortSpec>() {
        assert!(port.published.is_some_and(|number| number > 0) && !port.name.is_empty());
    }
});
