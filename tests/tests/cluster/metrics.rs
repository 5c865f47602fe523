//! What the roles count, held against `docs/metrics.md`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ballast_tests::cluster::Cluster;

use crate::scenario::{DEADLINE, create_hello, scenario};

/// Families that appear only in trouble, with TLS, or at layer 4, none of which this test makes.
const NOT_MADE: [&str; 11] = [
    "ballast_agent_task_rejections",
    "ballast_ingress_retries",
    "ballast_ingress_tls_handshakes",
    "ballast_ingress_http2_floods",
    "ballast_ingress_certificate_expiry_timestamp_seconds",
    "ballast_l4_packets",
    "ballast_l4_real_packets",
    "ballast_l4_real_bytes",
    "ballast_l4_real_flows",
    "ballast_l4_real_resets",
    "ballast_l4_real_active",
];

#[test]
fn cluster_metrics_are_those_of_the_documentation() {
    scenario(Cluster::builder(), |cluster| {
        create_hello(cluster, "web", 2, 8080, &[])?;
        cluster.wait_healthy("web", 2, DEADLINE)?;
        let address = cluster.ingress(0).address(8080);
        cluster.wait_until("it answers", DEADLINE, |c| {
            c.request(address, "GET", "/", None)
                .is_ok_and(|answer| answer.status == 200)
        })?;
        let first = cluster.tasks("web")?.into_iter().find_map(|task| task.pid);
        let pid = first.context("a task runs")?.to_string();
        let killed = std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()?;
        ensure!(killed.success(), "the task can be killed");

        let documented = documented()?;
        let unseen = std::cell::RefCell::new(Vec::new());
        let all = cluster.wait_until("every family was seen", DEADLINE, |c| {
            let seen = exposed(c).unwrap_or_default();
            let names = documented.keys().map(String::as_str);
            let left = names.filter(|name| !NOT_MADE.contains(name) && !seen.contains_key(*name));
            *unseen.borrow_mut() = left.map(str::to_owned).collect();
            unseen.borrow().is_empty()
        });
        all.with_context(|| format!("unseen: {:?}", unseen.borrow()))?;
        for (name, kind) in exposed(cluster)? {
            let said = documented.get(&name);
            ensure!(
                said == Some(&kind),
                "{name} is a {kind}, docs/metrics.md says {said:?}"
            );
        }
        Ok(())
    });
}

/// Returns name and type of every family that any role exposes.
fn exposed(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let manager = cluster.manager().address(7410);
    let ingress = cluster.ingress(0).address(7431);
    let agents = cluster.agents().map(|agent| agent.address(7420));
    let mut families = BTreeMap::new();
    for address in agents.chain([manager, ingress]) {
        let text = cluster.request(address, "GET", "/metrics", None)?.text();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').context("a name and a type")?;
            families.insert(name.to_owned(), kind.to_owned());
        }
    }
    Ok(families)
}

/// Returns name and type of every row of the documentation's tables.
fn documented() -> Result<BTreeMap<String, String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).context(path)?;
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `ballast_"));
    rows.map(|row| {
        let mut cells = row.split(" | ");
        let name = cells
            .next()
            .and_then(|cell| cell.strip_suffix('`'))
            .context("a name")?;
        let kind = cells.next().context("a type")?;
        Ok((format!("ballast_{name}"), kind.to_owned()))
    })
    .collect()
}
