//! What the XDP programs and user space have in common: the layout of every map, the decision about
//! a packet, and (feature `host`) the builder of rings.
//!
//! No dependencies, no `std` without the feature `host`. What the programs do with a packet is
//! here, so that it runs on the host under test as it runs in the kernel.
//!
//! - [`layout`]: maps, records, limits, names.
//!
//! # How user space drives it
//!
//! **Start.** Create the maps (sizes: [`layout::limits`]), pin them under their names, fill
//! [`Config`](layout::Config) (its key from the cluster, the same on every balancer of a set), then
//! load the programs with these maps and attach [`layout::maps::PROGRAM_BALANCE`]. Set
//! [`flag::ENABLED`](layout::flag) last.
//!
//! **A service.** In this order: backends, members, ring slots, then the entry in
//! [`VIPS`](layout::maps::VIPS), then the record of its address
//! ([`VipKey::address`](layout::VipKey::address)), then its bit in
//! [`FILTER`](layout::maps::FILTER). Removal in the reverse order; a bit of the filter is cleared
//! only when no address is left that has it. A net sets all bits of the filter, needs an entry in
//! [`NETS`](layout::maps::NETS) and [`flag::NETS`](layout::flag), and its services stand under
//! [`Address::of_net`](layout::Address::of_net). The source addresses of NAT backends need their
//! bits in the filter and [`flag::NAT`](layout::flag), decapsulating addresses with
//! [`flag::DECAP`](layout::flag) theirs.
//!
//! **A real is added.** Take a free record in [`BACKENDS`](layout::maps::BACKENDS): bump its
//! generation, fill it with state FREE, store state ACTIVE last. Append it to the service's members
//! (a block that is full is copied to a larger one, places kept, and the service's entry replaced).
//! Then build the ring anew and store the slots that changed, each with the member that had it
//! before as the previous one. Old and new slots may be seen mixed: each alone is right.
//!
//! **A real is drained.** Store state DRAINING: from that packet on it gets no new flows (a slot
//! that still names it is asked again with another hash). Then give its slots away in the ring, the
//! drained one as previous.
//!
//! **A real dies.** Store state DEAD: one byte, and no new flow goes there; TCP flows of its are
//! answered with RST, and a SYN on such a flow begins a new one elsewhere. Then give its slots
//! away, without a previous one. Clients that wait silently send nothing that could be answered: to
//! reset them, too, walk [`FLOWS`](layout::maps::FLOWS), and for each flow whose meta word names
//! the backend send the client, from the addresses in [`FLOW_KEYS`](layout::maps::FLOW_KEYS), a
//! bare ACK with any sequence number. It answers with an ACK of its own (RFC 9293 §3.10.7.4),
//! which meets the dead backend and is answered with an RST that has the right number.
//! If a dead real comes back, it is added anew, with another generation.
//!
//! **A record is used again** after its flows are gone: no sooner than the longest idle time, or
//! after the generation was bumped (flows that still name it are then new flows).
//!
//! **Programs are replaced** by loading new ones with the pinned maps and updating the link; every
//! map stays, so no flow is lost. Maps of another [`LAYOUT`](layout::LAYOUT) are not taken over.
//! A loader that restarts finds everything in the maps; it compares them with what it wants and
//! writes the difference.
//!
//! **The node of a real** puts its addresses in [`DECAP`](layout::maps::DECAP), those of the
//! balancers (and of the other reals' nodes, which may pass packets on) in
//! [`PEERS`](layout::maps::PEERS), and attaches [`layout::maps::PROGRAM_DECAP`]; the service's
//! address must be on its loopback interface, `rp_filter` must not be strict. With one interface
//! for both, the balancer decapsulates, too.
//!
//! # Two balancers
//!
//! Rings are the same on two balancers that saw the same changes in the same order (the builder is
//! a function of the former ring and the new members). They see a change at different moments, and a
//! router may send a flow to the other one meanwhile. So a packet that begins no connection and has
//! no entry is sent to the slot's member with the previous member behind it: encapsulated twice,
//! the inner one addressed to the previous real. The decapsulator of the first looks for the
//! connection among its sockets; if it has none, it takes only the outer header off and sends the
//! rest on. This needs IPIP or GUE and [`backend_flag::CHAINS`](layout::backend_flag) on both.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is a call for each packet, and bounds that the verifier cannot see"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    reason = "fields are cut out of words and headers throughout, and lengths are below 2^16"
)]
#![allow(
    clippy::cast_ptr_alignment,
    reason = "packets have no alignment: see `window`; records are aligned to a line of the cache"
)]
#![cfg_attr(not(any(test, feature = "host")), no_std)]

mod balance;
mod begin;
pub mod checksum;
mod decap;
mod family;
mod flow;
mod flows;
mod forward;
pub mod hash;
#[cfg(feature = "host")]
pub mod host;
mod icmp;
pub mod layout;
mod limit;
mod machine;
mod nat;
mod reply;
mod service;
mod window;

pub use balance::balance;
pub use decap::decapsulate;
pub use machine::{Action, Machine, NextHop};
pub use window::Window;
