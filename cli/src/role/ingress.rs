//! `ballast ingress`

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ballast_lb::config::{Config, RawConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{chain, logging, process, read_config};
use crate::args::{Global, IngressArgs};
use crate::{Failure, command};

/// Runs an ingress until it is told to end: as a member of a cluster, or alone with a file of
/// services.
///
/// # Errors
/// If its configuration is wrong, or it cannot start.
pub fn ingress(global: &Global, args: IngressArgs) -> Result<(), Failure> {
    if let Some(command) = args.command {
        return command::ingress(global, args.admin.as_deref(), command);
    }
    let log = logging::start(global.log, logging::ROLE);
    let file = match &args.config {
        None => RawConfig::default(),
        Some(path) => RawConfig::from_text(path, &read_config(Some(path))?)
            .map_err(|error| Failure::Failed(chain(&error)))?,
    };
    let mut config = validate(over(file, args)?)?;
    config.log = Some(log);
    let binary = std::env::current_exe()?;
    process::run_with(config.threads, |shutdown| async move {
        tokio::spawn(successors(binary));
        run(config, shutdown).await
    })
}

/// Starts a successor at each SIGUSR2: the binary that is at `binary` by then, with the arguments
/// of this process. It takes over by itself if the configuration names a socket for that.
async fn successors(binary: PathBuf) {
    let Ok(mut asked) = signal(SignalKind::user_defined2()) else {
        return;
    };
    while asked.recv().await.is_some() {
        let arguments = std::env::args_os().skip(1);
        let spawned = tokio::process::Command::new(&binary)
            .args(arguments)
            .spawn();
        match spawned {
            Ok(mut child) => {
                tracing::info!(pid = child.id(), "successor started");
                // Awaited, so that one that fails is told of and leaves no zombie.
                tokio::spawn(async move {
                    if let Ok(status) = child.wait().await {
                        tracing::warn!(%status, "successor ended");
                    }
                });
            }
            Err(error) => {
                let binary = binary.display();
                tracing::error!(%binary, %error, "no successor started");
            }
        }
    }
}

pub(super) async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    let ended = ballast_lb::run(config, shutdown).await;
    ended.map_err(|error| Failure::Failed(chain(&error)))
}

fn validate(raw: RawConfig) -> Result<Config, Failure> {
    raw.validate()
        .map_err(|error| Failure::Failed(chain(&error)))
}

/// Writes the flags over what the file says.
fn over(mut file: RawConfig, args: IngressArgs) -> Result<RawConfig, Failure> {
    fn address(flag: &str, text: Option<&String>) -> Result<Option<SocketAddr>, Failure> {
        let wrong = |text: &String| {
            Failure::Usage(format!(
                "{flag}: `{text}` is not IP:PORT, such as 0.0.0.0:8000"
            ))
        };
        text.map(|text| text.parse().map_err(|_| wrong(text)))
            .transpose()
    }
    file.listen.http = address("--listen", args.listen.as_ref())?.or(file.listen.http);
    let feed = address("--feed", args.feed.as_ref())?;
    let advertise = address("--advertise-feed", args.advertise_feed.as_ref())?;
    if !args.managers.is_empty() {
        file.manager = args.managers;
    }
    Ok(RawConfig {
        join: args.join.or(file.join),
        name: args.name.or(file.name),
        bind: args.bind.or(file.bind),
        feed: feed.or(file.feed),
        advertise_feed: advertise.or(file.advertise_feed),
        data_dir: args.data_dir.or(file.data_dir),
        admin: args.admin.or(file.admin),
        ..file
    })
}

/// What the ingress of `ballast dev` is told.
pub(super) struct Plan {
    pub join: String,
    pub manager: String,
    pub name: &'static str,
    pub listen: SocketAddr,
    pub bind: IpAddr,
    pub feed: SocketAddr,
    pub data_dir: PathBuf,
}

impl Plan {
    /// Proves it.
    pub(super) fn validate(self) -> Result<Config, Failure> {
        let mut raw = RawConfig {
            join: Some(self.join),
            manager: vec![self.manager],
            name: Some(self.name.to_owned()),
            bind: Some(self.bind),
            feed: Some(self.feed),
            advertise_feed: Some(self.feed),
            data_dir: Some(self.data_dir),
            admin: Some("off".to_owned()),
            ..RawConfig::default()
        };
        raw.listen.http = Some(self.listen);
        validate(raw)
    }
}
