//! What one request costs the generator's bookkeeping.

use std::hint::black_box;

use ballast_loadgen::recorder::Recorder;
use ballast_loadgen::sample::Sample;
use criterion::{Criterion, criterion_group, criterion_main};

/// Latencies as of a service on the same machine: 80 µs, spread over three octaves, with a tail.
fn samples() -> Vec<Sample> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..4096_u64)
        .map(|number| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let latency = 40_000 + state % 60_000 + if number % 100 == 0 { 2_000_000 } else { 0 };
            let due_ns = number * 50_000;
            Sample {
                number,
                target: 0,
                request: 0,
                due_ns,
                sent_ns: due_ns + 3_000,
                first_byte_ns: due_ns + latency,
                done_ns: due_ns + latency,
                received_bytes: 300,
                sent_bytes: 60,
                outcome: Ok(200),
            }
        })
        .collect()
}

fn recorder(criterion: &mut Criterion) {
    let samples = samples();
    let mut turn = samples.iter().cycle();
    let mut recorder = Recorder::new();
    criterion.bench_function("recorder/done/1x1", |bencher| {
        bencher.iter(|| recorder.done(black_box(turn.next().expect("cycles"))));
    });
    criterion.bench_function("recorder/released/1x1", |bencher| {
        bencher.iter(|| {
            let sample = turn.next().expect("cycles");
            recorder.released(black_box(sample.due_ns), black_box(sample.sent_ns));
        });
    });
    // Once a second, while requests are due: it must not make one late.
    criterion.bench_function("recorder/second/1x20000", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut recorder = Recorder::new();
                for sample in turn.by_ref().take(20_000) {
                    recorder.done(sample);
                }
                recorder
            },
            |recorder| recorder.tick(1_000_000_000),
            criterion::BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, recorder);
criterion_main!(benches);
