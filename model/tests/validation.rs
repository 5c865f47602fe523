//! Bad specs, one field at a time: each is refused by the field's name, with the nearest value that
//! would be accepted where there is one.

use ballast_model::{InvalidSpec, ServiceSpec, limits, validate};
use serde_json::{Value, json};

/// A spec that is accepted, with everything in it.
fn good() -> Value {
    json!({
        "name": "web",
        "stack": "shop",
        "mode": { "replicated": { "replicas": 3 } },
        "task": {
            "command": ["ballast-hello"],
            "env": { "MODE": "x" },
            "resources": { "cpu": "0.5", "memory": "64m" },
            "health": { "probe": { "http": { "port": "http", "path": "/", "status": [200, 399] } } },
        },
        "placement": { "constraints": ["node.labels.zone==b"] },
        "ports": [
            { "name": "http", "published": 8080 },
            { "name": "dns", "protocol": "udp", "target": { "fixed": 53 } },
        ],
        "routes": [{ "host": "example.test", "path_prefix": "/" }],
    })
}

fn parse(spec: Value) -> Result<ServiceSpec, String> {
    serde_json::from_value(spec).map_err(|error| error.to_string())
}

/// Returns the good spec with the value at this JSON pointer replaced or added.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = good();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = spec.pointer_mut(parent).expect("the parent exists");
    match key.parse::<usize>() {
        Ok(place) => parent[place] = value,
        Err(_) => parent[key] = value,
    }
    spec
}

/// Returns what `validate` says of the good spec with this value in it.
fn refused(pointer: &str, value: Value) -> InvalidSpec {
    let spec = parse(with(pointer, value)).expect("reads as a spec");
    validate(&spec).expect_err("is refused")
}

fn assert_refused(pointer: &str, value: Value, field: &str, nearest: Option<&str>) {
    let refusal = refused(pointer, value);
    assert_eq!(
        (refusal.field.as_str(), refusal.nearest.as_deref()),
        (field, nearest),
        "{refusal}"
    );
}

/// What cannot even be read is refused by serde, in words that help.
fn assert_unreadable(pointer: &str, value: Value, words: &[&str]) {
    let error = parse(with(pointer, value)).expect_err("does not read");
    for word in words {
        assert!(error.contains(word), "`{word}` is not in `{error}`");
    }
}

#[test]
fn good_spec_is_accepted() {
    let spec = parse(good()).expect("reads");
    assert_eq!(validate(&spec), Ok(()));
}

#[test]
fn zero_replicas_keep_the_service_and_a_million_are_too_many() {
    let replicas = |count: u64| json!({ "replicated": { "replicas": count } });
    let spec = parse(with("/mode", replicas(0))).expect("reads");
    assert_eq!(validate(&spec), Ok(()), "0 stops all and keeps the service");
    let most = limits::REPLICAS_PER_SERVICE.to_string();
    let field = "mode.replicated.replicas";
    assert_refused("/mode", replicas(1_000_000), field, Some(&most));
    assert_unreadable(
        "/mode",
        json!({ "replicated": { "replicas": -1 } }),
        &["-1"],
    );
    assert_unreadable("/mode", replicas(1 << 40), &["1099511627776"]);
}

#[test]
fn job_needs_completions_and_parallelism() {
    let job = |completions: u32, parallelism: u32| json!({ "job": { "completions": completions, "parallelism": parallelism } });
    assert_refused("/mode", job(0, 1), "mode.job.completions", Some("1"));
    assert_refused("/mode", job(1, 0), "mode.job.parallelism", Some("1"));
    let most = limits::REPLICAS_PER_SERVICE.to_string();
    assert_refused(
        "/mode",
        job(1_000_000, 1),
        "mode.job.completions",
        Some(&most),
    );
}

#[test]
fn empty_and_endless_names_are_refused() {
    assert_refused("/name", json!(""), "name", None);
    let nearest = "a".repeat(limits::NAME_CHARS);
    assert_refused("/name", json!("a".repeat(10_000)), "name", Some(&nearest));
    assert_refused("/name", json!("My Web_App"), "name", Some("my-web-app"));
    assert_refused("/name", json!("-web-"), "name", Some("web"));
    assert_refused("/name", json!("ümläut"), "name", Some("ml-ut"));
    assert_refused("/name", json!("\u{1F680}"), "name", None);
    assert_refused("/stack", json!("Shop"), "stack", Some("shop"));
    assert_refused("/ports/0/name", json!("h_t"), "ports[0].name", Some("h-t"));
}

#[test]
fn nearest_name_is_itself_accepted() {
    for name in ["My App", "-x-", "a.b.c", "ÀB", "UPPER", "x y z!"] {
        let refusal = refused("/name", json!(name));
        let nearest = refusal.nearest.expect("there is one");
        let spec = parse(with("/name", json!(nearest))).expect("reads");
        assert_eq!(validate(&spec), Ok(()), "{name} → {nearest}");
    }
}

#[test]
fn ports_out_of_range_are_refused() {
    assert_refused("/ports/0/published", json!(0), "ports[0]", Some("1"));
    assert_refused(
        "/ports/1/target",
        json!({ "fixed": 0 }),
        "ports[1]",
        Some("1"),
    );
    assert_unreadable("/ports/0/published", json!(65_536), &["65536", "u16"]);
    assert_unreadable("/ports/0/published", json!(-80), &["-80", "u16"]);
    assert_unreadable(
        "/ports/1/target",
        json!({ "fixed": 70_000 }),
        &["70000", "u16"],
    );
}

#[test]
fn port_that_is_there_twice_is_refused() {
    let twice = json!([{ "name": "http", "published": 80 }, { "name": "b", "published": 80 }]);
    assert_refused("/ports", twice, "ports[1].published", None);
    let named = json!([{ "name": "http" }, { "name": "http" }]);
    assert_refused("/ports", named, "ports[1].name", None);
    let both = json!([
        { "name": "http", "published": 53, "protocol": "http" },
        { "name": "u", "published": 53, "protocol": "udp" },
    ]);
    let spec = parse(with("/ports", both)).expect("reads");
    assert_eq!(validate(&spec), Ok(()), "TCP and UDP ports are apart");
}

#[test]
fn negative_and_absurd_resources_are_refused() {
    assert_unreadable(
        "/task/resources/memory",
        json!(-1),
        &["-1", "size in bytes"],
    );
    assert_unreadable("/task/resources/memory", json!("-64m"), &["-64m", "64m"]);
    assert_unreadable("/task/resources/cpu", json!(-0.5), &["-0.5", "CPU cores"]);
    assert_unreadable("/task/resources/cpu", json!("NaN"), &["NaN", "CPU cores"]);
    let most = limits::MEMORY_PER_TASK.to_string();
    let field = "task.resources.memory";
    assert_refused("/task/resources/memory", json!("1000t"), field, Some(&most));
    let most = limits::CPU_PER_TASK.to_string();
    assert_refused(
        "/task/resources/cpu",
        json!("2000"),
        "task.resources.cpu",
        Some(&most),
    );
}

#[test]
fn constraint_that_does_not_parse_says_how_to_write_one() {
    for (text, right) in [
        ("zone=b", "write node.labels.zone==VALUE"),
        ("node.labels.zone", "write node.labels.zone==VALUE"),
        ("node.labels.==b", "write node.labels.KEY"),
        ("", "write a property"),
        ("node.nmae==x", "write node.name"),
        ("node.labels.zone in (a,b", "at character 25"),
    ] {
        let words = ["is not a constraint", right];
        assert_unreadable("/placement/constraints", json!([text]), &words);
    }
    let many: Vec<_> = (0..=limits::CONSTRAINTS)
        .map(|n| format!("node.name!=n{n}"))
        .collect();
    let most = limits::CONSTRAINTS.to_string();
    let field = "placement.constraints";
    assert_refused("/placement/constraints", json!(many), field, Some(&most));
}

#[test]
fn constraints_that_exclude_each_other_are_refused_by_name() {
    let texts = json!([
        "node.labels.zone in (a,b)",
        "node.name!=x",
        "node.labels.zone==c"
    ]);
    let refusal = refused("/placement/constraints", texts);
    assert_eq!(refusal.field, "placement.constraints[2]");
    assert_eq!(
        refusal.reason,
        "no node can meet both `node.labels.zone in (a,b)` and `node.labels.zone==c`"
    );
    let range = json!(["node.attributes.kernel version >6,<5"]);
    let refusal = refused("/placement/constraints", range);
    assert_eq!(refusal.field, "placement.constraints[0]");
}

#[test]
fn absurd_rules_of_placement_are_refused_by_name() {
    let weight = |weight: i32| json!([{ "constraint": "node.name==a", "weight": weight }]);
    let field = "placement.affinities[0].weight";
    assert_refused("/placement/affinities", weight(0), field, Some("100"));
    assert_refused("/placement/affinities", weight(101), field, Some("100"));
    assert_unreadable("/placement/affinities", weight(1000), &["1000", "i8"]);
    assert_refused(
        "/placement/sockets",
        json!(9),
        "placement.sockets",
        Some("8"),
    );
    let both = json!([
        { "service": "db", "over": "zone", "weight": 1, "required": true },
        { "service": "db", "over": "node.labels.zone", "weight": -1, "required": true },
    ]);
    assert_refused("/placement/services", both, "placement.services[1]", None);
    let over = json!([{ "over": "node.labels.", "max_skew": 1 }]);
    let field = "placement.spread[0].over";
    assert_refused("/placement/spread", over, field, Some("node"));
    let devices = |count: u32, milli: u32| json!({ "cpu": "1", "devices": { "kind": "gpu", "count": count, "milli": milli } });
    let field = "task.resources.devices.count";
    assert_refused("/task/resources", devices(17, 1000), field, Some("16"));
    let field = "task.resources.devices.milli";
    assert_refused("/task/resources", devices(2, 500), field, Some("1000"));
    assert_unreadable("/task/resources", devices(300, 1000), &["300", "u8"]);
}

#[test]
fn command_and_environment_must_be_possible() {
    assert_refused("/task/command", json!([]), "task.command", None);
    assert_refused("/task/command", json!([""]), "task.command", None);
    assert_refused("/task/command", json!(["a\0b"]), "task.command", None);
    let long = "x".repeat(limits::COMMAND_BYTES);
    assert_refused("/task/command", json!(["a", long]), "task.command", None);
    let most = limits::COMMAND_ARGS.to_string();
    let args = vec!["a"; limits::COMMAND_ARGS + 1];
    assert_refused("/task/command", json!(args), "task.command", Some(&most));
    assert_refused("/task/env", json!({ "A=B": "c" }), "task.env.A=B", None);
    assert_refused("/task/env", json!({ "": "c" }), "task.env.", None);
    assert_refused("/task/env", json!({ "A": "\0" }), "task.env.A", None);
}

#[test]
fn references_to_ports_that_are_not_there_name_the_nearest() {
    let probe = json!({ "probe": { "tcp": { "port": "htpp" } } });
    assert_refused(
        "/task/health",
        probe,
        "task.health.probe.tcp.port",
        Some("http"),
    );
    let route = json!({ "path_prefix": "/", "port": "htp" });
    assert_refused("/routes/0", route, "routes[0].port", Some("http"));
    let route = json!({ "path_prefix": "/", "port": "dns" });
    assert_refused("/routes/0", route, "routes[0].port", None);
    assert_refused("/ports", json!([]), "routes[0].port", None);
}

#[test]
fn routes_must_be_hosts_and_paths() {
    let route = |host: &str, path: &str| json!({ "host": host, "path_prefix": path });
    assert_refused(
        "/routes/0",
        route("a.test", "api"),
        "routes[0].path_prefix",
        Some("/api"),
    );
    for host in ["a.test:80", "a b", "", "*.", "*a.test", "a..b"] {
        assert_refused("/routes/0", route(host, "/"), "routes[0].host", None);
    }
}

#[test]
fn probes_must_be_possible() {
    let check = |field: &str, value: Value| {
        let mut check = json!({ "probe": { "command": { "argv": ["true"] } } });
        check[field] = value;
        check
    };
    for field in ["interval", "timeout"] {
        let path = format!("task.health.{field}");
        assert_refused(
            "/task/health",
            check(field, json!("0s")),
            &path,
            Some("1ms"),
        );
        let most = limits::LONGEST_SPAN.to_string();
        assert_refused(
            "/task/health",
            check(field, json!("30d")),
            &path,
            Some(&most),
        );
    }
    for field in ["failure_threshold", "success_threshold"] {
        let path = format!("task.health.{field}");
        assert_refused("/task/health", check(field, json!(0)), &path, Some("1"));
    }
    let status = |from: u16, to: u16| json!({ "probe": { "http": { "port": "http", "path": "/", "status": [from, to] } } });
    for (from, to) in [(399, 200), (0, 200), (200, 600)] {
        let field = "task.health.probe.http.status";
        assert_refused("/task/health", status(from, to), field, Some("[200, 399]"));
    }
    let path =
        json!({ "probe": { "http": { "port": "http", "path": "up", "status": [200, 399] } } });
    assert_refused(
        "/task/health",
        path,
        "task.health.probe.http.path",
        Some("/up"),
    );
    let command = json!({ "probe": { "command": { "argv": [] } } });
    assert_refused(
        "/task/health",
        command,
        "task.health.probe.command.argv",
        None,
    );
}

#[test]
fn spans_longer_than_a_week_are_refused() {
    let most = limits::LONGEST_SPAN.to_string();
    for (pointer, field) in [
        ("/update", "update.delay"),
        ("/task/restart", "task.restart.delay"),
        ("/task/restart", "task.restart.max_delay"),
        ("/task/restart", "task.restart.window"),
        ("/task/stop", "task.stop.drain"),
        ("/task/stop", "task.stop.grace"),
    ] {
        let (_, key) = field.rsplit_once('.').expect("a path");
        assert_refused(pointer, json!({ key: "8d" }), field, Some(&most));
        assert_unreadable(pointer, json!({ key: "-5s" }), &["-5s", "duration"]);
        assert_unreadable(pointer, json!({ key: "soon" }), &["soon", "10s"]);
    }
}

#[test]
fn labels_have_bounds() {
    let long = "x".repeat(limits::LABEL_BYTES + 1);
    assert_refused("/labels", json!({ "k": long }), "labels.k", None);
    assert_refused("/labels", json!({ "": "v" }), "labels.", None);
    let many: serde_json::Map<_, _> = (0..=limits::LABELS)
        .map(|n| (n.to_string(), json!("v")))
        .collect();
    let most = limits::LABELS.to_string();
    assert_refused("/labels", json!(many), "labels", Some(&most));
}

#[test]
fn unknown_keys_are_errors_that_name_the_known_ones() {
    assert_unreadable(
        "/replicas",
        json!(3),
        &["unknown field `replicas`", "`mode`"],
    );
    assert_unreadable(
        "/task/comand",
        json!([]),
        &["unknown field `comand`", "`command`"],
    );
    assert_unreadable(
        "/mode",
        json!({ "replicatd": {} }),
        &["replicatd", "`replicated`"],
    );
}
