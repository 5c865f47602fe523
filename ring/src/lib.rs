//! The event loop under the hot paths.
//!
//! A [`Ring`] belongs to one thread. Its user implements [`Handler`] and asks [`Io`] for what it
//! wants; the same code runs on io_uring and on epoll. The interface is of completions, because
//! epoll can play that part cheaply and io_uring cannot play the other: bytes are received into
//! buffers of the ring and lent for one callback, and what is sent is copied or given away, so that
//! no memory of the user's is ever in the kernel's hands.
//!
//! - `io`, `handler`, `options`, `token`, `error`: what the user sees.
//! - `ring`: the loop; `epoll`, `uring`: its drivers; `tell`: what both tell alike.
//! - `sockets`: slots with generations, and what is wanted of each; `outbox`: what is to be sent;
//!   `transmit`: sending it at once; `pool`: the buffers for it; `timers`: a wheel; `wait`: waiting by epoll; `waker`: an
//!   eventfd; `open`: how sockets begin.
//!
//! Deliberately absent: protocols, name resolution, files, threads, and futures.

mod epoll;
mod error;
mod handler;
mod io;
mod open;
mod options;
mod outbox;
mod pool;
mod ring;
mod sockets;
mod tell;
mod timers;
mod token;
mod transmit;
mod uring;
mod wait;
mod waker;
mod watched;

pub use error::{IoError, RingError};
pub use handler::Handler;
pub use io::Io;
pub use open::listen_reuseport;
pub use options::{Backend, Batch, ConnectOptions, Options};
pub use ring::Ring;
pub use token::{Timer, Token};
pub use waker::Waker;
