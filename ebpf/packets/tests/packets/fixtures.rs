//! Every fixture, on the host function and through `BPF_PROG_TEST_RUN`.

use anyhow::{Context, bail, ensure};
use ballast_ebpf_common::Action;
use ballast_ebpf_common::host::{Outcome, World};
use ballast_ebpf_common::layout::Verdict;
use ballast_ebpf_packets::describe::{Scene as Names, packet};
use ballast_ebpf_packets::{Fixture, Kernel, Program, Scene, Sizes, Step, address};

/// At least so many: what the issue of the balancer asks for.
const FIXTURES: usize = 150;

pub const FILES: &[(&str, &str)] = &[
    ("forward", include_str!("../../fixtures/forward.txt")),
    ("refuse", include_str!("../../fixtures/refuse.txt")),
    ("icmp", include_str!("../../fixtures/icmp.txt")),
    ("flows", include_str!("../../fixtures/flows.txt")),
    ("nat", include_str!("../../fixtures/nat.txt")),
    ("quic", include_str!("../../fixtures/quic.txt")),
    ("decap", include_str!("../../fixtures/decap.txt")),
];

#[test]
fn packets_come_out_as_written_on_the_host_and_in_the_kernel() {
    let mut kernel = super::kernel(Sizes::SMALL);
    let mut failures = Vec::new();
    let mut count = 0;
    for (file, text) in FILES {
        for fixture in ballast_ebpf_packets::fixtures(text).expect("fixtures can be read") {
            count += 1;
            if let Err(error) = play(&fixture, kernel.as_mut()) {
                failures.push(format!("{file}: {}: {error:#}", fixture.name));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count >= FIXTURES, "{count} fixtures");
}

fn play(fixture: &Fixture, mut kernel: Option<&mut Kernel>) -> anyhow::Result<()> {
    let mut scene = Scene::new()?;
    let mut world = World::new(scene.tables.clone());
    if let Some(kernel) = kernel.as_deref_mut() {
        kernel.fill(&scene.tables)?;
    }
    let mut sent_from = 0;
    for step in &fixture.steps {
        match step {
            Step::Set(words) => {
                scene.set(&words.split_whitespace().collect::<Vec<_>>())?;
                world.tables = scene.tables.clone();
                if let Some(kernel) = kernel.as_deref_mut() {
                    kernel.reconfigure(&scene.tables)?;
                }
            }
            Step::Packet {
                input,
                output,
                node,
            } => {
                let names = |input, actual| Names {
                    address: &address,
                    input,
                    actual,
                    sent_from,
                };
                let bytes = packet(input, names(&[], &[])).with_context(|| input.clone())?;
                let host = if *node {
                    world.decapsulate(&bytes)
                } else {
                    world.balance(&bytes)
                };
                check(&host, output, &bytes, names(&bytes, &host.packet))
                    .with_context(|| format!("host: in {input}"))?;
                if let Some(kernel) = kernel.as_deref() {
                    let program = if *node {
                        Program::Decapsulate
                    } else {
                        Program::Balance
                    };
                    let there = kernel.run(program, &bytes)?;
                    same(&host, &there).with_context(|| format!("kernel: in {input}"))?;
                }
                sent_from = source_port(&host.packet);
            }
            Step::Count(label, times) => {
                let verdict = Verdict::ALL.iter().find(|verdict| verdict.label() == label);
                let verdict = *verdict.with_context(|| format!("no verdict is called {label}"))?;
                let sum = (0..Scene::rows())
                    .map(|row| world.count(row, verdict))
                    .sum::<u64>();
                ensure!(
                    sum == *times,
                    "host: {label} counted {sum} times, not {times}"
                );
                if let Some(kernel) = kernel.as_deref() {
                    let mut sum = 0;
                    for row in 0..Scene::rows() {
                        sum += kernel.verdicts(row)?[verdict as usize];
                    }
                    ensure!(
                        sum == *times,
                        "kernel: {label} counted {sum} times, not {times}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Returns the source port of an IP packet without options.
fn source_port(packet: &[u8]) -> u16 {
    let at = if packet.get(12) == Some(&0x86) {
        54
    } else {
        34
    };
    let bytes = packet.get(at..at + 2).unwrap_or(&[0, 0]);
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn check(outcome: &Outcome, output: &str, input: &[u8], names: Names<'_>) -> anyhow::Result<()> {
    let (word, rest) = output.split_once(' ').unwrap_or((output, ""));
    let action = match word {
        "drop" => Action::Drop,
        "pass" => Action::Pass,
        "tx" => Action::Transmit,
        "redirect" => Action::Redirect,
        other => bail!("no action is called {other}"),
    };
    ensure!(
        outcome.action == action,
        "{:?} instead of {action:?}: {}",
        outcome.action,
        hex(&outcome.packet)
    );
    if action == Action::Redirect {
        ensure!(
            outcome.egress == Some(7),
            "redirected to {:?}",
            outcome.egress
        );
    }
    if action == Action::Drop {
        return Ok(());
    }
    let wanted = if rest.is_empty() {
        input.to_vec()
    } else {
        packet(rest, names).with_context(|| rest.to_owned())?
    };
    ensure!(
        outcome.packet == wanted,
        "\n  came   {}\n  wanted {}",
        hex(&outcome.packet),
        hex(&wanted)
    );
    Ok(())
}

/// Compares what the kernel did with what the host did.
pub fn same(host: &Outcome, kernel: &Outcome) -> anyhow::Result<()> {
    ensure!(
        host.action == kernel.action,
        "{:?} on the host, {:?} in the kernel",
        host.action,
        kernel.action
    );
    ensure!(
        host.action == Action::Drop || host.packet == kernel.packet,
        "\n  host   {}\n  kernel {}",
        hex(&host.packet),
        hex(&kernel.packet)
    );
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
