//! What is wrong with a file, or not honoured in it, and where.

use std::fmt;
use std::fmt::Write as _;

/// A place in the file, counted from 1; line 0 is the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Left out; the services run as meant.
    Warning,
    /// Nothing is deployed.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Where in the file.
    pub at: Position,
    /// Where in the document: `services.web.volumes`; empty for the whole.
    pub path: String,
    /// What.
    pub message: String,
}

impl Finding {
    /// Returns the finding as compilers write it, so that editors can jump there:
    /// `file:line:column: error: path: message`.
    pub fn line(&self, file: &str) -> String {
        let mut text = file.to_owned();
        if self.at.line > 0 {
            let _ = write!(text, ":{}:{}", self.at.line, self.at.column);
        }
        let _ = write!(text, ": {}: ", self.severity);
        if !self.path.is_empty() {
            text.push_str(&self.path);
            text.push_str(": ");
        }
        text.push_str(&self.message);
        text
    }
}

/// Findings kept of one file; what comes after is counted only.
const MAX_FINDINGS: usize = 200;

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    errors: usize,
    dropped: usize,
}

impl Report {
    pub(super) fn error(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.errors += 1;
        self.add(Severity::Error, at, path, message.into());
    }

    pub(super) fn warn(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.add(Severity::Warning, at, path, message.into());
    }

    fn add(&mut self, severity: Severity, at: Position, path: &str, message: String) {
        if self.findings.len() == MAX_FINDINGS {
            self.dropped += 1;
            return;
        }
        self.findings.push(Finding {
            severity,
            at,
            path: path.to_owned(),
            message,
        });
    }

    pub(super) const fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(super) const fn errors(&self) -> usize {
        self.errors
    }

    /// Returns how many there were, kept or not.
    pub(super) fn len(&self) -> usize {
        self.findings.len() + self.dropped
    }

    /// Returns the findings in the file's order, and whether one is an error.
    pub(super) fn finish(mut self) -> (Vec<Finding>, bool) {
        self.findings.sort_by_key(|finding| finding.at);
        if self.dropped > 0 {
            self.findings.push(Finding {
                severity: Severity::Error,
                at: Position::default(),
                path: String::new(),
                message: format!("{} more errors and warnings", self.dropped),
            });
        }
        (self.findings, self.errors > 0)
    }
}
