//! Devices and sockets: what a node has more than one of, and what a task is given of them.

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
