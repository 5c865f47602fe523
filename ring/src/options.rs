//! How a ring and its sockets are set up.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::RingError;
use crate::token::INDEX_BITS;

/// Which part of the kernel drives a ring.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// io_uring where it is to be had, otherwise epoll.
    #[default]
    Auto,
    /// io_uring: Linux 6.1, not forbidden by seccomp or sysctl.
    IoUring,
    /// epoll.
    Epoll,
}

/// How long to wait for company: fewer, larger batches cost less CPU and some latency.
///
/// Honoured by io_uring from Linux 6.12 on; otherwise ignored.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Completions at which a turn does not wait any longer; small sends are not counted.
    pub completions: u32,
    /// The longest wait for so many, if there is at least one.
    pub wait: Duration,
}

/// The size of a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What drives it.
    pub backend: Backend,
    /// Operations that are submitted at a time, and events that are taken at a time.
    pub entries: u32,
    /// Buffers into which all sockets receive; a power of two, at most 32,768. epoll needs one.
    pub buffers: u16,
    /// Bytes of one such buffer. Longer datagrams are cut to it.
    pub buffer_bytes: u32,
    /// Buffers of 64 KiB for streams that bring much; a power of two, at most 4,096, or none. Their
    /// memory is taken when they are first needed. epoll needs none.
    pub large_buffers: u16,
    /// The most sockets at a time, at most 2^24. Memory is taken as they come.
    pub sockets: u32,
    /// Waiting for company; by default there is none.
    pub batch: Option<Batch>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            backend: Backend::Auto,
            entries: 256,
            buffers: 256,
            buffer_bytes: 4096,
            large_buffers: 64,
            sockets: 65_536,
            batch: None,
        }
    }
}

impl Options {
    /// The most buffers that a kernel takes.
    const MOST_BUFFERS: u16 = 32_768;
    /// 256 MiB of large buffers.
    const MOST_LARGE: u16 = 4096;
    /// The most operations at a time that a kernel takes.
    const MOST_ENTRIES: u32 = 32_768;

    pub(crate) fn validate(&self) -> Result<(), RingError> {
        let fine = [
            (
                (1..=Self::MOST_ENTRIES).contains(&self.entries),
                "entries must be 1 to 32768",
            ),
            (
                self.buffers.is_power_of_two() && self.buffers <= Self::MOST_BUFFERS,
                "buffers must be a power of two up to 32768",
            ),
            (
                (1..=1 << 30).contains(&self.buffer_bytes),
                "buffer_bytes must be 1 to 2^30",
            ),
            (
                self.large_buffers == 0
                    || self.large_buffers.is_power_of_two()
                        && self.large_buffers <= Self::MOST_LARGE,
                "large_buffers must be 0 or a power of two up to 4096",
            ),
            (
                (1..=1 << INDEX_BITS).contains(&self.sockets),
                "sockets must be 1 to 2^24",
            ),
        ];
        match fine.into_iter().find(|(fine, _)| !fine) {
            Some((_, why)) => Err(RingError::Options(why)),
            None => Ok(()),
        }
    }
}

/// How to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectOptions {
    /// Send small segments at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// The local address; its port is chosen only when the remote address is known, so that ports
    /// are counted for each remote address (`IP_BIND_ADDRESS_NO_PORT`).
    pub source: Option<IpAddr>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            nodelay: true,
            source: None,
        }
    }
}
