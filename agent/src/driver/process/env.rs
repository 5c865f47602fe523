//! The environment that a task starts with, and what of it is expanded in its command.

use std::collections::BTreeMap;

use ballast_model::{NodeId, TaskId};

use crate::worker::Bound;

/// Names the node by its id, so that a process can be known as ours without any file.
pub const NODE_ID: &str = "BALLAST_NODE_ID";
/// Names the binding.
pub const ASSIGNMENT_ID: &str = "BALLAST_ASSIGNMENT_ID";
/// Names the try.
pub const TASK_ID: &str = "BALLAST_TASK_ID";

/// What a program finds when the agent itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the whole environment of a try: a clean base, the user's variables over it, and
/// Ballast's own over those.
pub fn compose(
    bound: &Bound,
    task: TaskId,
    node: NodeId,
    node_name: &str,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), search_path()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    env.extend(bound.template.task.env.clone());
    env.extend(own(bound, task, node, node_name));
    env
}

/// Returns the agent's own path, or a usual one, and at its end the folder of this very program:
/// what is installed beside it (`ballast-hello`) is found wherever that is.
fn search_path() -> String {
    let path = std::env::var("PATH").ok().filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let beside = std::env::current_exe().ok();
    match beside.as_deref().and_then(|exe| exe.parent()?.to_str()) {
        Some(folder) => format!("{path}:{folder}"),
        None => path,
    }
}

/// Returns Ballast's own variables.
fn own(bound: &Bound, task: TaskId, node: NodeId, node_name: &str) -> BTreeMap<String, String> {
    let assignment = &bound.assignment;
    let mut env = BTreeMap::from([
        ("BALLAST_SERVICE".to_owned(), bound.template.name.clone()),
        ("BALLAST_SLOT".to_owned(), assignment.slot.to_string()),
        (TASK_ID.to_owned(), task.to_string()),
        (ASSIGNMENT_ID.to_owned(), assignment.assignment.to_string()),
        ("BALLAST_NODE".to_owned(), node_name.to_owned()),
        (NODE_ID.to_owned(), node.to_string()),
    ]);
    if let Some(first) = assignment.ports.first() {
        env.insert("PORT".to_owned(), first.port.to_string());
    }
    for port in &assignment.ports {
        let name = port.name.to_ascii_uppercase().replace('-', "_");
        env.insert(format!("BALLAST_PORT_{name}"), port.port.to_string());
    }
    env
}

/// Returns an argument with `$PORT`, `${PORT}` and `$BALLAST_…` replaced and `$$` made a dollar
/// sign. Everything else stays: a command may well mean something else by a dollar sign.
pub fn expand(argument: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((value, tail)) = variable(after).and_then(|(name, tail)| {
            let known = name == "PORT" || name.starts_with("BALLAST_");
            env.get(name).filter(|_| known).map(|value| (value, tail))
        }) {
            expanded.push_str(value);
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Splits `NAME…` or `{NAME}…` into the name and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_variables_are_expanded() {
        let env = BTreeMap::from([
            ("PORT".to_owned(), "8080".to_owned()),
            ("BALLAST_SLOT".to_owned(), "3".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        for (argument, expected) in [
            ("--port=$PORT", "--port=8080"),
            ("${PORT}x$BALLAST_SLOT.", "8080x3."),
            ("$$PORT $HOME ${HOME} $", "$PORT $HOME ${HOME} $"),
            ("$PORTS ${PORT", "$PORTS ${PORT"),
            ("$BALLAST_NONE", "$BALLAST_NONE"),
            ("é$PORT$", "é8080$"),
        ] {
            assert_eq!(expand(argument, &env), expected, "{argument}");
        }
    }
}
