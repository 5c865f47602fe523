//! What an interface's driver does by itself with packets: asked by `ethtool`'s call.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType};

/// `SIOCETHTOOL`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Reads whether checksums of what is sent are left to the hardware.
const ETHTOOL_GTXCSUM: u32 = 0x16;
/// Writes it.
const ETHTOOL_STXCSUM: u32 = 0x17;
/// Reads whether received packets are merged.
const ETHTOOL_GGRO: u32 = 0x2b;

#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

#[repr(C)]
struct Request {
    name: [libc::c_char; libc::IFNAMSIZ],
    value: *mut Value,
    /// The kernel's record is as large as its largest member.
    rest: [u8; 16],
}

/// Returns whether the interface leaves checksums of what it sends to its hardware.
///
/// # Errors
/// The driver does not say.
pub fn sends_unsummed(interface: &str) -> io::Result<bool> {
    ask(interface, ETHTOOL_GTXCSUM, 0).map(|value| value != 0)
}

/// Has the interface's packets leave with their checksums: XDP programs at the other end of a veth
/// see what is there.
///
/// # Errors
/// The driver does not do it, or this process may not ask.
pub fn leave_no_checksums(interface: &str) -> io::Result<()> {
    ask(interface, ETHTOOL_STXCSUM, 0).map(|_| ())
}

/// Returns whether the interface merges packets before they are handled.
///
/// # Errors
/// The driver does not say.
pub fn merges(interface: &str) -> io::Result<bool> {
    ask(interface, ETHTOOL_GGRO, 0).map(|value| value != 0)
}

fn ask(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut value = Value { command, data };
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        value: &raw mut value,
        rest: [0; 16],
    };
    // The last stays zero.
    for (into, byte) in request.name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(interface.bytes())
    {
        *into = byte.cast_signed();
    }
    // SAFETY: the request is as large as the kernel's, its name ends with zero, and it points to a
    // record of eight bytes that outlives the call, as these commands want it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_and_an_unknown_interface_is_refused() {
        sends_unsummed("lo").expect("the loopback says");
        merges("lo").expect("the loopback says");
        sends_unsummed("no-such-one").expect_err("it is not there");
    }
}
