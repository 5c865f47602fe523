//! Devices and sockets: what a node has more than one of, and what a task is given of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Bytes, MilliCpu};

/// All of a device, in thousandths.
pub const WHOLE: u32 = 1000;

/// Devices that a task asks for.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceRequest {
    /// Of which kind, such as `gpu`; empty if none is asked for. The model is a matter of
    /// constraints: `node.attributes.gpu.model==T4`.
    #[schema(example = "gpu")]
    pub kind: String,
    /// How many; 0 asks for none.
    pub count: u8,
    /// Thousandths of each, 1 to 1000; below 1000 only of one device.
    pub milli: u16,
}

impl DeviceRequest {
    /// No device.
    pub const NONE: Self = Self {
        kind: String::new(),
        count: 0,
        milli: 0,
    };

    /// Returns thousandths in all: 2 whole devices are 2000.
    pub const fn total_milli(&self) -> u32 {
        self.count as u32 * self.milli as u32
    }

    /// Returns whether it is for a part of one device.
    pub const fn is_fraction(&self) -> bool {
        self.count == 1 && (self.milli as u32) < WHOLE
    }
}

/// A request for devices that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a request for devices: KIND[=N], such as `gpu`, `gpu=2` or `gpu=0.5`; below 1 it \
     is a part of one device, with at most three decimals"
)]
pub struct InvalidDevices(String);

impl FromStr for DeviceRequest {
    type Err = InvalidDevices;

    /// Reads `KIND[=N]`.
    fn from_str(text: &str) -> Result<Self, InvalidDevices> {
        let invalid = || InvalidDevices(text.chars().take(64).collect());
        let (kind, number) = text.trim().split_once('=').unwrap_or((text.trim(), "1"));
        // Thousandths are written as those of a core.
        let milli: MilliCpu = number.trim().parse().map_err(|_| invalid())?;
        let whole = milli.0 / WHOLE;
        let (count, milli) = match milli.0 % WHOLE {
            0 => (whole, WHOLE),
            part if whole == 0 => (1, part),
            _ => return Err(invalid()),
        };
        if kind.is_empty() || count == 0 || number.ends_with('m') {
            return Err(invalid());
        }
        Ok(Self {
            kind: kind.to_owned(),
            count: u8::try_from(count).map_err(|_| invalid())?,
            milli: u16::try_from(milli).map_err(|_| invalid())?,
        })
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, MilliCpu(self.total_milli()))
    }
}

impl Default for DeviceRequest {
    fn default() -> Self {
        Self::NONE
    }
}

/// One physical device of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Its kind, such as `gpu`.
    pub kind: String,
    /// Its model, such as `T4`; may be empty.
    pub model: String,
}

impl Device {
    /// Returns a device of a kind and model.
    pub fn of(kind: &str, model: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            model: model.to_owned(),
        }
    }
}

/// A part of a device, or all of it, given to one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceGrant {
    /// Its place in [`crate::Capacity::devices`].
    pub device: u8,
    /// Thousandths.
    pub milli: u16,
}

/// One NUMA node of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Socket {
    /// CPU of its cores.
    pub cpu: MilliCpu,
    /// Memory attached to it.
    pub memory: Bytes,
}

/// A part of a socket that a task is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketGrant {
    /// Its place in [`crate::Capacity::sockets`].
    pub socket: u8,
    /// CPU taken there.
    pub cpu: MilliCpu,
    /// Memory taken there.
    pub memory: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_asked_for_whole_or_in_part() {
        for (text, count, milli) in [
            ("gpu=1", 1, 1000),
            ("gpu=2", 2, 1000),
            ("gpu=0.5", 1, 500),
            ("fpga=0.001", 1, 1),
        ] {
            let read: DeviceRequest = text.parse().expect("reads");
            assert_eq!((read.count, read.milli), (count, milli), "{text}");
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("gpu".parse(), "gpu=1".parse::<DeviceRequest>());
        for text in [
            "", "=1", "gpu=0", "gpu=1.5", "gpu=-1", "gpu=300", "gpu=500m", "gpu=NaN",
        ] {
            assert!(text.parse::<DeviceRequest>().is_err(), "{text}");
        }
    }
}
