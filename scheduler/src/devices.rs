//! Which devices and sockets of a node a task is given.

use ballast_model::device::WHOLE;
use ballast_model::{
    Allocation, Bytes, Capacity, DeviceGrant, DeviceRequest, MilliCpu, Resources, Shortage,
    SocketGrant,
};

/// Chooses devices without taking them: for a fraction the fullest one that has enough left, else
/// the first ones that are free.
///
/// # Errors
/// How many of the kind are missing.
pub(crate) fn choose(
    capacity: &Capacity,
    taken: &Allocation,
    wanted: &DeviceRequest,
) -> Result<Vec<DeviceGrant>, Shortage> {
    if wanted.count == 0 {
        return Ok(Vec::new());
    }
    let left = |place: usize| WHOLE.saturating_sub(taken.device(place));
    let mut places: Vec<usize> = (0..capacity.devices.len())
        .filter(|&place| capacity.devices[place].kind == wanted.kind)
        .filter(|&place| left(place) >= u32::from(wanted.milli))
        .collect();
    places.sort_by_key(|&place| (left(place), place));
    places.truncate(usize::from(wanted.count));
    let lack = usize::from(wanted.count) - places.len();
    if lack > 0 {
        return Err(Shortage::Devices {
            kind: wanted.kind.clone(),
            lack: u8::try_from(lack).expect("no more than were asked for"),
        });
    }
    let grant = |place| DeviceGrant {
        device: u8::try_from(place).expect("fewer devices than 256"),
        milli: wanted.milli,
    };
    Ok(places.into_iter().map(grant).collect())
}

/// Chooses sockets without taking them: the fullest that have room for an even part each. None are
/// chosen for a task that may float.
///
/// # Errors
/// [`Shortage::Socket`] if there are not as many with room.
pub(crate) fn choose_sockets(
    capacity: &Capacity,
    taken: &Allocation,
    wanted: &Resources,
    sockets: u8,
) -> Result<Vec<SocketGrant>, Shortage> {
    if sockets == 0 {
        return Ok(Vec::new());
    }
    let cpu = MilliCpu(wanted.cpu.0.div_ceil(sockets.into()));
    let memory = Bytes(wanted.memory.0.div_ceil(sockets.into()));
    let left = |place: usize| {
        let (socket, gave) = (&capacity.sockets[place], taken.socket(place));
        let cpu_left = u64::from(socket.cpu.0).checked_sub(gave.cpu)?;
        let memory_left = socket.memory.0.checked_sub(gave.memory)?;
        (cpu_left >= cpu.0.into() && memory_left >= memory.0).then_some((cpu_left, memory_left))
    };
    let mut places: Vec<_> = (0..capacity.sockets.len())
        .filter_map(|place| Some((left(place)?, place)))
        .collect();
    if places.len() < usize::from(sockets) {
        return Err(Shortage::Socket);
    }
    places.sort_unstable();
    let grant = |&(_, place): &((u64, u64), usize)| SocketGrant {
        socket: u8::try_from(place).expect("fewer sockets than 256"),
        cpu,
        memory,
    };
    Ok(places[..usize::from(sockets)].iter().map(grant).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{Claim, Device, Socket, fits};

    fn capacity() -> Capacity {
        let socket = Socket {
            cpu: MilliCpu(1000),
            memory: Bytes::from_mib(10),
        };
        Capacity {
            devices: vec![
                Device::of("fpga", "X"),
                Device::of("gpu", "T4"),
                Device::of("gpu", "T4"),
            ],
            sockets: vec![socket; 2],
            ..Capacity::of(MilliCpu(2000), Bytes::from_mib(20))
        }
    }

    fn claim(count: u8, milli: u16, cpu: u32) -> Claim {
        let mut resources = Resources::of(MilliCpu(cpu), Bytes(0));
        resources.devices = DeviceRequest {
            kind: "gpu".to_owned(),
            count,
            milli,
        };
        Claim {
            resources,
            ..Claim::default()
        }
    }

    #[test]
    fn a_fraction_goes_where_least_is_left_and_whole_ones_on_free_devices() {
        let capacity = capacity();
        let mut taken = Allocation::default();
        let mut places = Vec::new();
        for milli in [600, 500, 400] {
            let mut claim = claim(1, milli, 1);
            claim.devices =
                choose(&capacity, &taken, &claim.resources.devices).expect("a gpu has room");
            assert_eq!(fits(&capacity, &taken, &claim), Ok(()));
            taken.add(&claim);
            places.push(claim.devices[0].device);
        }
        assert_eq!(places, [1, 2, 1]);
        let whole = claim(2, 1000, 1).resources.devices;
        let lack = Shortage::Devices {
            kind: "gpu".to_owned(),
            lack: 2,
        };
        assert_eq!(choose(&capacity, &taken, &whole), Err(lack));
    }

    #[test]
    fn a_task_is_within_one_socket_or_evenly_over_two() {
        let capacity = capacity();
        let mut taken = Allocation::default();
        let mut place = |cpu: u32, sockets: u8| {
            let mut claim = claim(0, 0, cpu);
            claim.sockets = choose_sockets(&capacity, &taken, &claim.resources, sockets)?;
            fits(&capacity, &taken, &claim)?;
            taken.add(&claim);
            Ok(claim.sockets.iter().map(|s| s.socket).collect::<Vec<_>>())
        };
        assert_eq!(place(600, 1), Ok(vec![0]));
        assert_eq!(place(600, 1), Ok(vec![1]));
        assert_eq!(place(600, 1), Err(Shortage::Socket));
        assert_eq!(place(800, 2), Ok(vec![0, 1]));
        assert_eq!(place(2, 2), Err(Shortage::Socket));
    }
}
