//! Whether and how output is coloured.

use std::io::IsTerminal;

use comfy_table::{Cell, Color};

/// Colours or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether standard output shows colours.
    pub color: bool,
}

impl Style {
    /// Never colours: for tests and pipes.
    pub const PLAIN: Self = Self { color: false };

    /// Returns what standard output of this process can show: colours on a terminal, unless
    /// `NO_COLOR` is set.
    pub fn detect() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            color: wanted && std::io::stdout().is_terminal(),
        }
    }

    pub(super) fn cell(self, text: String, tone: Tone) -> Cell {
        let cell = Cell::new(text);
        match (self.color, tone) {
            (false, _) | (_, Tone::Plain) => cell,
            (true, Tone::Good) => cell.fg(Color::Green),
            (true, Tone::Warn) => cell.fg(Color::Yellow),
            (true, Tone::Bad) => cell.fg(Color::Red),
            (true, Tone::Dim) => cell.fg(Color::DarkGrey),
        }
    }
}

/// What a cell says about what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}
