use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn sample(due_ns: u64, latency_ns: u64, outcome: crate::Result) -> Sample {
    Sample {
        number: 0,
        target: 0,
        request: 0,
        due_ns,
        sent_ns: due_ns + latency_ns / 4,
        first_byte_ns: due_ns + latency_ns / 2,
        done_ns: due_ns + latency_ns,
        received_bytes: 128,
        sent_bytes: 40,
        outcome,
    }
}

fn outcomes() -> impl Strategy<Value = crate::Result> {
    prop_oneof![
        Just(Ok(200)),
        Just(Ok(503)),
        prop::sample::select(ErrorClass::ALL.to_vec()).prop_map(Err),
    ]
}

fn histories() -> impl Strategy<Value = Vec<(u64, u64, u16, crate::Result)>> {
    let one = (0..20_000 * MS, 0..5_000 * MS, 0..3_u16, outcomes());
    prop::collection::vec(one, 0..80)
}

fn record(recorder: &mut Recorder, history: &[(u64, u64, u16, crate::Result)]) {
    let mut sorted = history.to_vec();
    sorted.sort_by_key(|one| one.0 + one.1);
    for (due, latency, target, outcome) in sorted {
        recorder.released(due, due);
        recorder.done(&Sample {
            target,
            ..sample(due, latency, outcome)
        });
    }
}

/// What must be equal however the samples were spread over recorders: everything but what a
/// point tells of threads and of what was in flight.
fn figures(recorder: &Recorder) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut recorder: Recorder =
        serde_json::from_value(serde_json::to_value(recorder).expect("serializes")).expect("reads");
    recorder.settle();
    let by_name: Vec<_> = recorder
        .histograms()
        .map(|(name, histogram)| (name, histogram.clone()))
        .to_vec();
    let points = recorder.series.points().iter().map(|point| {
        (
            point.done,
            point.errors,
            point.received_bytes,
            point.cells.clone(),
            point.latency_max_ns,
        )
    });
    let mut points: Vec<_> = points.collect();
    while points.last().is_some_and(|last| last.0 == 0) {
        points.pop();
    }
    let mut counts = recorder.counts.clone();
    (counts.cpu_ns, counts.wait_ns) = (0, 0);
    let targets = recorder.targets.clone();
    (
        by_name,
        points,
        counts,
        targets,
        recorder.statuses(),
        recorder.last_done_ns,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_merged_recorders_are_one_that_saw_everything(left in histories(), right in histories()) {
        let (mut a, mut b, mut both) = (Recorder::new(), Recorder::new(), Recorder::new());
        for recorder in [&mut a, &mut b, &mut both] {
            recorder.add_targets(2);
        }
        record(&mut a, &left);
        record(&mut b, &right);
        record(&mut both, &[left, right].concat());
        let mut merged = Recorder::new();
        merged.merge(&a);
        merged.merge(&b);
        prop_assert_eq!(figures(&merged), figures(&both));
    }

    #[test]
    fn prop_recorder_survives_its_way_over_the_wire(history in histories()) {
        let mut recorder = Recorder::new();
        record(&mut recorder, &history);
        let json = serde_json::to_string(&recorder).expect("serializes");
        let back: Recorder = serde_json::from_str(&json).expect("reads");
        prop_assert_eq!(figures(&back), figures(&recorder));
        prop_assert_eq!(serde_json::to_string(&back).expect("serializes"), json);
    }
}

#[test]
fn seconds_are_closed_by_ticks_and_by_samples() {
    let mut recorder = Recorder::new();
    recorder.done(&sample(0, 10 * MS, Ok(200)));
    recorder.tick(900 * MS);
    assert_eq!(recorder.series().points().len(), 0);
    recorder.tick(1_000 * MS);
    assert_eq!(recorder.series().points().len(), 1);
    recorder.done(&sample(1_500 * MS, 10 * MS, Ok(200)));
    recorder.done(&sample(3_100 * MS, 10 * MS, Err(ErrorClass::Reset)));
    recorder.finish(3_200 * MS);
    let done: Vec<_> = recorder
        .series()
        .points()
        .iter()
        .map(|p| (p.done, p.failed()))
        .collect();
    assert_eq!(done, [(1, 0), (1, 0), (0, 0), (1, 1)]);
    assert_eq!(recorder.histograms()[0].1.len(), 3);
}

#[test]
fn status_of_400_is_a_failure_unless_a_check_judges_it() {
    let mut recorder = Recorder::new();
    recorder.done(&sample(0, MS, Ok(404)));
    assert_eq!(recorder.counts().errors[ErrorClass::Status.index()], 1);
    recorder.judges_status = false;
    recorder.done(&sample(0, MS, Ok(404)));
    recorder.done(&sample(0, MS, Err(ErrorClass::Status)));
    assert_eq!(recorder.counts().errors[ErrorClass::Status.index()], 2);
    assert_eq!(recorder.counts().answered, 3);
    assert_eq!(recorder.statuses(), BTreeMap::from([(404, 2)]));
}

#[test]
fn request_that_was_never_sent_has_no_latency() {
    let mut recorder = Recorder::new();
    recorder.done(&sample(0, MS, Err(ErrorClass::Overload)));
    recorder.finish(MS);
    assert_eq!(recorder.counts().failed(), 1);
    assert!(recorder.histograms()[0].1.is_empty() && recorder.histograms()[1].1.is_empty());
}

#[test]
fn recorder_that_lost_its_histograms_is_refused() {
    let mut json = serde_json::to_value(Recorder::new()).expect("serializes");
    json["histograms"][2] = "AAAA".into();
    assert!(serde_json::from_value::<Recorder>(json.clone()).is_err());
    let other = Histogram::<u32>::new_with_bounds(1, 1000, 3).expect("fits");
    json["histograms"][2] = histogram_to_text(&other).into();
    assert!(serde_json::from_value::<Recorder>(json).is_err());
}

#[test]
fn onlooker_sees_what_a_lane_has_done() {
    let board = Board::new(1);
    let mut recorder = Recorder::new().seen_on(&board, 0);
    recorder.done(&sample(0, 10 * MS, Ok(200)));
    recorder.tick(500 * MS);
    board.look(|seen| assert_eq!((seen.counts.done, seen.series.points().len()), (1, 0)));
    recorder.tick(1_000 * MS);
    board.look(|seen| assert_eq!(seen.series.points()[0].done, 1));
}
