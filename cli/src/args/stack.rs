//! `ballast stack …`

use clap::{Args, Subcommand};

use super::WaitArgs;

/// What to do with stacks.
#[derive(Debug, Subcommand)]
pub enum StackCommand {
    /// Makes a stack what a Compose file says: creates, updates and removes its services
    Deploy(DeployArgs),
    /// Lists stacks
    Ls,
    /// Lists the tasks of a stack
    Ps {
        /// The stack
        stack: String,
    },
    /// Removes a stack with all its services
    Rm {
        /// The stacks
        #[arg(required = true)]
        stacks: Vec<String>,
    },
}

/// Of `stack deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The Compose file; `-` reads standard input
    #[arg(long = "compose-file", short, value_name = "FILE")]
    pub compose_file: String,
    /// The stack's name
    pub stack: String,
    /// Whether and how long to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}
