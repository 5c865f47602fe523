//! The examples of `examples/`, each with a real program, deployed and asked.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_tests::cluster::Cluster;

use crate::scenario::{DEADLINE, scenario, skip};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
}

/// Returns whether a program can be started; says SKIP if not.
fn has(test: &str, program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip(
            test,
            &format!("{program} is not installed; `cargo xtask setup` does that"),
        );
    }
    found
}

/// Deploys an example and returns the port that its only service publishes.
fn deploy(cluster: &Cluster, file: &str, stack: &str) -> Result<u16> {
    let path = example(file).canonicalize().context("the example")?;
    cluster.cli(&["stack", "deploy", "-c", &path.display().to_string(), stack])?;
    let response = cluster.api("GET", "/v1/services", None)?;
    let services: Vec<ballast_model::view::ServiceView> = serde_json::from_slice(&response.body)?;
    let service = services
        .iter()
        .find(|service| {
            service
                .spec
                .ports
                .iter()
                .any(|port| port.published.is_some())
        })
        .with_context(|| format!("a published port: {}", response.text()))?;
    let view = &service.replicas;
    ensure!(view.healthy == view.desired, "deploy waits: {view:?}");
    service
        .spec
        .ports
        .iter()
        .find_map(|port| port.published)
        .context("a published port")
}

fn answers_http(cluster: &Cluster, port: u16) -> Result<String> {
    let (text, _) = cluster.wait_for("200 through the ingress", DEADLINE, |c| {
        let response = c
            .request(c.ingress(0).address(port), "GET", "/", None)
            .ok()?;
        (response.status == 200).then(|| response.text())
    })?;
    Ok(text)
}

fn example_answers(file: &str, stack: &str) {
    // `ballast-hello` is looked up by name, as a user's programs are.
    let dir = ballast_tests::cluster::bin_dir().expect("a target folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let builder = Cluster::builder().env("PATH", &format!("{}:{path}", dir.display()));
    scenario(builder, |cluster| {
        let port = deploy(cluster, file, stack)?;
        answers_http(cluster, port)?;
        cluster.cli(&["stack", "rm", stack])?;
        cluster.wait_until("no task is left", DEADLINE, |c| {
            c.agents().all(|host| host.task_pids().is_empty())
        })?;
        Ok(())
    });
}

#[test]
fn cluster_example_hello_answers() {
    example_answers("hello.yaml", "hello");
}

#[test]
fn cluster_example_python_answers() {
    if has("cluster_example_python_answers", "python3") {
        example_answers("python.yaml", "python");
    }
}

#[test]
fn cluster_example_nginx_answers() {
    if has("cluster_example_nginx_answers", "nginx") {
        example_answers("nginx.yaml", "nginx");
    }
}

#[test]
fn cluster_example_redis_answers_over_tcp() {
    if !has("cluster_example_redis_answers_over_tcp", "redis-server") {
        return;
    }
    scenario(Cluster::builder(), |cluster| {
        let port = deploy(cluster, "redis.yaml", "redis")?;
        let address = cluster.ingress(0).address(port);
        cluster.wait_until("PONG through the ingress", DEADLINE, |c| {
            let ping = || -> Result<bool> {
                let mut stream = std::net::TcpStream::connect(address)?;
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.write_all(b"PING\r\n")?;
                let mut answer = [0; 7];
                stream.read_exact(&mut answer)?;
                Ok(&answer == b"+PONG\r\n")
            };
            c.client()
                .inside(ping)
                .and_then(|pong| pong)
                .unwrap_or(false)
        })?;
        Ok(())
    });
}
