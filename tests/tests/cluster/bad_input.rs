//! What a user gets for asking the impossible: exit status 1 or 2, the field and what would do.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use ballast_model::TaskState;
use ballast_tests::cluster::Cluster;

use crate::scenario::{DEADLINE, create_hello, scenario};

#[test]
fn cluster_impossible_specs_are_refused_by_field() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        let long = "a".repeat(10_000);
        let cases: &[(&[&str], &[&str])] = &[
            (&["big", "--replicas", "1000000"], &["replicas", "100000"]),
            (&["neg", "--replicas", "-1"], &["replicas", "-1"]),
            (&["port", "--publish", "70000:http"], &["70000:http"]),
            (&["port", "--publish", "0:http"], &["0:http"]),
            (&["mem", "--memory", "-64m"], &["memory"]),
            (&["cpu", "--cpu", "-1"], &["cpu"]),
            (&[""], &["name"]),
            (&[&long], &["63"]),
            (&["Web_1"], &["web-1"]),
            (
                &["place", "--constraint", "node.color==red"],
                &["node.color"],
            ),
        ];
        for (args, words) in cases {
            let mut all = vec!["service", "create", "--detach"];
            all.extend(*args);
            all.extend(["--", "true"]);
            let (code, message) = cluster.cli_refused(&all)?;
            let lower = message.to_lowercase();
            ensure!(code == 1 || code == 2, "{args:?}: status {code}");
            ensure!(
                message.len() < 4000,
                "{args:?}: a message of {} bytes",
                message.len()
            );
            for word in *words {
                ensure!(lower.contains(word), "{args:?}: no {word} in {message}");
            }
        }
        let (_, message) = cluster.cli_refused(&["service", "create", "none"])?;
        ensure!(message.contains("ommand"), "a missing command: {message}");
        ensure!(cluster.cli(&["--output", "json", "service", "ls"])?.trim() == "[]");
        Ok(())
    });
}

#[test]
fn cluster_api_refuses_what_the_cli_would_not_send() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        let huge = format!(
            r#"{{"name":"a","task":{{"command":["{}"]}}}}"#,
            "x".repeat(4 << 20)
        );
        let deep = "[".repeat(100_000);
        let cases: &[(&str, &[u16], &str)] = &[
            (
                r#"{"name":"a","task":{"command":["true"]},"replicsa":3}"#,
                &[400, 422],
                "replicsa",
            ),
            (
                r#"{"name":"a","task":{"command":["true"],"resources":{"memory":-1}}}"#,
                &[400, 422],
                "memory",
            ),
            (
                r#"{"name":"a","task":{"command":[]}}"#,
                &[400, 422],
                "command",
            ),
            ("{", &[400, 422], ""),
            ("", &[400, 411, 415, 422], ""),
            (&huge, &[400, 413, 422], ""),
            (&deep, &[400, 413, 422], ""),
        ];
        for (body, statuses, word) in cases {
            let start: String = body.chars().take(60).collect();
            let response = cluster
                .api("POST", "/v1/services", Some(body))
                .with_context(|| format!("answered: {start}"))?;
            ensure!(
                statuses.contains(&response.status),
                "{start}: {} {}",
                response.status,
                response.text()
            );
            let problem: serde_json::Value = serde_json::from_slice(&response.body)
                .with_context(|| format!("a problem document: {}", response.text()))?;
            ensure!(problem["status"] == response.status, "{problem}");
            ensure!(problem.to_string().contains(word), "no {word} in {problem}");
        }
        let response = cluster.api("GET", "/v1/nothing", None)?;
        ensure!(response.status == 404, "{}", response.status);
        let response = cluster.api("GET", "/v1/openapi.json", None)?;
        ensure!(response.status == 200, "{}", response.status);
        Ok(())
    });
}

#[test]
fn cluster_published_port_belongs_to_one_service() {
    scenario(Cluster::builder().agents(1), |cluster| {
        create_hello(cluster, "first", 1, 8080, &[])?;
        cluster.wait_healthy("first", 1, DEADLINE)?;
        let (_, message) = cluster.cli_refused(&[
            "service",
            "create",
            "second",
            "--detach",
            "--publish",
            "8080:http",
            "--",
            "true",
        ])?;
        ensure!(
            message.contains("8080") && message.contains("first"),
            "{message}"
        );
        let (_, message) =
            cluster.cli_refused(&["service", "create", "first", "--detach", "--", "true"])?;
        ensure!(message.contains("first"), "{message}");
        Ok(())
    });
}

#[test]
fn cluster_compose_files_that_bomb_or_lie_are_refused() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let before = format!("*a{},", level - 1).repeat(10);
            let _ = writeln!(bomb, "a{level}: &a{level} [{before}]");
        }
        bomb.push_str("services: {web: {command: *a11}}\n");
        let deep = format!("services: {}\n", "[".repeat(50_000));
        let cases = [
            ("bomb", bomb.as_str(), ""),
            ("deep", deep.as_str(), ""),
            ("empty", "", ""),
            ("list", "- 1\n", ""),
            (
                "unknown",
                "services:\n  web:\n    comand: [\"true\"]\n",
                "comand",
            ),
            (
                "port",
                "services:\n  web:\n    command: [\"true\"]\n    ports: [\"70000:80\"]\n",
                "70000",
            ),
            (
                "replicas",
                "services:\n  web:\n    command: [\"true\"]\n    deploy: {replicas: -3}\n",
                "replicas",
            ),
        ];
        for (name, text, word) in cases {
            let path = cluster.dir().join(format!("{name}.yaml"));
            std::fs::write(&path, text)?;
            let path = path.display().to_string();
            let start = std::time::Instant::now();
            let (code, message) =
                cluster.cli_refused(&["stack", "deploy", "--detach", "-c", &path, name])?;
            ensure!(code == 1 || code == 2, "{name}: status {code}");
            ensure!(message.contains(word), "{name}: {message}");
            ensure!(
                start.elapsed() < DEADLINE,
                "{name}: took {:?}",
                start.elapsed()
            );
        }
        Ok(())
    });
}

#[test]
fn cluster_missing_command_is_rejected_by_name() {
    scenario(Cluster::builder().agents(1).ingresses(0), |cluster| {
        cluster.cli(&[
            "service",
            "create",
            "gone",
            "--detach",
            "--",
            "/no/such/program",
        ])?;
        cluster
            .wait_until("it is rejected and says why", DEADLINE, |c| {
                c.tasks("gone").is_ok_and(|tasks| {
                    tasks.iter().any(|task| {
                        matches!(task.state, TaskState::Rejected | TaskState::Failed)
                            && task.message.contains("/no/such/program")
                    })
                })
            })
            .with_context(|| cluster.describe("gone"))?;
        Ok(())
    });
}

#[test]
fn cluster_of_no_replicas_is_a_service_without_tasks() {
    scenario(Cluster::builder().agents(1), |cluster| {
        create_hello(cluster, "web", 0, 8080, &[])?;
        let view = cluster.service("web")?;
        ensure!(view.replicas.desired == 0, "{:?}", view.replicas);
        // Nobody answers, and the ingress says so instead of hanging.
        cluster.wait_until("503 for an empty service", DEADLINE, |c| {
            c.request(c.ingress(0).address(8080), "GET", "/", None)
                .is_ok_and(|response| response.status == 503)
        })?;
        cluster.cli(&["service", "scale", "web=1"])?;
        cluster.wait_healthy("web", 1, DEADLINE)?;
        Ok(())
    });
}
