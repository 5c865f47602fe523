//! The node index: what each node has free, in words that anybody changes by compare-and-swap, and
//! files that find the right node in a few steps, whatever their number.
//!
//! * `words`, `lanes`, `custom`, `ports`: what is free, and how it is taken and given back
//! * `line`: a node's words together; a reservation of several of them
//! * `cell`, `block`, `view`: quantised free capacity; 64 nodes' cells bit by bit; nodes by cell
//!   and by number of tasks
//! * `dirty`, `shard`: the files of one worker, and what others tell it
//! * `nodes`: [`Index`], the search over all of it
//!
//! # What is true at any time
//!
//! Whether a task fits a node its words decide and nothing else: a reservation is a
//! compare-and-swap that cannot succeed beyond what is there. The files say where to look first.
//! They are right when nobody else is at work, and otherwise lag behind; a search that finds
//! nothing in them reads every node's words before it says so.
//!
//! Nodes come, go and change class through `&mut`: nothing is ever freed that somebody may still
//! read, and the borrow checker is the proof.
//!
//! # For rules and policies
//!
//! The index knows amounts, classes and orders, and nothing of services. [`Ask`] says what is
//! looked for: amounts, allowed classes, nodes to leave out (a [`BitSet`] over [`Index::rank`]) and
//! the order. [`Index::find`] takes the first that a closure accepts and leaves out those that it does
//! not: one that notes what it sees and accepts nothing visits all of them in order.
//! [`Index::take`] and [`Index::give`] reserve on one node, [`Index::line`] tells what it has. The
//! [`crate::fleet::Fleet`] puts nodes, classes and services around it.

mod block;
mod cell;
mod custom;
mod dirty;
mod lanes;
mod line;
#[cfg(all(test, loom))]
mod loom_tests;
mod nodes;
mod ports;
mod shard;
mod view;
mod words;

pub(crate) use block::BitSet;
pub(crate) use custom::Custom;
pub(crate) use lanes::{DEVICES, Lanes, PER_WORD, Remains, WORDS, Wanted, remaining};
pub(crate) use line::{Demand, Extra, Grant};
pub(crate) use nodes::{Allowed, Ask, At, Classes, Index, Order, Stock};
pub(crate) use ports::PortMap;
pub(crate) use words::{Amounts, Fields};
