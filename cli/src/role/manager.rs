//! `ballast manager`

use ballast_manager::{RawConfig, Ready};
use tokio::sync::oneshot;

use super::{chain, logging, process, read_config};
use crate::Failure;
use crate::args::{Global, ManagerArgs};

/// Runs a manager until it is told to end.
///
/// # Errors
/// If its configuration is wrong, or it cannot start or go on.
pub fn manager(global: &Global, args: ManagerArgs) -> Result<(), Failure> {
    logging::start(global.log, logging::ROLE);
    let config = RawConfig::from_yaml(&read_config(args.config.as_deref())?)
        .and_then(|file| file.overridden_by(flags(args)).validate())
        .map_err(|error| Failure::Failed(chain(&error)))?;
    process::run(|shutdown| async move {
        let (on_ready, ready) = oneshot::channel();
        let running = ballast_manager::run_until(config, on_ready, shutdown);
        let announce = async {
            if let Ok(ready) = ready.await {
                announce(&ready);
            }
        };
        let (result, ()) = tokio::join!(running, announce);
        result.map_err(|error| Failure::Failed(chain(&error)))
    })
}

fn flags(args: ManagerArgs) -> RawConfig {
    RawConfig {
        data_dir: args.data_dir,
        socket: args.socket,
        listen: args.listen,
        advertise: args.advertise,
        admin: args.admin,
        ..RawConfig::default()
    }
}

/// Says where it listens, and after the cluster was made how others join.
fn announce(ready: &Ready) {
    println!("API: unix://{}", ready.socket.display());
    println!("links: {}", ready.links);
    if let Some(admin) = ready.admin {
        println!("metrics: http://{admin}/metrics");
    }
    if ready.founded {
        println!("\nA new cluster was made. To add a machine that runs tasks:\n");
        println!("    ballast agent --join {}", ready.agent_token);
        println!("\nand one that routes traffic to them:\n");
        println!("    ballast ingress --join {}\n", ready.ingress_token);
        println!("`ballast node join-token agent|ingress` shows these again.");
    }
}
