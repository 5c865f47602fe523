//! What is wrong with a trace, and where.

/// Why a list cannot be read. Lines are counted from 1, as editors do; the header is one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Nothing in it.
    #[error("is empty: not even a header is there")]
    Empty,
    /// Only a header.
    #[error("has a header and no rows")]
    NoRows,
    /// More rows than are read.
    #[error("has more than {0} rows")]
    TooManyRows(u64),
    /// Text in another encoding, or no text.
    #[error("line {line}: is not UTF-8 text")]
    NotUtf8 {
        /// Where.
        line: u64,
    },
    /// More or fewer fields than the header.
    #[error("line {line}: has {found} fields, and the header has {expected}")]
    Fields {
        /// Where.
        line: u64,
        /// Of this line.
        found: u64,
        /// Of the header.
        expected: u64,
    },
    /// Something that CSV cannot hold.
    #[error("line {line}: {reason}")]
    Csv {
        /// Where.
        line: u64,
        /// What the parser said.
        reason: String,
    },
    /// A column that is needed is not there.
    #[error("has no column `{column}`; it has {}{}", list(.found), nearest_is(.nearest.as_deref()))]
    MissingColumn {
        /// Which.
        column: &'static str,
        /// Which are there.
        found: Vec<String>,
        /// The one that may have been meant.
        nearest: Option<String>,
    },
    /// Two columns of one name.
    #[error("has the column `{0}` twice")]
    ColumnTwice(String),
    /// A value that is none.
    #[error("line {line}, column `{column}`: `{value}` {problem}")]
    Value {
        /// Where.
        line: u64,
        /// In which column.
        column: String,
        /// What is there, cut to 64 characters.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Values that do not go together.
    #[error("line {line}: {reason}")]
    Row {
        /// Where.
        line: u64,
        /// Why not.
        reason: String,
    },
}

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has to be there.
    #[error("is empty, and a number is needed")]
    Missing,
    /// A text.
    #[error("is not a number")]
    NotANumber,
    /// NaN or infinite.
    #[error("is not a finite number")]
    NotFinite,
    /// Below zero.
    #[error("is negative")]
    Negative,
    /// Not whole.
    #[error("is not a whole number")]
    Fraction,
    /// Past what anything real has.
    #[error("is absurd: the most is {most} {unit}")]
    Absurd {
        /// The limit.
        most: u64,
        /// What it counts.
        unit: &'static str,
    },
    /// Too little.
    #[error("is too small: the least is {0}")]
    TooSmall(u64),
    /// Not one of these.
    #[error("is none of {0}")]
    NoneOf(&'static str),
    /// The name of a row before.
    #[error("is the name of line {0}, too")]
    Twice(u64),
}

fn list(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn nearest_is(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (nearest: `{name}`)"))
}
