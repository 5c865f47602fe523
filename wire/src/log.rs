//! The commands in the Raft log.
