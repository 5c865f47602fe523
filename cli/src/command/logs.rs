//! `ballast service logs`

use std::io::Write;

use ballast_model::view::{LogLine, LogStream};

use super::Client;
use crate::Failure;
use crate::args::LogsArgs;

/// Prints what a service's tasks print: their standard output on ours, their standard error on
/// ours, each line after `name.slot@node |`.
pub(super) async fn run(client: &Client, args: LogsArgs) -> Result<(), Failure> {
    let name = client.resolve(&args.name).await?;
    let mut stream = client.api.logs(&name, args.tail, args.follow).await?;
    let mut width = 0;
    while let Some(line) = stream.next().await? {
        if args.slot.is_some_and(|slot| line.slot.0 != slot) {
            continue;
        }
        if client.is_json() {
            crate::render::json_line(&line)?;
            continue;
        }
        let text = if args.raw {
            line.line.clone()
        } else {
            prefixed(&name, &line, &mut width)
        };
        match line.stream {
            LogStream::Stdout => crate::render::line(&text)?,
            LogStream::Stderr => writeln!(std::io::stderr().lock(), "{text}")?,
        }
    }
    Ok(())
}

/// Returns the line behind whose it is; the bars stay below each other.
fn prefixed(name: &str, line: &LogLine, width: &mut usize) -> String {
    let whose = format!("{name}.{}@{}", line.slot, line.node);
    *width = (*width).max(whose.chars().count());
    format!("{whose:<width$} | {}", line.line, width = *width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{Slot, TaskId};

    #[test]
    fn bars_stay_below_each_other() {
        let line = |slot, text: &str| LogLine {
            task: TaskId::from_bits(1),
            slot: Slot(slot),
            node: "n1".to_owned(),
            stream: LogStream::Stdout,
            line: text.to_owned(),
        };
        let mut width = 0;
        assert_eq!(prefixed("web", &line(10, "a"), &mut width), "web.10@n1 | a");
        assert_eq!(prefixed("web", &line(2, "b"), &mut width), "web.2@n1  | b");
    }
}
