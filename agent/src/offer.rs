//! What a node offers beside CPU and memory, as its operator writes it.

use std::collections::BTreeMap;

use ballast_model::node::DEFAULT_POOL;
use ballast_model::{Device, Socket, limits, validate_name};

use crate::config::{InvalidConfig, invalid};

/// Reads devices, `KIND[:MODEL][*N]` each.
pub(crate) fn devices(texts: &[String]) -> Result<Vec<Device>, InvalidConfig> {
    let mut devices = Vec::new();
    for text in texts {
        let wrong = || {
            let reason = format!("`{text:.64}` is not KIND[:MODEL][*N], such as `gpu:T4*2`");
            invalid("devices", reason)
        };
        let (name, count) = text.split_once('*').unwrap_or((text, "1"));
        let (kind, model) = name.split_once(':').unwrap_or((name, ""));
        let count: usize = count.trim().parse().map_err(|_| wrong())?;
        if validate_name("devices", kind).is_err() || count == 0 {
            return Err(wrong());
        }
        let most = limits::DEVICES_PER_NODE;
        if count > most || devices.len() + count > most {
            return Err(invalid("devices", format!("a node has at most {most}")));
        }
        devices.extend(std::iter::repeat_n(Device::of(kind, model.trim()), count));
    }
    Ok(devices)
}

/// Proves units of named resources.
pub(crate) fn resources(
    units: BTreeMap<String, u32>,
) -> Result<BTreeMap<String, u32>, InvalidConfig> {
    let most = limits::CUSTOM_RESOURCES;
    if units.len() > most {
        let reason = format!("a node has at most {most} kinds");
        return Err(invalid("resources", reason));
    }
    for name in units.keys() {
        validate_name("resources", name).map_err(|e| invalid("resources", e.to_string()))?;
    }
    Ok(units)
}

/// Reads sockets, `CORES:BYTES` each.
pub(crate) fn sockets(texts: &[String]) -> Result<Vec<Socket>, InvalidConfig> {
    let most = limits::SOCKETS_PER_NODE;
    if texts.len() > most {
        return Err(invalid("sockets", format!("a node has at most {most}")));
    }
    let read = |text: &String| {
        let (cpu, memory) = text.split_once(':')?;
        Some(Socket {
            cpu: cpu.trim().parse().ok()?,
            memory: memory.trim().parse().ok()?,
        })
    };
    let wrong = |text: &String| {
        let reason = format!("`{text:.64}` is not CORES:BYTES, such as `16:64g`");
        invalid("sockets", reason)
    };
    let sockets = texts.iter();
    sockets
        .map(|text| read(text).ok_or_else(|| wrong(text)))
        .collect()
}

/// Proves the name of a pool.
pub(crate) fn pool(name: Option<String>) -> Result<String, InvalidConfig> {
    let name = name.unwrap_or_else(|| DEFAULT_POOL.to_owned());
    validate_name("pool", &name).map_err(|error| invalid("pool", error.to_string()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn devices_read_with_model_and_count() {
        let read = devices(&texts(&["gpu:T4*2", "fpga"])).expect("reads");
        let t4 = Device::of("gpu", "T4");
        assert_eq!(read, [t4.clone(), t4, Device::of("fpga", "")]);
        for wrong in [
            "",
            "*2",
            "gpu*0",
            "gpu*x",
            "GPU",
            "gpu*17",
            "gpu*99999999999999999999",
        ] {
            assert!(devices(&texts(&[wrong])).is_err(), "{wrong}");
        }
        assert!(devices(&texts(&["gpu*16", "gpu"])).is_err());
    }

    #[test]
    fn sockets_pools_and_resources_are_proved() {
        let read = sockets(&texts(&["16:64g", "0.5:1m"])).expect("reads");
        assert_eq!(read[0].cpu, ballast_model::MilliCpu::from_cores(16));
        for wrong in ["", "16", "16:", "-1:1g", "x:1g"] {
            assert!(sockets(&texts(&[wrong])).is_err(), "{wrong}");
        }
        assert!(sockets(&texts(&["1:1g"; 9])).is_err());
        assert_eq!(pool(None).as_deref(), Ok("default"));
        assert!(pool(Some("No Pool".to_owned())).is_err());
        let many = (0..17).map(|n| (format!("r{n}"), 1)).collect();
        assert!(resources(many).is_err());
    }
}
