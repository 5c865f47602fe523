//! Placement constraints, one a line: each reads or is refused, prints as it reads, takes any value,
//! and together they are judged for contradictions.
#![no_main]

use ballast_model::{Constraint, contradiction};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.lines().take(8).collect();
    for line in &lines {
        ballast_fuzz::hold_text::<Constraint>(line);
    }
    let read = lines.iter().filter_map(|line| line.parse::<Constraint>().ok());
    let constraints: Vec<Constraint> = read.collect();
    for value in lines.iter().copied().map(Some).chain([None]) {
        let met = constraints.iter().all(|c| c.condition.holds(value));
        // Of one property, as a value that meets them all proves that they can hold together.
        let alike = constraints.windows(2).all(|pair| pair[0].key == pair[1].key);
        assert!(!(met && alike && contradiction(&constraints).is_some()));
    }
});
