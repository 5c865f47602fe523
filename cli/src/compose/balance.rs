//! `x-ballast.balance`: how requests are spread, in the words of the API.

use ballast_model::BalanceSpec;
use serde_json::Value as Json;

use super::field::Field;
use super::finding::Report;
use super::tree::{Node, Value};

/// Reads it; what is wrong is reported.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<BalanceSpec> {
    let spec: BalanceSpec = match serde_json::from_value(json(field.node)) {
        Ok(spec) => spec,
        Err(error) => {
            field.error(report, error.to_string());
            return None;
        }
    };
    if let Err(error) = spec.validate("balance") {
        field.error(report, error.to_string());
        return None;
    }
    Some(spec)
}

/// Scalars that look like numbers or switches are: no text of this spec looks like one.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(text) => match (text.as_str(), text.parse::<u64>()) {
            ("true", _) => Json::Bool(true),
            ("false", _) => Json::Bool(false),
            (_, Ok(number)) => number.into(),
            (text, Err(_)) => text.into(),
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.clone(), json(node)))
            .collect(),
    }
}
