//! The lists of hosts, racks and requests.

use std::collections::BTreeMap;

use ballast_model::{Bytes, MilliCpu};

use crate::trace::{Column, Problem, Row, Table, TraceError};

/// CPUs of a socket or a request.
const CPUS: u64 = 4096;
/// GiB of a socket or a request.
const GIB: u64 = 65_536;
/// Groups are numbered below this.
const GROUPS: u64 = 1_000_000;
/// Fault domains are numbered below this.
const DOMAINS: u64 = 1000;

/// What one socket has free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Half {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
}

/// A host of two sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What is free on each.
    pub sockets: [Half; 2],
    /// The rack that it stands in.
    pub rack: String,
}

/// What binds requests of one group together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// One rack for all of the group.
    Affinity,
    /// A rack for each of the group.
    AntiAffinity,
    /// Another rack for each domain.
    FaultDomain {
        /// That of this request.
        domain: u32,
    },
}

/// One request for a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// CPU in all.
    pub cpu: MilliCpu,
    /// Memory in all.
    pub memory: Bytes,
    /// How many sockets it takes evenly: 1 or 2.
    pub sockets: u8,
    /// Its group's number and what binds it to the others of it.
    pub bound: Option<(u32, Strategy)>,
}

/// Reads hosts: columns `CPU1`, `RAM1`, `CPU2`, `RAM2` (free CPUs and GiB of each socket). `racks`
/// names the rack of `host-<row>`, rows counted from 0.
///
/// # Errors
/// What is wrong, with line and column; a host that no rack is given for.
pub fn read_hosts(bytes: &[u8], racks: &BTreeMap<String, String>) -> Result<Vec<Host>, TraceError> {
    let table = Table::open(bytes)?;
    let columns = [
        (table.column("CPU1")?, table.column("RAM1")?),
        (table.column("CPU2")?, table.column("RAM2")?),
    ];
    table.read(|number, row| {
        let name = format!("host-{number}");
        let Some(rack) = racks.get(&name) else {
            return Err(row.wrong(format!("no rack is given for `{name}`")));
        };
        let mut sockets = [Half::default(); 2];
        for (socket, (cpu, ram)) in sockets.iter_mut().zip(columns) {
            *socket = half(row, cpu, ram)?;
        }
        Ok(Host {
            sockets,
            rack: rack.clone(),
        })
    })
}

/// Reads the rack of each host: columns `host_id` and `rack_id`.
///
/// # Errors
/// What is wrong, with line and column.
pub fn read_racks(bytes: &[u8]) -> Result<BTreeMap<String, String>, TraceError> {
    let table = Table::open(bytes)?;
    let host = table.column("host_id")?;
    let rack = table.column("rack_id")?;
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    let rows = table.read(|_, row| {
        let name = row.text(host).to_owned();
        if let Some(before) = lines.insert(name.clone(), row.line) {
            return Err(row.value(host, Problem::Twice(before)));
        }
        Ok((name, row.text(rack).to_owned()))
    })?;
    Ok(rows.into_iter().collect())
}

/// Reads requests: columns `flavor_vcpus`, `flavor_ram` (GiB), `numa` (1 or 2), `strategy` (empty,
/// `affinity`, `anti-affinity` or `fault_domain`), `group` and `domain` (numbers, where the
/// strategy needs them).
///
/// # Errors
/// What is wrong, with line and column.
pub fn read_requests(bytes: &[u8]) -> Result<Vec<Request>, TraceError> {
    let table = Table::open(bytes)?;
    let cpu = table.column("flavor_vcpus")?;
    let ram = table.column("flavor_ram")?;
    let numa = table.column("numa")?;
    let strategy = table.column("strategy")?;
    let group = table.column("group")?;
    let domain = table.column("domain")?;
    table.read(|_, row| {
        let sockets = match row.whole(numa, 2, "sockets")? {
            0 => return Err(row.value(numa, Problem::TooSmall(1))),
            sockets => u8::try_from(sockets).expect("at most 2"),
        };
        let strategy = match row.text(strategy) {
            "" => None,
            "affinity" => Some(Strategy::Affinity),
            "anti-affinity" => Some(Strategy::AntiAffinity),
            "fault_domain" => Some(Strategy::FaultDomain {
                domain: number(row, domain, DOMAINS)?,
            }),
            _ => {
                let known = "`affinity`, `anti-affinity`, `fault_domain` and nothing";
                return Err(row.value(strategy, Problem::NoneOf(known)));
            }
        };
        let bound = match strategy {
            Some(strategy) => Some((number(row, group, GROUPS)?, strategy)),
            None => None,
        };
        let whole = half(row, cpu, ram)?;
        Ok(Request {
            cpu: whole.cpu,
            memory: whole.memory,
            sockets,
            bound,
        })
    })
}

fn half(row: &Row<'_>, cpu: Column, ram: Column) -> Result<Half, TraceError> {
    let cpus = row.whole(cpu, CPUS, "CPUs")?;
    Ok(Half {
        cpu: MilliCpu::from_cores(u32::try_from(cpus).expect("at most CPUS")),
        memory: Bytes::from_mib(row.whole(ram, GIB, "GiB")? << 10),
    })
}

fn number(row: &Row<'_>, column: Column, most: u64) -> Result<u32, TraceError> {
    let number = row.whole(column, most, "as a number")?;
    Ok(u32::try_from(number).expect("at most a million"))
}
