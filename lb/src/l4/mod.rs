//! TCP and UDP in user space: connection by connection, and client by client.

pub mod tcp;
pub mod udp;
