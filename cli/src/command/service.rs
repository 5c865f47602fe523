//! `ballast service …`

use std::collections::BTreeSet;

use ballast_model::view::ServiceView;
use ballast_model::{PortSpec, ServiceSpec, TaskTemplate};

use super::{Client, Watch, converge, logs, now, spec_edit};
use crate::Failure;
use crate::args::{CreateArgs, ScaleArgs, ServiceCommand, SpecArgs, UpdateArgs, WaitArgs};
use crate::render::{self, Style};

/// Runs one of them.
pub(super) async fn run(client: &Client, command: ServiceCommand) -> Result<(), Failure> {
    match command {
        ServiceCommand::Create(args) => create(client, *args).await,
        ServiceCommand::Ls => {
            let services = client.api.services().await?;
            if client.is_json() {
                return render::json(&services);
            }
            render::line(&render::services(&services, Style::detect()))
        }
        ServiceCommand::Ps { names } => ps(client, &names).await,
        ServiceCommand::Inspect { name } => {
            let name = client.resolve(&name).await?;
            render::json(&client.api.service(&name).await?)
        }
        ServiceCommand::Logs(args) => logs::run(client, args).await,
        ServiceCommand::Scale(args) => scale(client, args).await,
        ServiceCommand::Update(args) => update(client, *args).await,
        ServiceCommand::Rollback { name, wait } => {
            let name = client.resolve(&name).await?;
            let view = client.api.rollback(&name).await?;
            finish(client, vec![view], &wait).await
        }
        ServiceCommand::Rm { names } => {
            let mut removed = Vec::new();
            for name in names {
                let name = client.resolve(&name).await?;
                client.api.remove_service(&name).await?;
                if !client.is_json() {
                    render::line(&name)?;
                }
                removed.push(name);
            }
            if client.is_json() {
                render::json(&serde_json::json!({ "removed": removed }))?;
            }
            Ok(())
        }
    }
}

async fn create(client: &Client, args: CreateArgs) -> Result<(), Failure> {
    let spec = new_spec(args.name, &args.spec)?;
    let view = client.api.create_service(&spec).await?;
    finish(client, vec![view], &args.wait).await
}

/// Returns the spec of a new service.
pub(super) fn new_spec(name: String, args: &SpecArgs) -> Result<ServiceSpec, Failure> {
    let mut spec = ServiceSpec {
        name,
        stack: None,
        labels: std::collections::BTreeMap::new(),
        mode: ballast_model::Mode::default(),
        task: TaskTemplate::default(),
        placement: ballast_model::Placement::default(),
        ports: Vec::new(),
        routes: Vec::new(),
        update: ballast_model::UpdatePolicy::default(),
    };
    spec_edit::apply(&mut spec, args)?;
    Ok(spec)
}

async fn update(client: &Client, args: UpdateArgs) -> Result<(), Failure> {
    let spec = updated_spec(client, &args).await?;
    let view = client.api.update_service(&spec).await?;
    finish(client, vec![view], &args.wait).await
}

/// Returns a service's spec with what is to change.
pub(super) async fn updated_spec(
    client: &Client,
    args: &UpdateArgs,
) -> Result<ServiceSpec, Failure> {
    let name = client.resolve(&args.name).await?;
    let mut spec = client.api.service(&name).await?.spec;
    let before = spec.clone();
    for key in &args.env_rm {
        spec.task.env.remove(key);
    }
    for key in &args.label_rm {
        spec.labels.remove(key);
    }
    remove_ports(&mut spec.ports, &args.publish_rm)?;
    if args.rules_clear {
        spec.placement.affinities.clear();
        spec.placement.services.clear();
        spec.placement.tolerations.clear();
    }
    if args.constraint_clear {
        spec.placement.constraints.clear();
    }
    if args.route_clear {
        spec.routes.clear();
    }
    spec_edit::apply(&mut spec, &args.spec)?;
    if spec == before {
        return Err(Failure::Usage(format!(
            "nothing to change: `{name}` is already like this; `ballast service update --help` lists what can be changed"
        )));
    }
    Ok(spec)
}

fn remove_ports(ports: &mut Vec<PortSpec>, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let known: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        if !known.contains(name.as_str()) {
            let list: Vec<&str> = known.into_iter().collect();
            return Err(Failure::Failed(format!(
                "the service has no port `{name}`; it has: {}",
                list.join(", ")
            )));
        }
        ports.retain(|port| &port.name != name);
    }
    Ok(())
}

async fn scale(client: &Client, args: ScaleArgs) -> Result<(), Failure> {
    let mut views = Vec::new();
    for to in &args.to {
        let name = client.resolve(&to.name).await?;
        views.push(client.api.scale(&name, to.replicas).await?);
    }
    finish(client, views, &args.wait).await
}

async fn ps(client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for name in names {
        let name = client.resolve(name).await?;
        tasks.extend(client.api.tasks(&name).await?);
    }
    if client.is_json() {
        return render::json(&tasks);
    }
    render::line(&render::tasks(&tasks, now(), Style::detect()))
}

/// Waits for the replicas unless told not to, and prints what was changed.
async fn finish(client: &Client, views: Vec<ServiceView>, wait: &WaitArgs) -> Result<(), Failure> {
    let watches: Vec<Watch> = views.iter().map(Watch::of).collect();
    let outcome = if wait.detach {
        Ok(views)
    } else {
        converge(&client.api, &watches, wait.timeout).await
    };
    let views = outcome?;
    if client.is_json() {
        // One service in, one object out; several in, an array.
        return match views.as_slice() {
            [view] => render::json(view),
            views => render::json(views),
        };
    }
    for view in &views {
        render::line(&view.name)?;
    }
    Ok(())
}
