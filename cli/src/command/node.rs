//! `ballast node …`

use ballast_model::Availability;
use ballast_model::plan::PlanRequest;
use ballast_model::view::{NodePatch, NodeView};

use super::{Client, plan};
use crate::Failure;
use crate::args::NodeCommand;
use crate::render::{self, Style};

/// Runs one of them.
pub(super) async fn run(client: &Client, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Ls => {
            let nodes = client.api.nodes().await?;
            if client.is_json() {
                return render::json(&nodes);
            }
            render::line(&render::nodes(&nodes, Style::detect()))
        }
        NodeCommand::Inspect { node } => render::json(&client.api.node(&node).await?),
        NodeCommand::Drain { node, dry_run } => drain(client, node, dry_run).await,
        NodeCommand::Activate { node } => set(client, &node, Availability::Active).await,
        NodeCommand::Pause { node } => set(client, &node, Availability::Pause).await,
        NodeCommand::Update(args) => {
            let set = args.labels.into_iter().map(|l| (l.key, Some(l.value)));
            let removed = args.label_rm.into_iter().map(|key| (key, None));
            let patch = NodePatch {
                availability: None,
                labels: removed.chain(set).collect(),
                taints: args.taints,
                untaint: args.untaint,
            };
            show(client, &client.api.patch_node(&args.node, &patch).await?)
        }
        NodeCommand::Rm { node } => {
            client.api.remove_node(&node).await?;
            done(client, &node)
        }
        NodeCommand::JoinToken { role, rotate } => {
            let token = client.api.join_token(role.name(), rotate).await?;
            if client.is_json() {
                return render::json(&token);
            }
            render::line(&format!("ballast {} --join {}", token.role, token.token))
        }
    }
}

/// Shows where a node's tasks would go, and drains it unless that is all that was asked.
async fn drain(client: &Client, node: String, dry_run: bool) -> Result<(), Failure> {
    let request = PlanRequest::Drain { node: node.clone() };
    let planned = client.api.plan(&request).await;
    if dry_run {
        return plan::show(client, &planned?);
    }
    match planned {
        // What fits moves, the rest stays until it fits: said before it begins.
        Ok(plan) => eprintln!("{}", render::plan(&plan, Style::PLAIN)),
        Err(failure) if failure.is_not_found() => return Err(failure),
        Err(failure) => eprintln!("warning: the drain could not be planned: {failure}"),
    }
    set(client, &node, Availability::Drain).await
}

async fn set(client: &Client, node: &str, availability: Availability) -> Result<(), Failure> {
    let patch = NodePatch {
        availability: Some(availability),
        ..NodePatch::default()
    };
    show(client, &client.api.patch_node(node, &patch).await?)
}

fn show(client: &Client, node: &NodeView) -> Result<(), Failure> {
    if client.is_json() {
        return render::json(node);
    }
    render::line(&node.name)
}

fn done(client: &Client, name: &str) -> Result<(), Failure> {
    if client.is_json() {
        return render::json(&serde_json::json!({ "removed": [name] }));
    }
    render::line(name)
}
