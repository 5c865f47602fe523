//! `environment` and `env_file`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::field::{Field, Section};
use super::finding::Report;
use super::{Source, keys};

/// Bytes of one `env_file`.
const MAX_FILE: u64 = 1 << 20;

/// Returns a service's variables; `environment` wins over `env_file`, later files over earlier.
pub(super) fn read(
    source: &Source<'_>,
    section: &Section<'_>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if let Some(files) = section.get("env_file") {
        let list = if files.is_list() {
            files.items(report)
        } else {
            vec![files.clone()]
        };
        for file in &list {
            read_file(source, file, &mut env, report);
        }
    }
    if let Some(field) = section.get("environment") {
        for (key, value) in field.pairs(report) {
            // A name without a value takes the deployer's, and is left out if there is none.
            let value = value.or_else(|| (source.variable)(&key));
            if let Some(value) = value {
                if ["$PORT", "${PORT}", "$BALLAST_", "${BALLAST_"]
                    .iter()
                    .any(|own| value.contains(own))
                {
                    field.warn(report, format!("`{key}` stays `{value}`: only a command's variables are put in on the node"));
                }
                env.insert(key, value);
            } else {
                env.remove(&key);
                field.warn(report, format!("`{key}` has no value here and is left out"));
            }
        }
    }
    env
}

fn read_file(
    source: &Source<'_>,
    field: &Field<'_>,
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    let (path, required) = if field.is_scalar() {
        (field.text(report), true)
    } else {
        let section = field.section(report, keys::ENV_FILE);
        let required = section.get("required").and_then(|f| f.switch(report));
        let path = section.get("path").and_then(|f| f.text(report));
        (path, required.unwrap_or(true))
    };
    let Some(path) = path else { return };
    match load(&source.folder.join(path)) {
        Ok(text) => {
            for (number, line) in text.lines().enumerate() {
                match pair(line) {
                    Ok(Some((key, value))) => {
                        env.insert(key, value);
                    }
                    Ok(None) => {}
                    Err(error) => field.error(report, format!("{path}:{}: {error}", number + 1)),
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {}
        Err(error) => field.error(report, format!("cannot read {path}: {error}")),
    }
}

fn load(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!(
            "longer than {MAX_FILE} bytes"
        )));
    }
    Ok(text)
}

/// Reads one line: `KEY=VALUE`, with or without quotes; `#` begins a comment.
fn pair(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("is not KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return Err("has no name before the `=`");
    }
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = match quoted('"').or_else(|| quoted('\'')) {
        Some(inner) => inner,
        None => value.split(" #").next().unwrap_or(value).trim_end(),
    };
    Ok(Some((key.to_owned(), value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_env_files_read_with_quotes_and_comments() {
        let read = |line: &str| pair(line).expect(line).map(|(k, v)| format!("{k}={v}"));
        assert_eq!(read("A=1").as_deref(), Some("A=1"));
        assert_eq!(read("export B = \"x # y\" ").as_deref(), Some("B=x # y"));
        assert_eq!(read("C=1 # one").as_deref(), Some("C=1"));
        assert_eq!(read("# nothing"), None);
        assert_eq!(read(""), None);
        assert!(pair("no pair").is_err() && pair("=1").is_err());
    }
}
