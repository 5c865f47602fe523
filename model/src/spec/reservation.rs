//! Proves what a task reserves.

use super::InvalidSpec;
use super::validate::too_many;
use crate::device::WHOLE;
use crate::{DeviceRequest, Resources, limits};

/// Proves a reservation.
///
/// # Errors
/// The field, the reason and the nearest valid value.
pub(super) fn validate(wanted: &Resources) -> Result<(), InvalidSpec> {
    if wanted.cpu > limits::CPU_PER_TASK {
        let most = limits::CPU_PER_TASK.to_string();
        let reason = format!("{} cores are more than {most}", wanted.cpu);
        return Err(InvalidSpec::new("task.resources.cpu", reason, Some(&most)));
    }
    for (field, bytes, most) in [
        ("memory", wanted.memory, limits::MEMORY_PER_TASK),
        ("disk", wanted.disk, limits::DISK_PER_TASK),
    ] {
        if bytes > most {
            let reason = format!("{bytes} is more than {most}");
            let field = format!("task.resources.{field}");
            return Err(InvalidSpec::new(field, reason, Some(&most.to_string())));
        }
    }
    validate_devices(&wanted.devices)?;
    if wanted.custom.len() > limits::CUSTOM_RESOURCES {
        let field = "task.resources.custom";
        return Err(too_many(field, limits::CUSTOM_RESOURCES));
    }
    for name in wanted.custom.keys() {
        super::validate_name(&format!("task.resources.custom.{name:.32}"), name)?;
    }
    Ok(())
}

fn validate_devices(wanted: &DeviceRequest) -> Result<(), InvalidSpec> {
    if wanted.count == 0 {
        return Ok(());
    }
    super::validate_name("task.resources.devices.kind", &wanted.kind)?;
    let most = limits::DEVICES_PER_NODE;
    if usize::from(wanted.count) > most {
        let reason = format!("no node has more than {most} devices");
        let field = "task.resources.devices.count";
        return Err(InvalidSpec::new(field, reason, Some(&most.to_string())));
    }
    let milli = u32::from(wanted.milli);
    if milli == 0 || milli > WHOLE || (milli < WHOLE && wanted.count > 1) {
        let reason = "is 1 to 1000 thousandths of one device, and 1000 of several";
        let field = "task.resources.devices.milli";
        return Err(InvalidSpec::new(field, reason, Some("1000")));
    }
    Ok(())
}
