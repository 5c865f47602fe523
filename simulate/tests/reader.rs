//! The readers of lists: what they take, what they refuse and where, and that no input panics.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ballast_model::{Bytes, MilliCpu, Millis};
use ballast_simulate::numa::{Strategy as Bound, read_hosts, read_racks, read_requests};
use ballast_simulate::trace::{
    Generated, Jumps, Problem, TraceError, TraceTasks, Uniform, read_nodes, read_tasks,
};
use proptest::prelude::*;

fn tasks(csv: &str) -> Result<TraceTasks, TraceError> {
    read_tasks(csv.as_bytes())
}

fn problem(csv: &str) -> Problem {
    match tasks(csv) {
        Err(TraceError::Value { problem, .. }) => problem,
        other => panic!("{csv}: {other:?}"),
    }
}

#[test]
fn columns_are_found_by_name_and_absent_ones_have_defaults() {
    let list =
        tasks("gpu_spec,memory_mib,extra,cpu_milli,num_gpu\nT4|A10|T4,2,x,1,2\n\n,4,y,3,0\n");
    let list = list.expect("reads").tasks;
    assert_eq!(list.len(), 2);
    let first = &list[0];
    assert_eq!((first.name.as_str(), first.line), ("task-0", 2));
    assert_eq!(first.shape.cpu, MilliCpu(1));
    assert_eq!(first.shape.memory, Bytes::from_mib(2));
    assert_eq!((first.shape.gpus, first.shape.gpu_milli), (2, 1000));
    assert_eq!(first.shape.models, ["A10", "T4"]);
    assert_eq!((first.created, first.deleted), (None, None));
    assert_eq!((list[1].shape.gpus, list[1].shape.gpu_milli), (0, 0));
    assert_eq!(list[1].line, 4);
    let nodes = read_nodes(b"\xef\xbb\xbfcpu_milli,memory_mib\r\n 1 , 2.0 \r\n").expect("reads");
    assert_eq!(
        (
            nodes[0].name.as_str(),
            nodes[0].gpus,
            nodes[0].model.as_str()
        ),
        ("node-0", 0, "")
    );
}

#[test]
fn numbers_are_whole_finite_and_sane_or_refused() {
    let ask = |value: &str| problem(&format!("cpu_milli,memory_mib\n{value},1\n"));
    assert_eq!(ask(""), Problem::Missing);
    assert_eq!(ask("x"), Problem::NotANumber);
    assert_eq!(ask("1 2"), Problem::NotANumber);
    for value in ["NaN", "nan", "inf", "-inf", "1e999"] {
        assert_eq!(ask(value), Problem::NotFinite, "{value}");
    }
    assert_eq!(ask("-1"), Problem::Negative);
    assert_eq!(ask("-0.5"), Problem::Negative);
    assert_eq!(ask("0.5"), Problem::Fraction);
    let absurd = Problem::Absurd {
        most: 1_024_000,
        unit: "milli-cores",
    };
    for value in [
        "1024001",
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
    ] {
        assert_eq!(ask(value), absurd, "{value}");
    }
    let one = tasks("cpu_milli,memory_mib\n1.5e1,0\n").expect("reads");
    assert_eq!(one.tasks[0].shape.cpu, MilliCpu(15));
    assert_eq!(
        problem("cpu_milli,memory_mib,num_gpu\n1,1,17\n"),
        Problem::Absurd {
            most: 16,
            unit: "GPUs of a task"
        }
    );
}

#[test]
fn shares_of_gpus_make_sense_or_are_refused() {
    let ask = |row: &str| tasks(&format!("cpu_milli,memory_mib,num_gpu,gpu_milli\n{row}\n"));
    for (row, milli) in [("1,1,1,300", 300), ("1,1,4,1000", 1000), ("1,1,0,700", 0)] {
        assert_eq!(
            ask(row).expect("reads").tasks[0].shape.gpu_milli,
            milli,
            "{row}"
        );
    }
    for row in ["1,1,1,0", "1,1,2,500"] {
        assert!(
            matches!(ask(row), Err(TraceError::Row { line: 2, .. })),
            "{row}"
        );
    }
}

#[test]
fn times_that_go_backwards_are_counted_and_ends_before_beginnings_refused() {
    let header = "cpu_milli,memory_mib,creation_time,deletion_time";
    let list = tasks(&format!(
        "{header}\n1,1,100,\n1,1,40,40\n1,1,90.5,100\n1,1,30,31\n"
    ));
    let list = list.expect("reads");
    let jumps = Jumps {
        rows: 2,
        farthest: Millis(60_500),
        first_line: 3,
    };
    assert_eq!(list.jumps, jumps);
    assert_eq!(list.tasks[2].created, Some(Millis(90_500)));
    assert_eq!(list.tasks[0].deleted, None);
    assert!(matches!(
        tasks(&format!("{header}\n1,1,5,4\n")),
        Err(TraceError::Row { line: 2, .. })
    ));
    assert_eq!(
        problem(&format!("{header}\n1,1,1e12,\n")),
        Problem::Absurd {
            most: 100_000_000_000,
            unit: "seconds"
        }
    );
}

#[test]
fn what_is_no_list_says_what_it_is() {
    assert_eq!(tasks(" \n\t"), Err(TraceError::Empty));
    assert_eq!(tasks("cpu_milli,memory_mib\n"), Err(TraceError::NoRows));
    assert_eq!(
        tasks("a,cpu_milli,a\n1,1,1\n"),
        Err(TraceError::ColumnTwice("a".to_owned()))
    );
    assert_eq!(
        tasks("cpu_milli,memory_mb\n1,1\n"),
        Err(TraceError::MissingColumn {
            column: "memory_mib",
            found: vec!["cpu_milli".to_owned(), "memory_mb".to_owned()],
            nearest: Some("memory_mb".to_owned()),
        })
    );
    let twice = read_nodes(b"sn,cpu_milli,memory_mib\na,1,1\nb,1,1\na,1,1\n");
    assert!(
        matches!(
            twice,
            Err(TraceError::Value {
                line: 4,
                problem: Problem::Twice(2),
                ..
            })
        ),
        "{twice:?}"
    );
    assert_eq!(
        read_nodes(b"cpu_milli,memory_mib\n1,\xff\n"),
        Err(TraceError::NotUtf8 { line: 2 })
    );
}

#[test]
fn short_forms_read_and_refuse_by_part() {
    let uniform: Uniform = "uniform:3:4000:8192:2".parse().expect("reads");
    assert_eq!(
        (uniform.count, uniform.cpu, uniform.gpus),
        (3, MilliCpu(4000), 2)
    );
    assert_eq!(uniform.nodes().len(), 3);
    for (text, part) in [
        ("uniform:0:1:1", "COUNT"),
        ("uniform:99999999:1:1", "COUNT"),
        ("uniform:1:-1:1", "CPU_MILLI"),
        ("uniform:1:1:NaN", "MEMORY_MIB"),
        ("uniform:1:1:1:17", "GPUS"),
        ("uniform:1:1:1:1:1", "COUNT:CPU_MILLI"),
    ] {
        let error = text.parse::<Uniform>().expect_err(text).to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!("generated:5:9".parse(), Ok(Generated { count: 5, seed: 9 }));
    for text in [
        "generated:",
        "generated:0",
        "generated:1e99",
        "generated:1:x",
        "generated:1:1:1",
    ] {
        assert!(text.parse::<Generated>().is_err(), "{text}");
    }
}

#[test]
fn lists_of_virtual_machines_refuse_what_they_do_not_know() {
    let racks = read_racks(b"host_id,rack_id\nhost-0,7\n").expect("reads");
    let hosts = read_hosts(b"CPU1,RAM1,CPU2,RAM2\n4,8,0,0\n", &racks).expect("reads");
    assert_eq!(
        (hosts[0].rack.as_str(), hosts[0].sockets[0].cpu),
        ("7", MilliCpu(4000))
    );
    let two = read_hosts(b"CPU1,RAM1,CPU2,RAM2\n4,8,0,0\n4,8,0,0\n", &racks);
    assert!(
        matches!(two, Err(TraceError::Row { line: 3, .. })),
        "{two:?}"
    );
    let header = "flavor_vcpus,flavor_ram,numa,strategy,group,domain\n";
    let ask = |row: &str| read_requests(format!("{header}{row}\n").as_bytes());
    let bound = ask("2,4,2,fault_domain,5,1").expect("reads")[0].bound;
    assert_eq!(bound, Some((5, Bound::FaultDomain { domain: 1 })));
    for row in [
        "2,4,0,,,",
        "2,4,3,,,",
        "2,4,1,close,1,",
        "2,4,1,affinity,,",
        "2,4,1,fault_domain,1,",
    ] {
        assert!(ask(row).is_err(), "{row}");
    }
}

/// Text that looks like a list: known columns, and values on either side of what is right.
fn list() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "cpu_milli",
        "memory_mib",
        "num_gpu",
        "gpu_milli",
        "gpu_spec",
        "creation_time",
        "deletion_time",
        "sn",
        "gpu",
        "model",
        "CPU1",
        "RAM1",
        "CPU2",
        "RAM2",
        "numa",
        "group",
        "strategy",
        "domain",
        "flavor_vcpus",
        "flavor_ram",
        "host_id",
        "rack_id",
        "0",
        "1",
        "1000",
        "-1",
        "NaN",
        "1e309",
        "0.5",
        "",
        "\"",
        "\"a\n\"",
        "99999999999999999999",
        "A|B",
        "host-0",
        "affinity",
        "fault_domain",
        "\u{feff}",
        "é",
    ]);
    let row = prop::collection::vec(word, 0..8).prop_map(|words| words.join(","));
    prop::collection::vec(row, 0..8).prop_map(|rows| rows.join("\n"))
}

fn read_all(bytes: &[u8]) {
    let _ = read_nodes(bytes);
    let _ = read_tasks(bytes);
    let _ = read_racks(bytes);
    let _ = read_requests(bytes);
    let _ = read_hosts(
        bytes,
        &BTreeMap::from([("host-0".to_owned(), "a".to_owned())]),
    );
}

proptest! {
    #[test]
    fn prop_garbage_is_an_error_not_a_panic(bytes: Vec<u8>, list in list(), cut in 0usize..64) {
        read_all(&bytes);
        read_all(list.as_bytes());
        // Also cut in the middle of a character.
        read_all(&list.as_bytes()[..cut.min(list.len())]);
        let _ = list.parse::<Uniform>();
        let _ = list.parse::<Generated>();
    }

    #[test]
    fn prop_what_reads_is_within_its_limits(
        rows in prop::collection::vec((0u64..2_000_000, 0u64..100, 0u64..20, 0u64..1200), 1..8)
    ) {
        let mut csv = "cpu_milli,memory_mib,num_gpu,gpu_milli\n".to_owned();
        for (cpu, memory, gpus, milli) in &rows {
            writeln!(csv, "{cpu},{memory},{gpus},{milli}").expect("a String takes it");
        }
        if let Ok(list) = tasks(&csv) {
            prop_assert_eq!(list.tasks.len(), rows.len());
            for task in list.tasks {
                prop_assert!(task.shape.gpu_total() <= 16_000);
                prop_assert!(task.shape.gpu_milli <= 1000);
                prop_assert!(task.shape.gpus == 0 || task.shape.gpu_milli > 0);
            }
        }
    }
}
