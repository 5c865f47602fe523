//! Which ports of a node are handed out next.

use std::collections::VecDeque;

use ballast_model::{Allocation, PortBinding, PortRange, PortSpec, Shortage, Target};

/// Ports of one node that are kept out because a stranger holds them. When there are more, the
/// oldest is tried again: a stranger may have gone, and the agent will say so if not.
pub(crate) const QUARANTINED_PER_NODE: usize = 256;

/// A node's next dynamic port and the ports that strangers hold.
///
/// The cursor goes round the range instead of taking the lowest free port: a port that was just
/// freed would be reused at once by another service, while a client may still hold the endpoint
/// of the old one.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Where the search for the next dynamic port begins.
    cursor: u16,
    /// Oldest first.
    quarantined: VecDeque<u16>,
}

/// Ports that were chosen for one task.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// By name, as the spec lists them.
    pub bindings: Vec<PortBinding>,
    /// Each number once.
    pub numbers: Vec<u16>,
}

impl Ports {
    /// Chooses ports for a task, without taking them.
    ///
    /// A fixed number that two protocols share is claimed once.
    pub(crate) fn choose(
        &self,
        range: PortRange,
        taken: &Allocation,
        wanted: &[PortSpec],
    ) -> Result<Chosen, Shortage> {
        let mut bindings = Vec::with_capacity(wanted.len());
        let mut numbers: Vec<u16> = Vec::with_capacity(wanted.len());
        for port in wanted {
            if let Target::Fixed(number) = port.target {
                if taken.ports.contains(&number) || self.quarantined.contains(&number) {
                    return Err(Shortage::Port(number));
                }
                if !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
        }
        let mut next = self.cursor.clamp(range.first, range.last.max(range.first));
        let mut left = range.len();
        for port in wanted {
            let number = match port.target {
                Target::Fixed(number) => number,
                Target::Dynamic => loop {
                    if left == 0 {
                        return Err(Shortage::NoFreePort);
                    }
                    left -= 1;
                    let candidate = next;
                    next = if next >= range.last {
                        range.first
                    } else {
                        next + 1
                    };
                    if candidate != 0
                        && !taken.ports.contains(&candidate)
                        && !self.quarantined.contains(&candidate)
                        && !numbers.contains(&candidate)
                    {
                        numbers.push(candidate);
                        break candidate;
                    }
                },
            };
            bindings.push(PortBinding {
                name: port.name.clone(),
                port: number,
            });
        }
        Ok(Chosen { bindings, numbers })
    }

    /// Returns how many dynamic ports could be chosen at once.
    pub(crate) fn free_dynamic(&self, range: PortRange, taken: &Allocation) -> u32 {
        if range.is_empty() {
            return 0;
        }
        let held = taken.ports.range(range.first..=range.last).count();
        let strange = |port: &&u16| range.contains(**port) && !taken.ports.contains(*port);
        let quarantined = self.quarantined.iter().filter(strange).count();
        let none = usize::from(range.first == 0 && !taken.ports.contains(&0));
        let out = u32::try_from(held + quarantined + none).unwrap_or(u32::MAX);
        range.len().saturating_sub(out)
    }

    /// Moves the cursor past ports that were taken.
    pub(crate) fn advance(&mut self, range: PortRange, numbers: &[u16]) {
        let mut dynamic = numbers.iter().copied().filter(|&port| range.contains(port));
        // The last one chosen: the cursor may have gone round in between.
        if let Some(last) = dynamic.next_back() {
            self.cursor = if last >= range.last {
                range.first
            } else {
                last + 1
            };
        }
    }

    /// Keeps a port out.
    pub(crate) fn quarantine(&mut self, port: u16) {
        if self.quarantined.contains(&port) {
            return;
        }
        if self.quarantined.len() == QUARANTINED_PER_NODE {
            self.quarantined.pop_front();
        }
        self.quarantined.push_back(port);
    }

    /// Lets a port in again.
    pub(crate) fn lift(&mut self, port: u16) {
        self.quarantined.retain(|&held| held != port);
    }

    /// Lets every port in again.
    pub(crate) fn lift_all(&mut self) {
        self.quarantined.clear();
    }
}
