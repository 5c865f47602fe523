//! The words of Ballast as types: ids, units, specs, state machines, `fits`, limits.
//!
//! Every other crate speaks in these. Nothing here waits, draws random bits, reads a clock, a file
//! or the network: ids and times are handed in.
//!
//! * [`ids`]: what is named, and how ids read
//! * [`units`]: CPU, bytes, spans, moments, generations
//! * [`spec`]: what a user asks for, and the proof that it can be
//! * [`task`], [`node`]: state machines with their transition tables
//! * [`device`]: what a node has several of
//! * [`resources`]: capacity, claims, and the one predicate `fits`
//! * [`endpoint`]: what an ingress is told
//! * [`view`], [`plan`], [`event`]: what the API answers
//! * [`limits`]: every bound that more than one crate must agree on

pub mod device;
pub mod endpoint;
pub mod event;
pub mod ids;
pub mod limits;
pub mod node;
pub mod plan;
pub mod pool;
pub mod resources;
pub mod spec;
mod suggest;
mod taint;
pub mod task;
pub mod units;
pub mod view;

pub use device::{Device, DeviceGrant, DeviceRequest, InvalidDevices, Socket, SocketGrant};
pub use endpoint::{Endpoint, PortTable, ServiceTable, Weight, ZONE_LABEL};
pub use event::{Event, EventKind};
pub use ids::{
    AssignmentId, ClusterId, IngressId, InvalidId, ManagerId, NodeId, ServiceId, Slot, TaskId,
};
pub use node::{Availability, Node, NodeDescription, NodeEvent, NodeStatus};
pub use pool::Pool;
pub use resources::{
    Allocation, Capacity, Claim, PortRange, Resources, Shortage, SocketTaken, fits, fits_amounts,
};
pub use spec::*;
pub use suggest::nearest;
pub use taint::{InvalidTaint, Taint, TaintEffect};
pub use task::{
    Binding, Desired, Exit, Health, IllegalTransition, Observed, PortBinding, Task, TaskState,
};
pub use units::{
    Bytes, Generation, Incarnation, InvalidUnit, MilliCpu, Millis, Sequence, Timestamp,
};
