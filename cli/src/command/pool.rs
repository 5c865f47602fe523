//! `ballast pool …`

use ballast_model::Pool;

use super::Client;
use crate::Failure;
use crate::args::{PoolCommand, PoolSet};
use crate::render::{self, Style};

/// Runs one of them.
pub(super) async fn run(client: &Client, command: PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::Ls => {
            let pools = client.api.pools().await?;
            if client.is_json() {
                return render::json(&pools);
            }
            render::line(&render::pools(&pools, Style::detect()))
        }
        PoolCommand::Set(args) => set(client, args).await,
        PoolCommand::Rm { name } => {
            client.api.remove_pool(&name).await?;
            if client.is_json() {
                return render::json(&serde_json::json!({ "removed": [name] }));
            }
            render::line(&name)
        }
    }
}

async fn set(client: &Client, args: PoolSet) -> Result<(), Failure> {
    let known = client.api.pools().await?;
    let known = known.into_iter().find(|pool| pool.name == args.name);
    let before = known.unwrap_or_default();
    let wanted = Pool {
        name: args.name,
        overcommit_cpu_percent: args.overcommit_cpu.unwrap_or(before.overcommit_cpu_percent),
        overcommit_memory_percent: args
            .overcommit_memory
            .unwrap_or(before.overcommit_memory_percent),
        reserved_cpu: args.reserve_cpu.unwrap_or(before.reserved_cpu),
        reserved_memory: args.reserve_memory.unwrap_or(before.reserved_memory),
    };
    let pool = client.api.set_pool(&wanted).await?;
    if client.is_json() {
        return render::json(&pool);
    }
    render::line(&pool.name)
}
