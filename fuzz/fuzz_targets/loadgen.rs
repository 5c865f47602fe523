//! What the load generator reads of its user: URLs, rates, times, profiles, objectives, checks,
//! templates, and files of profiles and logs.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use ballast_loadgen::Slo;
use ballast_loadgen::plan::profile_file::{Interpolation, ProfileFile};
use ballast_loadgen::plan::replay::{Replay, ReplayOptions};
use ballast_loadgen::plan::units::{self, Cores};
use ballast_loadgen::plan::{Check, Template, Url, Wave};

/// Holds that what is no value says so in words.
fn read<T: FromStr<Err: Display>>(text: &str) {
    if let Err(error) = text.parse::<T>() {
        assert!(!error.to_string().is_empty());
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    read::<Url>(text);
    read::<Slo>(text);
    read::<Check>(text);
    read::<Cores>(text);
    read::<Wave>(text);
    for rate in [units::rate(text), units::rate_or_zero(text)] {
        assert!(rate.is_err() || rate.is_ok_and(|rate| rate.is_finite() && rate >= 0.0));
    }
    if let Ok(span) = units::span(text) {
        assert!(!span.is_zero());
    }
    let _ = units::share(text);
    if let Ok(template) = Template::parse(text) {
        // It prints as what reads as the same, unless braces were escaped.
        let again = Template::parse(&template.to_string());
        assert!(text.contains('\\') || again == Ok(template));
    }
    let _ = ProfileFile::from_csv(text, Interpolation::Linear);
    for lenient in [false, true] {
        let options = ReplayOptions { speed: 1.0, lenient };
        if let Ok(replay) = Replay::read(text.as_bytes(), options) {
            let _ = replay.duration();
        }
    }
});
