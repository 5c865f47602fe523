//! XDP programs: loaded, pinned, attached, replaced, and taken away again; and the maps that they
//! share with user space.
//!
//! Everything outlives its process in a bpffs: a loader that starts again finds the maps with all
//! flows, loads its own programs with them and puts those in the place of the old ones, between two
//! packets. Nothing here knows services or tasks: that is for those who write the maps.
//!
//! - [`Programs`]: the object, its maps, its attachments.
//! - [`Shared`]: a map as memory; the only `unsafe` besides two calls in [`Link`]'s module.
//! - [`Link`], [`Route`], [`neighbour`]: what the kernel says of interfaces and ways to addresses.
//! - [`Ring`]: which member of a service has which slot.
//! - [`bpffs`]: where things are pinned.

pub mod bpffs;
mod error;
mod maps;
mod netlink;
mod offload;
mod programs;
mod ring;
mod shared;

pub use error::Error;
pub use maps::{Maps, Sizes};
pub use netlink::{Link, Route, ask_for, link, link_at, neighbour, route};
pub use offload::leave_no_checksums;
pub use programs::{Attached, Mode, Program, Programs, object, pinned_backends, requirements};
pub use ring::{Change, Ring, Share};
pub use shared::{Plain, Shared};
