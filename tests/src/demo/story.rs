//! Tells what happens, with times.

use std::time::Instant;

/// Prints lines with the seconds since it began.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    begin: Instant,
}

impl Story {
    pub fn begin() -> Self {
        Self {
            begin: Instant::now(),
        }
    }

    /// Something the demo does.
    pub fn say(&self, text: &str) {
        println!("{:8.3} s  {text}", self.begin.elapsed().as_secs_f64());
    }

    /// Something that Ballast did about it.
    pub fn note(&self, text: &str) {
        println!("{:8.3} s      {text}", self.begin.elapsed().as_secs_f64());
    }
}
