//! The general engine against real servers, well-behaved and hostile, on both drivers.
//!
//! Every test accounts for each request: what was due is done, and what is done was answered or
//! has a class.

mod echo;
mod grpc;
mod http1;
mod http2;
mod rig;
mod tls;
mod udp;
mod websocket;
