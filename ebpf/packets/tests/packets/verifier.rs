//! What the programs cost the kernel's verifier, held against what is written down.

use ballast_ebpf_packets::{Program, Sizes, sys};

/// The record: a line for each program, made on one kernel release.
const RECORD: &str = include_str!("../../verifier.txt");
/// Growth that is let through, in percent.
const GROWTH: u64 = 10;

#[test]
fn programs_cost_the_verifier_no_more_than_recorded() {
    let Some(kernel) = super::kernel(Sizes::SMALL) else {
        return;
    };
    let here = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release: Vec<&str> = here.trim().split('.').take(2).collect();
    let release = release.join(".");
    let mut lines = RECORD.lines().filter(|line| !line.starts_with('#'));
    let recorded = lines.next().and_then(|line| line.strip_prefix("kernel "));
    let comparable = recorded == Some(release.as_str());
    let mut failures = Vec::new();
    for (name, program) in [
        ("ballast_balance", Program::Balance),
        ("ballast_decap", Program::Decapsulate),
    ] {
        let cost = sys::cost(kernel.program(program)).expect("the kernel tells");
        println!("{name} verified {} frame {}", cost.verified, cost.frame);
        let line = RECORD.lines().find(|line| line.starts_with(name));
        let numbers: Vec<u64> = line
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [verified, frame] = numbers[..] else {
            panic!("{name} has no line in the record");
        };
        for (what, now, then) in [
            ("instructions verified", cost.verified, verified),
            ("bytes of the largest frame", cost.frame, frame),
        ] {
            if now * 100 > then * (100 + GROWTH) {
                failures.push(format!("{name}: {now} {what}, {then} in the record"));
            }
        }
    }
    if comparable {
        assert!(
            failures.is_empty(),
            "{failures:?}: update verifier.txt if that is meant"
        );
    } else {
        println!("SKIP: recorded on kernel {recorded:?}, this is {release}: {failures:?}");
    }
}
