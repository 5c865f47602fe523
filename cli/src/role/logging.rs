//! Logs of the roles: on standard error, for people or one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::LogFormat;

/// What a role logs unless `BALLAST_LOG` says otherwise. The libraries below speak up only when
/// something is wrong.
pub(super) const ROLE: &str = "warn,ballast=info,ballast_manager=info,ballast_agent=info,ballast_lb=info,ballast_link=info,ballast_cli=info";
/// What `ballast dev` logs unless `BALLAST_LOG` says otherwise: it shows itself what happens.
pub(super) const DEV: &str = "error";

/// Sets it up, once for the process.
pub(super) fn start(format: LogFormat, default: &str) {
    let filter = std::env::var("BALLAST_LOG").unwrap_or_default();
    let filter = if filter.is_empty() { default } else { &filter };
    let filter = EnvFilter::builder().parse_lossy(filter);
    let colored = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(colored);
    // An error means that the process has a subscriber already, as in tests.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
