//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why programs are not loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not.
    #[error("XDP programs need {0}: run as root, or give the capability")]
    NotPermitted(&'static str),
    /// The kernel is too old.
    #[error("the kernel is {found}; XDP links need 5.9 or later")]
    Kernel {
        /// What it calls itself.
        found: String,
    },
    /// Nothing to pin in.
    #[error("cannot pin maps in {path}: it must be on a bpffs (mount -t bpf bpf {path})")]
    BpfFs {
        /// Where it was tried.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such interface.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    /// The interface cannot do it.
    #[error("interface `{interface}`: {requirement}")]
    Requirement {
        /// Which.
        interface: String,
        /// What it must have, and how to give it.
        requirement: String,
    },
    /// The object.
    #[error("cannot load the programs")]
    Load(#[source] Box<aya::EbpfError>),
    /// A program that the object does not have.
    #[error("the object has no program `{0}`")]
    NoProgram(&'static str),
    /// A map that the object does not have.
    #[error("the object has no map `{0}`")]
    NoMap(&'static str),
    /// A program.
    #[error("cannot load program `{name}`")]
    Program {
        /// Which.
        name: &'static str,
        /// Why: the verifier's last words, if it was the verifier.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// Attaching it.
    #[error("cannot attach to `{interface}`")]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map.
    #[error("map `{name}`")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Asking the kernel about its network.
    #[error("cannot ask the kernel for {what}")]
    Netlink {
        /// What for.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No way to an address.
    #[error("no route to {0}")]
    NoRoute(std::net::IpAddr),
}

impl Error {
    /// Whether the same may work later, without anybody changing a configuration.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NoInterface(_) | Self::Attach { .. } | Self::Netlink { .. } | Self::NoRoute(_)
        )
    }
}
