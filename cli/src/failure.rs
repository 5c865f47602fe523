//! What ends a command, as the user sees it.

use std::fmt::Write as _;

use ballast_model::view::Problem;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is at fault: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The manager refused, and said why.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// No manager answers at the address.
    #[error("no manager answers at {address}: {reason}")]
    NoManager {
        /// What was tried.
        address: String,
        /// What the system said.
        reason: String,
        /// What would help.
        hint: String,
    },
    /// Anything else: exit status 1.
    #[error("{0}")]
    Failed(String),
    /// Standard output was closed by its reader, as `head` does: not worth a message.
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// Wraps any error with what was being done.
    pub fn while_doing(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// Returns the exit status of the process.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::OutputClosed => 0,
            _ => 1,
        }
    }

    /// Returns whether the manager said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 404)
    }

    /// Returns what is printed on standard error: what was wrong, where, and what would be right.
    pub fn report(&self) -> String {
        let mut text = String::new();
        if matches!(self, Self::OutputClosed) {
            return text;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "error: {self}");
        match self {
            Self::Usage(_) => {
                let _ = writeln!(text, "  help: `ballast --help` lists the commands");
            }
            Self::Refused(problem) => {
                if let Some(field) = &problem.field {
                    let _ = writeln!(text, "  where: {field}");
                }
                if let Some(nearest) = &problem.nearest {
                    let _ = writeln!(text, "  nearest valid: {nearest}");
                }
            }
            Self::NoManager { hint, .. } => {
                let _ = writeln!(text, "  help: {hint}");
            }
            Self::Failed(_) | Self::OutputClosed => {}
        }
        text
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Failed(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_is_reported_with_place_and_nearest_value() {
        let failure = Failure::Refused(Box::new(Problem {
            r#type: "urn:ballast:problem:not-found".to_owned(),
            title: "Not found".to_owned(),
            status: 404,
            detail: "there is no service `wbe`".to_owned(),
            field: Some("name".to_owned()),
            nearest: Some("web".to_owned()),
        }));
        assert!(failure.is_not_found());
        assert_eq!(failure.exit_status(), 1);
        assert_eq!(
            failure.report(),
            "error: there is no service `wbe`\n  where: name\n  nearest valid: web\n"
        );
    }
}
