//! `ballast stack …`

use std::io::Read;
use std::path::Path;

use ballast_model::limits;
use ballast_model::view::StackSpec;

use super::{Client, Watch, converge, now};
use crate::Failure;
use crate::args::{DeployArgs, StackCommand};
use crate::compose::{self, Source};
use crate::render::{self, Style};

/// Bytes of a Compose file: real ones have a few thousand.
const MAX_FILE: u64 = 1 << 20;

/// Runs one of them.
pub(super) async fn run(client: &Client, command: StackCommand) -> Result<(), Failure> {
    match command {
        StackCommand::Deploy(args) => deploy(client, args).await,
        StackCommand::Ls => {
            let stacks = client.api.stacks().await?;
            if client.is_json() {
                return render::json(&stacks);
            }
            render::line(&render::stacks(&stacks))
        }
        StackCommand::Ps { stack } => {
            let stacks = client.api.stacks().await?;
            let known = stacks.iter().find(|known| known.name == stack);
            let Some(known) = known else {
                return Err(no_such_stack(&stack, &stacks));
            };
            let mut tasks = Vec::new();
            for service in &known.services {
                tasks.extend(client.api.tasks(service).await?);
            }
            if client.is_json() {
                return render::json(&tasks);
            }
            render::line(&render::tasks(&tasks, now(), Style::detect()))
        }
        StackCommand::Rm { stacks } => {
            for stack in &stacks {
                client.api.remove_stack(stack).await?;
                if !client.is_json() {
                    render::line(stack)?;
                }
            }
            if client.is_json() {
                render::json(&serde_json::json!({ "removed": stacks }))?;
            }
            Ok(())
        }
    }
}

fn no_such_stack(stack: &str, known: &[ballast_model::view::StackView]) -> Failure {
    let nearest = ballast_model::nearest(stack, known.iter().map(|stack| stack.name.as_str()));
    let help = nearest.map_or_else(
        || "`ballast stack ls` lists them".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    Failure::Failed(format!("there is no stack `{stack}`; {help}"))
}

async fn deploy(client: &Client, args: DeployArgs) -> Result<(), Failure> {
    let spec = read_compose(&args.compose_file, &args.stack)?;
    let names: Vec<String> = spec.services.iter().map(|s| s.name.clone()).collect();
    let result = client.api.deploy(&args.stack, &spec).await?;
    for (list, verb) in [
        (&result.created, "creating"),
        (&result.updated, "updating"),
        (&result.removed, "removing"),
        (&result.unchanged, "unchanged"),
    ] {
        for name in list {
            eprintln!("{verb} {name}");
        }
    }
    if !args.wait.detach {
        let mut watches = Vec::new();
        for name in &names {
            watches.push(Watch::of(&client.api.service(name).await?));
        }
        converge(&client.api, &watches, args.wait.timeout).await?;
    }
    if client.is_json() {
        return render::json(&result);
    }
    render::line(&args.stack)
}

/// Reads a Compose file (`-` for standard input) into a stack; prints its warnings on standard
/// error.
///
/// # Errors
/// Everything that is wrong with the file, each with its line.
pub fn read_compose(file: &str, stack: &str) -> Result<StackSpec, Failure> {
    ballast_model::validate_name("stack", stack)
        .map_err(|error| Failure::Failed(format!("`{stack}` cannot be a stack's name: {error}")))?;
    let text = read_file(file)?;
    let name = if file == "-" { "<stdin>" } else { file };
    let folder = if file == "-" {
        None
    } else {
        Path::new(file).parent()
    };
    let source = Source {
        name,
        text: &text,
        folder: folder.unwrap_or(Path::new(".")),
        variable: &|name| std::env::var(name).ok(),
    };
    let outcome = compose::read(&source, stack);
    for finding in &outcome.findings {
        eprintln!("{}", finding.line(name));
    }
    outcome
        .stack
        .ok_or_else(|| Failure::Failed(format!("{name} was not deployed; see the errors above")))
}

fn read_file(file: &str) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::while_doing(&format!("cannot read {file}"), error);
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file)
            .map_err(failed)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
    };
    read.map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::Failed(format!(
            "{file} is longer than {MAX_FILE} bytes: not a Compose file"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|error| Failure::while_doing(&format!("{file} is not UTF-8 text"), error))
}

/// Returns the stack's name for a file: its stem as a DNS label.
pub fn stack_name(file: &str) -> String {
    let stem = Path::new(file)
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().to_lowercase());
    let label: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(limits::NAME_CHARS)
        .collect();
    match label.trim_matches('-') {
        "" => "dev".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_is_named_after_its_file() {
        assert_eq!(stack_name("examples/hello.yaml"), "hello");
        assert_eq!(stack_name("My Shop_2.compose.yml"), "my-shop-2-compose");
        assert_eq!(stack_name("-"), "dev");
    }
}
