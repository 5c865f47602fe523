//! `ballast plan …`: what a change would do.

use ballast_model::plan::{PlanRequest, PlanView, Rebalance};

use super::{Client, read_compose, service, stack_name};
use crate::Failure;
use crate::args::{PlanArgs, PlanCommand, PlanServiceCommand, RebalanceArgs};
use crate::render::{self, Style};

/// Runs it.
pub(super) async fn run(client: &Client, args: PlanArgs) -> Result<(), Failure> {
    let request = request(client, args).await?;
    show(client, &client.api.plan(&request).await?)
}

/// Runs `rebalance`.
pub(super) async fn rebalance(client: &Client, args: &RebalanceArgs) -> Result<(), Failure> {
    let request = Rebalance {
        defragment: args.defragment,
    };
    let plan = if args.dry_run {
        client.api.plan(&PlanRequest::Rebalance(request)).await?
    } else {
        client.api.rebalance(request).await?
    };
    show(client, &plan)
}

async fn request(client: &Client, args: PlanArgs) -> Result<PlanRequest, Failure> {
    Ok(match (args.command, args.drain, args.compose_file) {
        (Some(PlanCommand::Service(command)), ..) => of_service(client, command).await?,
        (None, Some(node), _) => PlanRequest::Drain { node },
        (None, None, file) => {
            let file = file.unwrap_or_default();
            let name = args.stack.unwrap_or_else(|| stack_name(&file));
            let spec = read_compose(&file, &name)?;
            PlanRequest::Stack {
                name,
                services: spec.services,
            }
        }
    })
}

async fn of_service(client: &Client, command: PlanServiceCommand) -> Result<PlanRequest, Failure> {
    Ok(match command {
        PlanServiceCommand::Create(args) => {
            PlanRequest::Service(Box::new(service::new_spec(args.name, &args.spec)?))
        }
        PlanServiceCommand::Update(args) => {
            PlanRequest::Service(Box::new(service::updated_spec(client, &args).await?))
        }
        PlanServiceCommand::Scale(args) => {
            let [to] = args.to.as_slice() else {
                let text = "one service is planned at a time: `ballast plan service scale NAME=N`";
                return Err(Failure::Usage(text.to_owned()));
            };
            PlanRequest::Scale {
                service: client.resolve(&to.name).await?,
                replicas: to.replicas,
            }
        }
        PlanServiceCommand::Rm { name } => PlanRequest::RemoveService {
            service: client.resolve(&name).await?,
        },
    })
}

/// Prints a plan; one that leaves tasks without a node is a failure.
pub(super) fn show(client: &Client, plan: &PlanView) -> Result<(), Failure> {
    if client.is_json() {
        render::json(plan)?;
    } else {
        render::line(&render::plan(plan, Style::detect()))?;
    }
    match plan.pending.len() {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 task would find no node".to_owned())),
        many => Err(Failure::Failed(format!("{many} tasks would find no node"))),
    }
}
