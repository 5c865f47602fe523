//! Who is let in, and what the others are told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_link::{Credentials, Link, Peer, Role as LinkRole, Trust, alpn};
use ballast_model::view::NodeView;
use ballast_model::{
    Bytes, Capacity, Generation, Incarnation, MilliCpu, NodeDescription, NodeId, NodeStatus,
    PortRange,
};
use ballast_tests::cluster::{Cluster, Host, Role};
use ballast_wire::agent::{AgentHello, AgentToManager, ManagerToAgent};
use ballast_wire::feed::{AgentToIngress, IngressToAgent};

use crate::scenario::{DEADLINE, scenario};

/// Of certificates, in the test that waits for their end.
const LIFETIME: Duration = Duration::from_secs(10);

/// Starts an agent on a host of its own data folder with these arguments; returns what it says
/// when it gives up.
fn refused(cluster: &Cluster, name: &str, args: &[&str]) -> Result<String> {
    let host = cluster.client();
    let data = cluster.dir().join("data").join(name);
    let mut command = std::process::Command::new(cluster.bin("ballast")?);
    command.args(args).arg("--data-dir").arg(data);
    command.args(["--name", name, "--admin", "off"]);
    let mut process = host.spawn(name, &mut command)?;
    let status = process
        .wait(DEADLINE)
        .with_context(|| format!("{name} is not refused: {}", process.log()))?;
    ensure!(!status.success(), "{name} is let in: {}", process.log());
    Ok(process.log())
}

fn says(log: &str, words: &[&str]) -> Result<()> {
    let lower = log.to_lowercase();
    ensure!(
        words.iter().any(|word| lower.contains(word)),
        "none of {words:?} in: {log}"
    );
    Ok(())
}

#[test]
fn cluster_joiner_with_a_wrong_token_is_told_which_is_wrong() {
    scenario(Cluster::builder().agents(0).ingresses(0), |cluster| {
        let token = cluster.join_token(Role::Agent)?;
        let (head, address) = token.split_once('@').context("an address in the token")?;
        let (front, secret) = head.rsplit_once('-').context("a secret in the token")?;
        let (kind, digest) = front.rsplit_once('-').context("a digest in the token")?;
        let flip = |text: &str| -> String {
            let first = if text.starts_with('1') { "2" } else { "1" };
            format!("{first}{}", &text[1..])
        };

        let wrong_secret = format!("{front}-{}@{address}", flip(secret));
        let log = refused(cluster, "secret", &["agent", "--join", &wrong_secret])?;
        says(&log, &["token", "secret"])?;

        let other_cluster = format!("{kind}-{}-{secret}@{address}", flip(digest));
        let log = refused(cluster, "digest", &["agent", "--join", &other_cluster])?;
        says(
            &log,
            &[
                "another ca",
                "ca's digest",
                "digest",
                "another cluster",
                "other cluster",
            ],
        )?;

        let ingress = cluster.join_token(Role::Ingress)?;
        let log = refused(cluster, "role", &["agent", "--join", &ingress])?;
        says(&log, &["ingress"])?;

        let log = refused(
            cluster,
            "garbage",
            &["agent", "--join", "BALLAST-1-agent-zzz"],
        )?;
        says(&log, &["token"])?;

        let log = refused(cluster, "nothing", &["agent", "--manager", address])?;
        says(&log, &["join"])?;

        cluster.cli(&["node", "join-token", "agent", "--rotate"])?;
        let log = refused(cluster, "rotated", &["agent", "--join", &token])?;
        says(&log, &["rotated", "token"])?;
        ensure!(cluster.nodes()?.is_empty(), "nobody was let in");
        Ok(())
    });
}

/// Returns the folder below `dir` that holds a member's certificate.
fn identity_dir(dir: &Path) -> Result<PathBuf> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.ends_with("certificate.pem") {
                return Ok(folder);
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    bail!("no certificate below {}", dir.display())
}

fn credentials(host: &Host) -> Result<Credentials> {
    let dir = identity_dir(host.data_dir())?;
    Credentials::load(&dir)?.with_context(|| format!("no credentials in {}", dir.display()))
}

/// Runs a conversation of our own from a host.
fn talk<T: Send>(host: &Host, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    host.inside(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?
            .block_on(async {
                tokio::time::timeout(DEADLINE, work)
                    .await
                    .context("no answer in time")?
            })
    })?
}

/// Returns the first words of an agent that claims to be `node`.
fn hello_as(node: NodeId, view: NodeView) -> Result<AgentHello> {
    Ok(AgentHello {
        node,
        incarnation: Incarnation(u64::MAX),
        description: NodeDescription {
            name: view.name,
            address: view.address.parse()?,
            capacity: Capacity {
                task_slots: 1,
                ports: PortRange {
                    first: 20_000,
                    last: 20_001,
                },
                ..Capacity::of(MilliCpu::from_cores(1), Bytes::from_mib(64))
            },
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
            pool: ballast_model::node::DEFAULT_POOL.to_owned(),
        },
        generation: Generation(0),
        tasks: Vec::new(),
    })
}

#[test]
fn cluster_certificate_speaks_only_for_its_own_node() {
    scenario(Cluster::builder().agents(2), |cluster| {
        let stolen = credentials(cluster.agent(0))?;
        let victim = NodeId::from_bits(credentials(cluster.agent(1))?.identity.id);
        let node = cluster.nodes()?.remove(0);
        let hello = AgentToManager::Hello(hello_as(victim, node)?);
        let trust = Trust::new(stolen)?;
        let peer = Peer {
            address: cluster.manager().address(7400),
            role: LinkRole::Manager,
            id: None,
        };
        let answer = talk(cluster.agent(0), async {
            let (stream, identity) = trust.connect(peer, alpn::LINK).await?;
            let link = Link::<AgentToManager, ManagerToAgent>::new(stream, identity);
            let (mut sender, mut receiver) = (link.sender, link.receiver);
            sender.send(&hello).await?;
            Ok(receiver.recv().await?)
        })?;
        let Some(ManagerToAgent::Refused(reason)) = answer else {
            bail!("the manager answers {answer:?}");
        };
        says(&reason, &["certificate"])?;

        let hello = AgentToIngress::Hello {
            node: victim,
            incarnation: Incarnation(u64::MAX),
        };
        let peer = Peer {
            address: cluster.ingress(0).address(7430),
            role: LinkRole::Ingress,
            id: None,
        };
        let answer = talk(cluster.agent(0), async {
            let (stream, identity) = trust.connect(peer, alpn::FEED).await?;
            let link = Link::<AgentToIngress, IngressToAgent>::new(stream, identity);
            let (mut sender, mut receiver) = (link.sender, link.receiver);
            sender.send(&hello).await?;
            // A closed connection is a refusal as well.
            Ok(receiver.recv().await.ok().flatten())
        })?;
        ensure!(answer.is_none(), "the ingress answers {answer:?}");
        cluster.wait_until("its log says why", DEADLINE, |c| {
            let log = c.ingress(0).log();
            log.contains("certificate") || log.contains("speaks for")
        })?;
        ensure!(
            cluster
                .nodes()?
                .iter()
                .all(|node| node.status == NodeStatus::Ready),
            "the others are left in peace"
        );
        Ok(())
    });
}

#[test]
fn cluster_certificates_are_renewed_and_expired_ones_refused() {
    let folder = std::env::temp_dir().join(format!("ballast-lifetime-{}.yaml", std::process::id()));
    std::fs::write(
        &folder,
        format!("certificate_lifetime: {}s\n", LIFETIME.as_secs()),
    )
    .expect("the manager's configuration");
    let config = folder.display().to_string();
    let builder = Cluster::builder()
        .agents(2)
        .role_args(Role::Manager, &["--config", &config]);
    scenario(builder, |cluster| {
        let issued = Instant::now();
        let first = credentials(cluster.agent(0))?.not_after;
        cluster.agent(1).terminate(DEADLINE)?;
        cluster.wait_until("the running agent renews", LIFETIME, |c| {
            credentials(c.agent(0)).is_ok_and(|now| now.not_after > first)
        })?;
        cluster.wait_until("the other's has expired", LIFETIME * 2, |_| {
            issued.elapsed() > LIFETIME + Duration::from_secs(3)
        })?;
        ensure!(
            cluster
                .nodes()?
                .iter()
                .any(|node| node.status == NodeStatus::Ready),
            "who renewed is still in"
        );
        let args: Vec<OsString> = cluster.agent(1).args();
        let without_token = args.iter().take_while(|arg| *arg != "--join").cloned();
        cluster.agent(1).set_args(without_token.collect::<Vec<_>>());
        cluster.agent(1).start()?;
        cluster.wait_until("it is told that it has expired", DEADLINE, |c| {
            c.agent(1).log().contains("expired")
        })?;
        Ok(())
    });
    let _ = std::fs::remove_file(folder);
}
