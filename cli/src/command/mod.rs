//! What each command does: requests to the API, and what is shown of the answers.

mod converge;
mod events;
mod ingress;
mod logs;
mod node;
mod plan;
mod pool;
mod service;
mod simulate;
mod spec_edit;
mod stack;

use std::time::SystemTime;

use ballast_model::Timestamp;
use clap::CommandFactory;

use crate::api::{Api, ClientFiles, Host};
use crate::args::{Cli, Command, Global, Output};
use crate::{Failure, render, role};

pub(crate) use ingress::ingress;

pub use converge::{Watch, converge};
pub use stack::{read_compose, stack_name};

/// Runs one command line.
///
/// # Errors
/// Why it was not done.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Dev(args) => role::dev(&global, args),
        Command::Manager(args) => role::manager(&global, args),
        Command::Agent(args) => role::agent(&global, args),
        Command::Ingress(args) => role::ingress(&global, args),
        Command::Service(command) => client(&global, |client| async move {
            service::run(&client, command).await
        }),
        Command::Stack(command) => client(&global, |client| async move {
            stack::run(&client, command).await
        }),
        Command::Plan(args) => client(
            &global,
            |client| async move { plan::run(&client, args).await },
        ),
        Command::Rebalance(args) => client(&global, |client| async move {
            plan::rebalance(&client, &args).await
        }),
        Command::Node(command) => client(&global, |client| async move {
            node::run(&client, command).await
        }),
        Command::Pool(command) => client(&global, |client| async move {
            pool::run(&client, command).await
        }),
        Command::Events(args) => {
            client(
                &global,
                |client| async move { events::run(&client, args).await },
            )
        }
        Command::Simulate(args) => simulate::run(&args, global.output),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "ballast", &mut script);
            render::line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

/// What a command that talks to the API has at hand.
#[derive(Debug)]
pub struct Client {
    /// The API.
    pub api: Api,
    /// How results are printed.
    pub output: Output,
}

impl Client {
    /// Returns whether results are printed for programs.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Returns the service's own name: itself, or for a short name the one service of a stack that
    /// it can mean (`api` for `shop-api`, `shop_api` as Docker writes it).
    ///
    /// # Errors
    /// The manager's refusal, if there is no such service or more than one.
    pub async fn resolve(&self, name: &str) -> Result<String, Failure> {
        let refusal = match self.api.service(name).await {
            Ok(service) => return Ok(service.name),
            Err(failure) if failure.is_not_found() => failure,
            Err(failure) => return Err(failure),
        };
        let dashed = name.replace('_', "-");
        let services = self.api.services().await?;
        let mut meant = services.iter().filter(|service| {
            let short = service.spec.stack.as_ref().and_then(|stack| {
                let rest = service.name.strip_prefix(stack.as_str())?;
                rest.strip_prefix('-')
            });
            service.name == dashed || short == Some(name)
        });
        match (meant.next(), meant.next()) {
            (Some(service), None) => Ok(service.name.clone()),
            _ => Err(refusal),
        }
    }
}

/// Runs a command against the API, on a runtime of one thread: it waits more than it works.
fn client<F, Fut>(global: &Global, command: F) -> Result<(), Failure>
where
    F: FnOnce(Client) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let host = Host::parse(global.host.as_deref())?;
    let api = Api::new(host, &files(global))?;
    let client = Client {
        api,
        output: global.output,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command(client))
}

fn files(global: &Global) -> ClientFiles {
    ClientFiles {
        cert: global.tls_cert.clone(),
        key: global.tls_key.clone(),
        ca: global.tls_ca.clone(),
    }
}

/// Returns the time of this machine's clock.
pub fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
}
