//! How long things may take, by the file.

use std::time::Duration;

use ballast_model::Millis;
use serde::Deserialize;

use super::RawConfig;
use crate::l7::Timeouts;

/// How long things may take; see [`Timeouts`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTimeouts {
    /// See [`Timeouts::connect`].
    pub connect: Option<Millis>,
    /// See [`Timeouts::read`].
    pub read: Option<Millis>,
    /// See [`Timeouts::write`].
    pub write: Option<Millis>,
    /// See [`Timeouts::whole`].
    pub whole: Option<Millis>,
    /// See [`Timeouts::keep`].
    pub keep: Option<Millis>,
    /// See [`Timeouts::hold`].
    pub hold: Option<Millis>,
    /// See [`Timeouts::slowest_body`].
    pub slowest_body: Option<u64>,
}

impl RawConfig {
    pub(super) fn timeouts(&self, stand_alone: bool) -> Timeouts {
        let mut timeouts = Timeouts::default();
        if stand_alone {
            // Nobody is restarting the endpoint: waiting for it would only add to the delay.
            timeouts.hold = Duration::ZERO;
        }
        let raw = &self.timeouts;
        for (field, value) in [
            (&mut timeouts.connect, raw.connect),
            (&mut timeouts.read, raw.read),
            (&mut timeouts.write, raw.write),
            (&mut timeouts.whole, raw.whole),
            (&mut timeouts.keep, raw.keep),
            (&mut timeouts.hold, raw.hold),
        ] {
            if let Some(value) = value {
                *field = value.to_duration();
            }
        }
        if let Some(rate) = raw.slowest_body {
            timeouts.slowest_body = rate;
        }
        timeouts
    }
}
