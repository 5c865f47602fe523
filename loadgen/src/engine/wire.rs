//! What the engine's core asks of the world.

use std::net::SocketAddr;

use crate::record::ErrorClass;

/// Connections, named by their numbers: sockets on a ring, or a simulation.
pub trait Wire {
    /// Starts to connect; what comes of it is told later.
    ///
    /// # Errors
    /// What is known at once: that ports or descriptors ran out, say.
    fn connect(&mut self, connection: u32, address: SocketAddr) -> Result<(), ErrorClass>;

    /// Sends `bytes` on an open connection, behind what is still to be sent.
    fn send(&mut self, connection: u32, bytes: &[u8]);

    /// Returns how many bytes are still to be sent.
    fn unsent(&self, connection: u32) -> usize;

    /// Closes it, connected or not; nothing more is told of it.
    fn close(&mut self, connection: u32);

    /// Closes it with a RST.
    fn reset(&mut self, connection: u32);
}
