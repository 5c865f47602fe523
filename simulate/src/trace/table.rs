//! A CSV file as columns by name and values with their place.

use ballast_model::nearest;
use csv::{ErrorKind, Position, ReaderBuilder, StringRecord, Trim};

use super::error::{Problem, TraceError};

/// Rows of one list: past it a trace is not held in memory.
pub const ROWS: u64 = 20_000_000;
/// Characters of a value or a name that an error quotes.
const QUOTED_CHARS: usize = 64;

/// A file whose header was read.
pub(crate) struct Table<'a> {
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    header: Vec<String>,
}

/// A column's place in every row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column(usize);

/// One row, by columns.
pub(crate) struct Row<'a> {
    record: &'a StringRecord,
    header: &'a [String],
    /// Where it begins in the file.
    pub line: u64,
}

impl<'a> Table<'a> {
    /// Reads the header.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, TraceError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(TraceError::Empty);
        }
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(bytes);
        let header = reader.headers().map_err(|error| from_csv(bytes, &error))?;
        let header: Vec<String> = header.iter().map(cut).collect();
        if header.iter().all(String::is_empty) {
            return Err(TraceError::Empty);
        }
        for (place, name) in header.iter().enumerate() {
            if !name.is_empty() && header[..place].contains(name) {
                return Err(TraceError::ColumnTwice(name.clone()));
            }
        }
        Ok(Self {
            bytes,
            reader,
            header,
        })
    }

    /// Returns the column of this name, if there is one.
    pub(crate) fn optional(&self, name: &str) -> Option<Column> {
        self.header
            .iter()
            .position(|known| known == name)
            .map(Column)
    }

    /// Returns the column of this name.
    pub(crate) fn column(&self, name: &'static str) -> Result<Column, TraceError> {
        self.optional(name)
            .ok_or_else(|| TraceError::MissingColumn {
                column: name,
                found: self.header.clone(),
                nearest: nearest(name, self.header.iter().map(String::as_str)).map(str::to_owned),
            })
    }

    /// Reads every row.
    pub(crate) fn read<T>(
        mut self,
        mut take: impl FnMut(u64, &Row<'_>) -> Result<T, TraceError>,
    ) -> Result<Vec<T>, TraceError> {
        let bytes = self.bytes;
        let mut rows = Vec::new();
        let mut record = StringRecord::new();
        while self
            .reader
            .read_record(&mut record)
            .map_err(|error| from_csv(bytes, &error))?
        {
            let number = rows.len() as u64;
            if number >= ROWS {
                return Err(TraceError::TooManyRows(ROWS));
            }
            let row = Row {
                record: &record,
                header: &self.header,
                line: line_of(self.bytes, record.position()),
            };
            rows.push(take(number, &row)?);
        }
        if rows.is_empty() {
            return Err(TraceError::NoRows);
        }
        Ok(rows)
    }
}

impl Row<'_> {
    /// Returns the text of a column.
    pub(crate) fn text(&self, column: Column) -> &str {
        // Every row has as many fields as the header: the reader is not flexible.
        self.record.get(column.0).unwrap_or_default()
    }

    /// Returns a whole number of a column, at most `most`.
    pub(crate) fn whole(
        &self,
        column: Column,
        most: u64,
        unit: &'static str,
    ) -> Result<u64, TraceError> {
        whole(self.text(column), most, unit).map_err(|problem| self.value(column, problem))
    }

    /// Returns a moment in milliseconds from seconds that may have a fraction; nothing where the
    /// field is empty.
    pub(crate) fn moment(&self, column: Column, most: u64) -> Result<Option<u64>, TraceError> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let fail = |problem| Err(self.value(column, problem));
        if let Ok(seconds) = text.parse::<u64>()
            && seconds <= most
        {
            return Ok(Some(seconds * 1000));
        }
        match number(text) {
            Err(problem) => fail(problem),
            Ok(seconds) if seconds > most as f64 => fail(Problem::Absurd {
                most,
                unit: "seconds",
            }),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked: finite, not negative, below `most`"
            )]
            Ok(seconds) => Ok(Some((seconds * 1000.0).round() as u64)),
        }
    }

    /// Returns what is wrong with a value, with its place.
    pub(crate) fn value(&self, column: Column, problem: Problem) -> TraceError {
        TraceError::Value {
            line: self.line,
            column: self.header[column.0].clone(),
            value: cut(self.text(column)),
            problem,
        }
    }

    /// Returns what is wrong with a row, with its place.
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> TraceError {
        TraceError::Row {
            line: self.line,
            reason: reason.into(),
        }
    }
}

/// Reads a number that is not negative: `12`, `12.0`, `1.2e1`.
fn number(text: &str) -> Result<f64, Problem> {
    if text.is_empty() {
        return Err(Problem::Missing);
    }
    let value: f64 = text.parse().map_err(|_| Problem::NotANumber)?;
    if !value.is_finite() {
        return Err(Problem::NotFinite);
    }
    if value < 0.0 {
        return Err(Problem::Negative);
    }
    Ok(value)
}

/// Reads a whole number, at most `most`.
pub(crate) fn whole(text: &str, most: u64, unit: &'static str) -> Result<u64, Problem> {
    if let Ok(value) = text.parse::<u64>() {
        return if value <= most {
            Ok(value)
        } else {
            Err(Problem::Absurd { most, unit })
        };
    }
    let value = number(text)?;
    if value > most as f64 {
        return Err(Problem::Absurd { most, unit });
    }
    if value.fract() != 0.0 {
        return Err(Problem::Fraction);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: whole, not negative, at most `most`"
    )]
    Ok(value as u64)
}

fn cut(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).collect()
}

/// Returns the line that a row begins in: the parser counts empty lines before it as part of it.
fn line_of(bytes: &[u8], position: Option<&Position>) -> u64 {
    let Some(position) = position else {
        return 1;
    };
    let begin = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let skipped = bytes.get(begin..).unwrap_or_default().iter();
    let skipped = skipped.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + skipped.filter(|byte| **byte == b'\n').count() as u64
}

fn from_csv(bytes: &[u8], error: &csv::Error) -> TraceError {
    let line = line_of(bytes, error.position());
    match error.kind() {
        ErrorKind::Utf8 { .. } => TraceError::NotUtf8 { line },
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => TraceError::Fields {
            line,
            found: *len,
            expected: *expected_len,
        },
        _ => TraceError::Csv {
            line,
            reason: error.to_string(),
        },
    }
}
