//! Logs of the roles: on standard error, for people or one JSON object a line.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_lb::LogControl;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::LogFormat;

/// What a role logs unless `BALLAST_LOG` says otherwise. The libraries below speak up only when
/// something is wrong.
pub(super) const ROLE: &str = "warn,ballast=info,ballast_manager=info,ballast_agent=info,ballast_lb=info,ballast_link=info,ballast_cli=info";
/// What `ballast dev` logs unless `BALLAST_LOG` says otherwise: it shows itself what happens.
pub(super) const DEV: &str = "error";

/// Sets it up, once for the process; returns how it is changed while the process runs.
pub(super) fn start(format: LogFormat, default: &str) -> Arc<Control> {
    let said = std::env::var("BALLAST_LOG").unwrap_or_default();
    let said = if said.is_empty() { default } else { &said };
    let filter = EnvFilter::builder().parse_lossy(said);
    let colored = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(colored);
    let reload: Reload = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            // An error means that the process has a subscriber already, as in tests.
            let _ = builder.try_init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
    };
    Arc::new(Control {
        filter: Mutex::new(said.to_owned()),
        reload,
    })
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes what the process logs.
pub(super) struct Control {
    filter: Mutex<String>,
    reload: Reload,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl LogControl for Control {
    fn filter(&self) -> String {
        let filter = self.filter.lock();
        filter.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_filter(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::builder().parse(filter);
        let parsed = parsed.map_err(|error| format!("`{filter}` is not a filter: {error}"))?;
        (self.reload)(parsed)?;
        let mut held = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        filter.clone_into(&mut held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_that_cannot_be_read_changes_nothing() {
        let control = start(LogFormat::Text, "warn");
        let before = control.filter();
        let refused = control.set_filter("ballast_lb=loud").expect_err("is wrong");
        assert!(refused.contains("ballast_lb=loud"), "{refused}");
        assert_eq!(control.filter(), before);
    }
}
