//! The way to a real: by which interface, to which MAC address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ballast_ebpf_loader::{Error, Link, ask_for, link_at, neighbour, route};

/// How long a start or a reload waits for neighbours to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(5);
/// After which a neighbour is asked for again: packets that bypass the stack do not keep it fresh.
const REFRESH: Duration = Duration::from_secs(5);

/// How packets get to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is one of this host's own.
    Here,
    /// Through a neighbour.
    Hop(Hop),
}

/// The neighbour on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// The interface it leaves by.
    pub egress: u32,
    /// Whether the address is the neighbour itself.
    pub direct: bool,
    /// The neighbour's MAC address.
    pub next_hop: [u8; 6],
    /// Ours.
    pub own: [u8; 6],
    /// The interface's MTU.
    pub mtu: u16,
    /// Our address towards it.
    pub source: Option<IpAddr>,
}

/// What is known of ways to reals.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: HashMap<IpAddr, (Way, Instant)>,
}

impl Ways {
    pub(super) fn to(&self, address: IpAddr) -> Option<Way> {
        self.known.get(&address).map(|(way, _)| *way)
    }

    /// Takes what was found out; returns whether anything is another than before.
    pub(super) fn take(&mut self, found: Found) -> bool {
        let mut changed = false;
        for (address, way) in found.0 {
            let before = self.known.insert(address, (way, Instant::now()));
            changed |= before.is_none_or(|(before, _)| before != way);
        }
        changed
    }

    /// Returns which of some addresses are to be looked for: unknown ones, and those of which it
    /// was long ago.
    pub(super) fn due(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let is_due = |address: &IpAddr| {
            let known = self.known.get(address);
            known.is_none_or(|(_, since)| since.elapsed() >= REFRESH)
        };
        addresses.into_iter().filter(is_due).collect()
    }
}

/// Ways that were found; needs no lock.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<(IpAddr, Way)>);

/// Looks for the ways to some addresses, and waits a little for neighbours that do not answer at
/// once if `patient`. Those that are not found are said, and looked for again another time.
pub(super) fn find(addresses: &[IpAddr], patient: bool) -> Found {
    let until = Instant::now() + PATIENCE;
    let mut found = Found::default();
    let mut open: Vec<IpAddr> = addresses.to_vec();
    for address in &open {
        ask_for(*address);
    }
    loop {
        open.retain(|address| match find_one(*address) {
            Ok(Some(way)) => {
                found.0.push((*address, way));
                false
            }
            Ok(None) => true,
            Err(error) => {
                let error = crate::chain(&error);
                tracing::warn!(%address, error, "no way to a real");
                false
            }
        });
        if open.is_empty() || !patient || Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOK);
    }
    for address in open {
        tracing::debug!(%address, "the neighbour on the way to a real does not answer");
    }
    found
}

fn find_one(address: IpAddr) -> Result<Option<Way>, Error> {
    let route = route(address)?;
    let link: Link = link_at(route.interface)?;
    if link.name == "lo" {
        return Ok(Some(Way::Here));
    }
    let Some(own) = link.mac else {
        return Err(Error::Requirement {
            interface: link.name,
            requirement: "it has no MAC address: Ethernet is needed".to_owned(),
        });
    };
    let next_hop = neighbour(route.interface, route.next)?;
    Ok(next_hop.map(|next_hop| {
        Way::Hop(Hop {
            egress: route.interface,
            direct: route.next == address,
            next_hop,
            own,
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            source: route.source,
        })
    }))
}
