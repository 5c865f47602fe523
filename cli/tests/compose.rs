//! Compose files → specs, held by golden files.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ballast_cli::compose::{Outcome, Severity, Source, read};
use proptest::prelude::*;

fn variable(name: &str) -> Option<String> {
    (name == "FROM_SHELL").then(|| "from the shell".to_owned())
}

fn read_text(text: &str) -> Outcome {
    let source = Source {
        name: "compose.yaml",
        text,
        folder: Path::new("tests/files"),
        variable: &variable,
    };
    read(&source, "shop")
}

fn read_path(path: &str) -> Outcome {
    read_text(&std::fs::read_to_string(path).expect(path))
}

fn lines(outcome: &Outcome) -> String {
    let lines = outcome.findings.iter().map(|f| f.line("compose.yaml"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn real_stack_becomes_specs() {
    let outcome = read_path("tests/files/shop.yaml");
    insta::assert_snapshot!("shop_findings", lines(&outcome));
    insta::assert_json_snapshot!("shop", outcome.stack.expect("has no error"));
}

#[test]
fn everything_not_honoured_is_named_with_its_place() {
    let outcome = read_path("tests/files/unhonoured.yaml");
    insta::assert_snapshot!("unhonoured", lines(&outcome));
    assert!(outcome.stack.is_none());
}

#[test]
fn examples_deploy_without_a_warning() {
    for example in ["hello", "nginx", "python", "redis"] {
        let path = format!("../examples/{example}.yaml");
        let source = Source {
            name: &path,
            text: &std::fs::read_to_string(&path).expect("exists"),
            folder: Path::new("../examples"),
            variable: &variable,
        };
        let outcome = read(&source, example);
        assert_eq!(lines(&outcome), "", "{example}");
        let stack = outcome.stack.expect("has no error");
        assert_eq!(stack.services[0].name, example);
        let dollars: String = stack.services[0].task.command.join(" ");
        assert!(!dollars.contains("$$"), "{dollars}");
    }
}

#[test]
fn dollar_signs_reach_the_program_as_compose_says() {
    let outcome = read_text(
        "services:\n  a:\n    command: [sh, -c, 'echo $$HOME $$$$ $PORT']\n    environment: {A: 'x:$PORT'}\n",
    );
    assert!(
        lines(&outcome).contains("`A` stays `x:$PORT`"),
        "{}",
        lines(&outcome)
    );
    let stack = outcome.stack.expect("has no error");
    // The agent puts the port in and makes `$$` one dollar sign: the shell gets `$HOME`, `$$`.
    assert_eq!(stack.services[0].task.command[2], "echo $HOME $$$$ $PORT");
}

#[test]
fn port_published_by_two_services_is_named() {
    let outcome = read_text(
        "services:\n  a: {command: x, ports: ['80:http']}\n  b: {command: x, ports: ['80:web/tcp']}\n",
    );
    assert!(
        lines(&outcome)
            .contains("compose.yaml:3:3: error: services.b: port 80 is published by service `a`"),
        "{}",
        lines(&outcome)
    );
}

#[test]
fn bound_that_the_spec_breaks_is_reported_where_the_file_breaks_it() {
    let outcome = read_text(
        "services:\n  a:\n    command: x\n    deploy:\n      resources: {limits: {cpus: '5000'}}\n",
    );
    let text = lines(&outcome);
    assert!(
        text.starts_with("compose.yaml:4:5: error: services.a.deploy: task.resources.cpu"),
        "{text}"
    );
    assert!(text.contains("nearest valid"), "{text}");
}

#[test]
fn files_without_services_are_errors() {
    for text in [
        "",
        "# nothing\n",
        "services:\n",
        "services: {}\n",
        "- a\n",
        "web: {command: x}\n",
        "\0",
    ] {
        let outcome = read_text(text);
        assert!(outcome.stack.is_none(), "{text:?}");
        assert!(
            outcome
                .findings
                .iter()
                .any(|f| f.severity == Severity::Error),
            "{text:?}"
        );
    }
}

#[test]
fn bomb_is_refused_quickly() {
    let mut text = "x-0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 9].join(", ");
        let _ = writeln!(text, "x-{level}: &a{level} [{refs}]");
    }
    text += "services: {a: {command: *a8}}\n";
    let started = Instant::now();
    assert!(read_text(&text).stack.is_none());
    assert!(started.elapsed() < Duration::from_secs(2));
}

proptest! {
    #[test]
    fn prop_garbage_never_panics(text in ".{0,200}") {
        let _ = read_text(&text);
    }

    /// Real files with one piece replaced: past the YAML parser, into every reader behind it.
    #[test]
    fn prop_damaged_file_never_panics(
        at in 0usize..2_000,
        cut in 0usize..40,
        piece in "[ \\n:{}\\[\\]\\-&*$\"'0-9a-z]{0,12}",
    ) {
        let mut text = include_str!("files/shop.yaml").to_owned();
        let from = at.min(text.len());
        let to = (from + cut).min(text.len());
        text.replace_range(from..to, &piece);
        let _ = read_text(&text);
    }

    #[test]
    fn prop_any_value_behind_any_key_never_panics(
        key in prop::sample::select(vec![
            "command", "environment", "env_file", "ports", "healthcheck", "ulimits", "deploy",
            "restart", "scale", "cpus", "x-ballast", "labels", "stop_signal", "user",
        ]),
        value in prop::sample::select(vec![
            "null", "true", "-1", "1e400", ".nan", "[]", "{}", "[[]]", "[null]", "{a: {b: c}}", "'${'",
            "'$$'", "[{}]", "{test: []}", "{replicas: [1]}", "99999999999999999999999", "['80:80:80:80']",
        ]),
    ) {
        let _ = read_text(&format!("services:\n  a:\n    entrypoint: x\n    {key}: {value}\n"));
    }
}
