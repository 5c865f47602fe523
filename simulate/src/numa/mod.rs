//! Virtual machines on hosts of two sockets: topology-aware placement.
//!
//! A request takes one socket, or half of itself on each of two. Requests of one group and
//! strategy are bound to each other by rack:
//!
//! | strategy | rule |
//! | --- | --- |
//! | none | |
//! | affinity | all in one rack |
//! | anti-affinity | each in another rack |
//! | fault_domain | those of different domains in different racks |
//!
//! The data set names the strategies (collocation, anti-collocation, fault domains) and the racks
//! and leaves their scope open. By host affinity could not be meant: groups of it are larger than
//! any host; so the rack it is, for all three.
//!
//! * [`read_hosts`], [`read_racks`], [`read_requests`]: the lists, by column name
//! * [`verify`]: counts what a placement breaks; knows nothing of who placed
//! * [`first_fit`], [`best_fit`]: what the scheduler is compared with
//! * [`schedule`]: the scheduler
//!
//! # Source
//! mdl1104/Dataset-for-topology-aware-VM-placement, from Huawei Cloud's production; CC0.

mod baseline;
mod lists;
mod schedule;
mod verify;

pub use baseline::{best_fit, first_fit};
pub use lists::{Half, Host, Request, Strategy, read_hosts, read_racks, read_requests};
pub use schedule::schedule;
pub use verify::{Broken, Spot, verify};
