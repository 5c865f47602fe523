//! `ballast simulate`: the contract of its flags, JSON and errors.

use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;

fn simulate(args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballast"));
    command.env("NO_COLOR", "1").env("COLUMNS", "100");
    let output = command.arg("simulate").args(args).output();
    output.expect("ballast runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn file(dir: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, content).expect("a file");
    path.to_string_lossy().into_owned()
}

fn openb(name: &str) -> String {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("../simulate/traces/openb").join(name);
    path.to_string_lossy().into_owned()
}

const TASKS: &str = "name,cpu_milli,memory_mib,creation_time,deletion_time\n\
                     a,500,100,0,10\nb,500,100,5,20\nc,900,100,6,12\nd,9000,100,7,9\n";

#[test]
fn json_is_as_the_contract_says_and_the_same_for_the_same_seeds() {
    let (nodes, tasks) = (
        openb("openb_node_list_gpu_node.csv"),
        openb("openb_pod_list_default.csv"),
    );
    let args = [
        "--nodes",
        &nodes,
        "--tasks",
        &tasks,
        "--policy",
        "binpack",
        "--protocol",
        "fgd",
        "--seeds",
        "2",
        "--output",
        "json",
    ];
    let run = || {
        let output = simulate(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        let mut json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(
            json["placements_per_second"]
                .take()
                .as_f64()
                .expect("a number")
                > 0.0
        );
        json
    };
    let json = run();
    assert_eq!(json, run());
    let runs = json["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    for run in runs.iter().chain([&json["mean"]]) {
        for figure in [
            "placed",
            "unplaced",
            "nodes_used_peak",
            "nodes_used_mean",
            "cpu_allocated_percent",
            "memory_allocated_percent",
        ] {
            assert!(
                run[figure].as_f64().is_some_and(|n| n >= 0.0),
                "{figure} of {run}"
            );
        }
        let gpu = &run["gpu_allocated_percent"];
        let (at_100, at_130) = (gpu["at_100"].as_f64(), gpu["at_130"].as_f64());
        assert!(
            at_100 > Some(70.0) && at_130 >= at_100 && at_130 <= Some(100.0),
            "{gpu}"
        );
    }
    assert_eq!(runs[0]["seed"], 1);
}

#[test]
fn replay_counts_departures_and_draws_a_picture_that_needs_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let tasks = file(&dir, "tasks.csv", TASKS);
    let svg = dir.path().join("out.svg");
    let output = simulate(&[
        "--nodes",
        "uniform:3:1000:1000",
        "--tasks",
        &tasks,
        "--protocol",
        "replay",
        "--svg",
        svg.to_str().expect("UTF-8"),
        "--output",
        "json",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = &json["runs"][0];
    assert_eq!((&run["placed"], &run["unplaced"]), (&3.into(), &1.into()));
    assert_eq!(run["nodes_used_peak"], 2);
    assert!(
        run["nodes_to_volume_bound"]
            .as_f64()
            .is_some_and(|ratio| ratio >= 1.0)
    );
    let svg = std::fs::read_to_string(svg).expect("drawn");
    assert!(svg.starts_with("<svg") && svg.contains("tasks on uniform:3:1000:1000"));
    for outside in ["href", "url(", "<script", "@import"] {
        assert!(!svg.contains(outside), "{outside}");
    }
}

#[test]
fn table_shows_each_seed_and_the_mean() {
    let dir = tempfile::tempdir().expect("a folder");
    let tasks = file(&dir, "tasks.csv", TASKS);
    let output = simulate(&[
        "--nodes",
        "uniform:3:1000:1000",
        "--tasks",
        &tasks,
        "--seeds",
        "2",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for word in [
        "seed 1",
        "seed 2",
        "mean",
        "PLACED",
        "UNPLACED",
        "policy auto, protocol once",
    ] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
}

#[test]
fn bad_lists_are_refused_with_file_line_and_column() {
    let dir = tempfile::tempdir().expect("a folder");
    let cases: [(&str, &[u8], &str); 12] = [
        ("empty", b"", "is empty: not even a header is there"),
        (
            "header",
            b"cpu_milli,memory_mib\n",
            "has a header and no rows",
        ),
        (
            "column",
            b"cpu_mili,memory_mib\n1,1\n",
            "has no column `cpu_milli`; it has `cpu_mili`, `memory_mib` (nearest: `cpu_mili`)",
        ),
        (
            "nan",
            b"cpu_milli,memory_mib\n1,1\nNaN,1\n",
            "line 3, column `cpu_milli`: `NaN` is not a finite number",
        ),
        (
            "negative",
            b"cpu_milli,memory_mib\n1,-5\n",
            "line 2, column `memory_mib`: `-5` is negative",
        ),
        (
            "absurd",
            b"cpu_milli,memory_mib\n1e18,1\n",
            "is absurd: the most is 1024000 milli-cores",
        ),
        (
            "words",
            b"cpu_milli,memory_mib\nfour,1\n",
            "`four` is not a number",
        ),
        (
            "hole",
            b"cpu_milli,memory_mib\n,1\n",
            "`` is empty, and a number is needed",
        ),
        (
            "gpu",
            b"cpu_milli,memory_mib,num_gpu,gpu_milli\n1,1,1,0\n",
            "line 2: asks for 1 GPUs and 0 thousandths of each",
        ),
        (
            "times",
            b"cpu_milli,memory_mib,creation_time,deletion_time\n1,1,9,8\n",
            "line 2: is deleted at 8 s, before it is created at 9 s",
        ),
        (
            "latin",
            b"name,cpu_milli,memory_mib\n\xe9t\xe9,1,1\n",
            "line 2: is not UTF-8 text",
        ),
        (
            "ragged",
            b"cpu_milli,memory_mib\n1\n",
            "line 2: has 1 fields, and the header has 2",
        ),
    ];
    for (name, content, expected) in cases {
        let tasks = file(&dir, name, content);
        let output = simulate(&["--nodes", "uniform:1:1:1", "--tasks", &tasks]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(
            error.contains(expected) && error.contains(&tasks),
            "{name}: {error}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn bad_flags_are_usage_and_what_cannot_be_run_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let tasks = file(&dir, "tasks.csv", TASKS);
    let cases: [(i32, &[&str], &str); 8] = [
        (2, &["--nodes", "uniform:0:1:1"], "COUNT"),
        (
            2,
            &["--nodes", "uniform:1:1"],
            "uniform:COUNT:CPU_MILLI:MEMORY_MIB[:GPUS]",
        ),
        (2, &["--nodes", "uniform:1:1:1:99"], "the most is 16 GPUs"),
        (2, &["--nodes", "uniform:1:1:1", "--seeds", "0"], "--seeds"),
        (2, &["--nodes", "uniform:1:1:1", "--policy", "best"], "fgd"),
        (
            2,
            &[
                "--nodes",
                "uniform:1:1:1",
                "--migrate-percent-per-hour",
                "1",
            ],
            "replay",
        ),
        (1, &["--nodes", "no-such-file.csv"], "no-such-file.csv"),
        (
            1,
            &["--nodes", "uniform:1:1:1", "--protocol", "fgd"],
            "no node has a GPU",
        ),
    ];
    for (status, args, expected) in cases {
        let output = simulate(&[args, &["--tasks", &tasks]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn times_that_go_backwards_are_told_and_replayed_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let rows = "cpu_milli,memory_mib,creation_time,deletion_time\n1,1,50,60\n1,1,10,20\n";
    let tasks = file(&dir, "jumps.csv", rows);
    let output = simulate(&[
        "--nodes",
        "uniform:1:1:1",
        "--tasks",
        &tasks,
        "--protocol",
        "replay",
        "--output",
        "json",
    ]);
    let warning = text(&output.stderr);
    assert!(
        warning.contains("go backwards in 1 rows, by up to 40s, first in line 3"),
        "{warning}"
    );
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["clock_jumps"], &json["mean"]["placed"]),
        (&1.into(), &2.0.into())
    );
}
