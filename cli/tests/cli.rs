//! The binary: usage, exit statuses, requests and rendering, against a small API in this process.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use ballast_model::view::{NodeView, Replicas, ServiceView, TaskView};
use ballast_model::{Generation, ServiceId, ServiceSpec, Timestamp};
use common::{FakeApi, ballast};
use serde_json::{Value, json};

fn spec(name: &str, replicas: u32) -> ServiceSpec {
    serde_json::from_value(json!({
        "name": name,
        "mode": { "replicated": { "replicas": replicas } },
        "task": { "command": ["web-server", "--port", "$PORT"] },
        "ports": [{ "name": "http", "published": 8080 }],
    }))
    .expect("a spec")
}

fn service(name: &str, desired: u32, healthy: u32) -> ServiceView {
    ServiceView {
        id: ServiceId::from_bits(7),
        name: name.to_owned(),
        generation: Generation(1),
        spec: spec(name, desired),
        replicas: Replicas {
            desired,
            running: healthy,
            healthy,
            complete: 0,
        },
        update: ballast_model::view::UpdateView::Completed,
        problems: Vec::new(),
        pending: None,
        created: Timestamp(1_700_000_000_000_000),
        updated: Timestamp(1_700_000_000_000_000),
    }
}

fn value<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("encodes")
}

fn problem(status: u16, detail: &str, field: Option<&str>, nearest: Option<&str>) -> (u16, Value) {
    let body = json!({
        "type": "urn:ballast:problem:test", "title": "No", "status": status,
        "detail": detail, "field": field, "nearest": nearest,
    });
    (status, body)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn usage_errors_end_with_status_2_and_help_with_0() {
    for args in [
        &[][..],
        &["servce", "ls"],
        &["service", "create"],
        &["service", "scale", "web"],
        &["service", "create", "web", "--replicas", "-1", "--", "x"],
        &["service", "create", "web", "--memory", "-64m", "--", "x"],
        &[
            "service",
            "create",
            "web",
            "--publish",
            "70000:http",
            "--",
            "x",
        ],
        &[
            "service",
            "create",
            "web",
            "--global",
            "--replicas",
            "2",
            "--",
            "x",
        ],
        &["--host", "localhost", "service", "ls"],
        &["--host", "https://localhost", "service", "ls"],
        &["node", "update", "n1"],
        &["plan"],
        &["plan", "-c", "x.yaml", "--drain", "n1"],
        &["plan", "shop"],
        &["--output", "yaml", "service", "ls"],
    ] {
        let output = ballast().args(args).output().expect("runs");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    for args in [
        &["--help"][..],
        &["--version"],
        &["service", "create", "--help"],
    ] {
        ballast().args(args).assert().code(0);
    }
}

#[test]
fn wrong_values_are_named_with_their_flag() {
    for (flag, wrong) in [
        ("--memory", "-64m"),
        ("--cpu", "-1"),
        ("--replicas", "-1"),
        ("--drain", "soon"),
    ] {
        let args = ["service", "create", "web", flag, wrong, "--", "x"];
        let output = ballast().args(args).output().expect("runs");
        let message = text(&output.stderr);
        assert!(
            message.contains(flag) && message.contains(wrong),
            "{message}"
        );
    }
}

#[test]
fn unknown_command_names_the_nearest() {
    let output = ballast().args(["servce", "ls"]).output().expect("runs");
    assert!(
        text(&output.stderr).contains("'service'"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn help_texts_are_as_reviewed() {
    for (name, args) in [
        ("help", &["--help"][..]),
        ("help_dev", &["dev", "--help"]),
        ("help_service", &["service", "--help"]),
        ("help_service_create", &["service", "create", "--help"]),
        ("help_agent", &["agent", "--help"]),
        ("help_plan", &["plan", "--help"]),
    ] {
        let output = ballast().args(args).output().expect("runs");
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ballast()
            .args(["completions", shell])
            .output()
            .expect("runs");
        assert!(output.status.success());
        let script = text(&output.stdout);
        for word in ["service", "join-token", "max-per-node"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
        assert!(!script.contains("task-exec"));
    }
}

#[test]
fn missing_manager_is_explained() {
    let output = ballast()
        .args(["--host", "unix:///nowhere/ballast.sock", "service", "ls"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("no_manager", text(&output.stderr));
}

#[test]
fn refusals_say_where_and_what_would_be_right() {
    let api = FakeApi::start(|_, _, _| {
        problem(
            422,
            "1000000 is more than the limit of 100000",
            Some("mode.replicated.replicas"),
            Some("100000"),
        )
    });
    let args = [
        "service",
        "create",
        "big",
        "--replicas",
        "1000000",
        "--",
        "x",
    ];
    let output = api.ballast(&args).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("refusal", text(&output.stderr));
}

#[test]
fn image_is_refused_with_what_to_do_instead() {
    let api = FakeApi::start(|_, _, _| (500, Value::Null));
    let args = ["service", "create", "web", "--image", "nginx"];
    let output = api.ballast(&args).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("docker driver"));
    assert!(api.requests().is_empty());
}

/// Every flag of a service, once.
const EVERY_FLAG: &str = "service create web --replicas 3 --publish 8080:http --route shop.test/api --cpu 0.5 \
    --memory 64m --env MODE=fast --workdir /srv --user www-data --ulimit nofile=1024:4096 \
    --constraint node.labels.zone==b --spread node --max-per-node 2 --health-http /healthz \
    --health-interval 2s --restart on-failure --restart-delay 1s --restart-attempts 3 \
    --restart-window 1m --stop-grace 5s --stop-signal SIGINT --drain 3s --label team=front \
    --update-order stop-first --update-parallelism 2 --detach -- web-server --port $PORT";

#[test]
fn create_sends_what_the_flags_say() {
    let api = FakeApi::start(|_, _, body| {
        let mut view = service("web", 3, 3);
        view.spec = serde_json::from_value(body.clone()).expect("a spec");
        (201, value(&view))
    });
    let words: Vec<&str> = EVERY_FLAG.split_whitespace().collect();
    api.ballast(&words).assert().code(0).stdout("web\n");
    let requests = api.requests();
    assert_eq!(requests[0].0, "POST /v1/services");
    let spec: ServiceSpec = serde_json::from_value(requests[0].1.clone()).expect("a spec");
    ballast_model::validate(&spec).expect("is valid");
    insta::assert_json_snapshot!("create_spec", spec);
}

#[test]
fn create_waits_until_every_replica_is_healthy() {
    let polls = AtomicU32::new(0);
    let api = FakeApi::start(move |method, _, _| match method {
        "POST" => (201, value(&service("web", 3, 0))),
        _ => (
            200,
            value(&service(
                "web",
                3,
                polls.fetch_add(1, Ordering::SeqCst).min(3),
            )),
        ),
    });
    let args = ["service", "create", "web", "--replicas", "3", "--", "x"];
    let output = api.ballast(&args).output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "web: 0 of 3 healthy, 0 running\nweb: 1 of 3 healthy, 1 running\n\
         web: 2 of 3 healthy, 2 running\nweb: 3 of 3 healthy, 3 running\n"
    );
}

#[test]
fn create_that_does_not_converge_fails_with_the_reasons() {
    let api = FakeApi::start(|method, _, _| {
        let mut view = service("web", 3, 1);
        view.problems = vec!["2 pending: no node has 4 free CPUs".to_owned()];
        (if method == "POST" { 201 } else { 200 }, value(&view))
    });
    let args = [
        "service",
        "create",
        "web",
        "--replicas",
        "3",
        "--timeout",
        "100ms",
        "--",
        "x",
    ];
    let output = api.ballast(&args).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("not_converged", text(&output.stderr));
}

#[test]
fn json_shapes_are_those_of_the_contract() {
    let task: TaskView = serde_json::from_value(json!({
        "id": "0000000000001", "service": "web", "slot": 1, "node": "n1", "pid": 42,
        "state": "running", "desired": "running", "health": "healthy",
        "address": "127.0.0.1:20000", "ports": [{"name": "http", "port": 20000}],
        "generation": 1, "message": "", "exit": null, "restarts": 0, "assignment": null,
        "since": "2026-01-31T12:00:00.000000Z",
    }))
    .expect("a task");
    let node: NodeView = serde_json::from_value(json!({
        "id": "0000000000002", "name": "n1", "status": "ready", "availability": "active",
        "address": "127.0.0.1", "capacity": {"cpu_millis": 2000, "memory_bytes": 1_073_741_824, "tasks": 4096},
        "allocated": {"cpu_millis": 500, "memory_bytes": 67_108_864, "tasks": 1},
        "labels": {}, "attributes": {}, "since": "2026-01-31T12:00:00.000000Z",
    }))
    .expect("a node");
    let event = json!({
        "index": 1, "time": "2026-01-31T12:00:00.000001Z", "kind": "task.running",
        "service": null, "service_name": "web", "task": "0000000000001", "node": null,
        "node_name": "n1", "message": "",
    });
    let event_answer = event.clone();
    let api = FakeApi::start(move |_, path, _| match path {
        "/v1/services/web/tasks" => (200, json!([value(&task)])),
        "/v1/services/web" => (200, value(&service("web", 1, 1))),
        "/v1/services" => (200, json!([value(&service("web", 1, 1))])),
        "/v1/nodes" => (200, json!([value(&node)])),
        path if path.starts_with("/v1/events") => (200, json!([event_answer])),
        _ => problem(404, "no such thing", None, None),
    });
    let run = |args: &[&str]| text(&api.ballast(args).output().expect("runs").stdout);
    let json_of = |args: &[&str]| {
        let all: Vec<&str> = ["--output", "json"].iter().chain(args).copied().collect();
        serde_json::from_str::<Value>(&run(&all)).expect("JSON")
    };

    let tasks = json_of(&["service", "ps", "web"]);
    for field in [
        "id",
        "service",
        "slot",
        "node",
        "pid",
        "state",
        "health",
        "address",
        "generation",
        "message",
        "since",
    ] {
        assert!(!tasks[0][field].is_null(), "{field}");
    }
    let inspected = json_of(&["service", "inspect", "web"]);
    assert_eq!(
        inspected["replicas"],
        json!({"desired": 1, "running": 1, "healthy": 1, "complete": 0})
    );
    let nodes = json_of(&["node", "ls"]);
    assert_eq!(nodes[0]["capacity"]["cpu_millis"], 2000);
    assert_eq!(nodes[0]["allocated"]["memory_bytes"], 67_108_864);
    assert_eq!(json_of(&["events"]), event);

    insta::assert_snapshot!("table_services", run(&["service", "ls"]));
    insta::assert_snapshot!("table_nodes", run(&["node", "ls"]));
    insta::assert_snapshot!("events", run(&["events"]));
    // The age of the task depends on the clock.
    let table = run(&["service", "ps", "web"]);
    assert!(table.starts_with("TASK"), "{table}");
    assert!(table.contains("web.1"), "{table}");
}

#[test]
fn short_names_mean_the_one_service_of_a_stack() {
    let stacked = || {
        let mut view = service("shop-api", 1, 1);
        view.spec.stack = Some("shop".to_owned());
        view
    };
    let api = FakeApi::start(move |_, path, _| match path {
        "/v1/services/shop-api/scale" | "/v1/services/shop-api" => (200, value(&stacked())),
        "/v1/services" => (200, json!([value(&stacked())])),
        _ => problem(404, "there is no such service", Some("name"), None),
    });
    for name in ["api=1", "shop_api=1", "shop-api=1"] {
        api.ballast(&["service", "scale", name, "--detach"])
            .assert()
            .code(0)
            .stdout("shop-api\n");
    }
    api.ballast(&["service", "scale", "web=1"]).assert().code(1);
}

#[test]
fn update_changes_what_is_given_and_keeps_the_rest() {
    let api = FakeApi::start(|method, _, body| {
        let mut view = service("web", 2, 2);
        view.spec.task.env = [("A", "1"), ("B", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        if method == "PUT" {
            view.spec = serde_json::from_value(body.clone()).expect("a spec");
        }
        (200, value(&view))
    });
    api.ballast(&[
        "service", "update", "web", "--env", "A=9", "--env-rm", "B", "--cpu", "0.25", "--detach",
    ])
    .assert()
    .code(0);
    let requests = api.requests();
    let (line, body) = requests.last().expect("was asked");
    assert_eq!(line, "PUT /v1/services/web");
    let sent: ServiceSpec = serde_json::from_value(body.clone()).expect("a spec");
    assert_eq!(sent.task.env, [("A".to_owned(), "9".to_owned())].into());
    assert_eq!(sent.task.resources.cpu.0, 250);
    assert_eq!(sent.task.command, spec("web", 2).task.command);
    api.ballast(&["service", "update", "web"]).assert().code(2);
}

#[test]
fn logs_say_whose_they_are_and_on_which_stream() {
    let lines = [("stdout", "hello"), ("stderr", "oh no")].map(|(stream, line)| {
        let line = json!({
            "task": "0000000000001", "slot": 3, "node": "n1", "stream": stream, "line": line,
        });
        format!("data: {line}\n\n")
    });
    let api = FakeApi::start(move |_, path, _| match path {
        "/v1/services/web" => (200, value(&service("web", 1, 1))),
        _ => (200, Value::String(lines.concat())),
    });
    let output = api
        .ballast(&["service", "logs", "web", "--tail", "5"])
        .output()
        .expect("runs");
    assert_eq!(text(&output.stdout), "web.3@n1 | hello\n");
    assert_eq!(text(&output.stderr), "web.3@n1 | oh no\n");
    assert_eq!(
        api.requests().last().expect("was asked").0,
        "GET /v1/services/web/logs?tail=5&follow=false"
    );
    let raw = api
        .ballast(&["service", "logs", "--raw", "web"])
        .output()
        .expect("runs");
    assert_eq!(text(&raw.stdout), "hello\n");
}

#[test]
fn stack_deploy_reads_standard_input_and_refuses_what_is_wrong() {
    let api = FakeApi::start(|method, path, _| match (method, path) {
        ("PUT", "/v1/stacks/shop") => (
            200,
            json!({
                "created": ["shop-web"], "updated": [], "unchanged": [], "removed": [],
            }),
        ),
        _ => (200, value(&service("shop-web", 1, 1))),
    });
    let good = "services: {web: {command: web-server, container_name: x}}\n";
    let output = api
        .ballast(&["stack", "deploy", "-c", "-", "shop"])
        .write_stdin(good)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    insta::assert_snapshot!("deploy", text(&output.stderr));
    let sent = &api.requests()[0];
    assert_eq!(sent.1["services"][0]["name"], "shop-web");
    assert_eq!(sent.1["services"][0]["stack"], "shop");

    let before = api.requests().len();
    let bad = "services:\n  web:\n    command: web-server\n    volumes: [a:b]\n";
    let output = api
        .ballast(&["stack", "deploy", "-c", "-", "shop"])
        .write_stdin(bad)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("<stdin>:4:5: error: services.web.volumes"));
    assert_eq!(api.requests().len(), before, "nothing was sent");
}

#[test]
fn closed_standard_output_is_no_failure() {
    let api = FakeApi::start(|_, _, _| (200, json!([value(&service("web", 1, 1))])));
    let mut command = std::process::Command::new("/bin/sh");
    let host = api.ballast(&[]);
    let host = host.get_args().nth(1).expect("the host").to_owned();
    command
        .arg("-c")
        .arg("\"$0\" --host \"$1\" service ls | true")
        .arg(env!("CARGO_BIN_EXE_ballast"))
        .arg(host);
    let output = command.output().expect("runs");
    assert_eq!(text(&output.stderr), "");
}

/// A plan in which one of two tasks fits.
fn some_plan() -> Value {
    json!({
        "version": 7, "fits": false, "complete": true,
        "services": [{
            "name": "shop-web", "action": "create", "replicas_before": 0, "replicas_after": 2,
            "start": 1, "stop": 0, "replace": 0, "move": 0, "pending": 1,
            "nodes": {
                "nodes": 3, "fit": 1,
                "excluded": [{ "reason": "lacks 128 MiB of memory", "nodes": 2 }],
                "nearest": { "node": "n2", "lacks": ["lacks 128 MiB of memory"] },
                "suggestions": [{
                    "change": "lower --memory from 512 MiB to 384 MiB", "nodes": 1, "node": "n2",
                }],
            },
        }],
        "changes": [{
            "service": "shop-web", "slot": 1, "action": "start", "from": null, "to": "n1",
            "when": "now", "why": "its place is empty",
        }],
        "pending": [{
            "service": "shop-web", "slot": 2, "stays": null,
            "why": "none of 3 nodes fits: 3 lack 128 MiB of memory or more",
        }],
    })
}

#[test]
fn plan_shows_what_would_happen_and_fails_if_a_task_would_not_fit() {
    let api = FakeApi::start(|method, path, _| match (method, path) {
        ("POST", "/v1/plan") => (200, some_plan()),
        _ => (200, value(&service("web", 1, 1))),
    });
    let compose = "services: {web: {command: web-server}}\n";
    let plan = |args: &[&str]| {
        let mut command = api.ballast(args);
        command.write_stdin(compose).output().expect("runs")
    };
    let output = plan(&["plan", "-c", "-", "shop"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("1 task would find no node"));
    insta::assert_snapshot!("plan", text(&output.stdout));
    let (line, body) = api.requests().pop().expect("was asked");
    assert_eq!(line, "POST /v1/plan");
    assert_eq!(body["stack"]["services"][0]["name"], "shop-web");

    let output = plan(&["--output", "json", "plan", "service", "scale", "web=5"]);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(printed, some_plan());
    let (_, body) = api.requests().pop().expect("was asked");
    assert_eq!(
        body,
        json!({ "scale": { "service": "web", "replicas": 5 } })
    );

    plan(&[
        "plan",
        "service",
        "create",
        "new",
        "--replicas",
        "3",
        "--",
        "x",
    ]);
    let (_, body) = api.requests().pop().expect("was asked");
    assert_eq!(body["service"]["name"], "new");
}

#[test]
fn drain_shows_its_plan_and_a_dry_run_does_nothing_else() {
    let api = FakeApi::start(|method, path, _| match (method, path) {
        ("POST", "/v1/plan") => (200, some_plan()),
        _ => problem(404, "there is no such node", None, None),
    });
    api.ballast(&["node", "drain", "n1", "--dry-run"])
        .assert()
        .code(1);
    assert_eq!(api.requests().len(), 1);
    assert_eq!(api.requests()[0].1, json!({ "drain": { "node": "n1" } }));
    let output = api
        .ballast(&["node", "drain", "n1"])
        .output()
        .expect("runs");
    assert!(
        text(&output.stderr).contains("shop-web.1"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        api.requests().last().expect("was asked").0,
        "PATCH /v1/nodes/n1"
    );
}
