//! The balancer in the kernel: maps that follow the route table.
//!
//! [`Balancer`] holds the loaded programs and knows what stands in their maps. It is told of each
//! new table by whoever makes it, before that one returns, so a dead real is out of the maps at the
//! moment at which it is out of the L7 pools: first one byte for each real that is out, then rings.
//! Everything else (ways to reals, flows of reals that left) is looked after by
//! [`Balancer::look_after`], once a second.
//!
//! A process that starts finds the maps of the one before and goes on from them: services are
//! taken up by their address, reals by theirs, and flows never notice.

mod describe;
mod reset;
mod room;
mod service;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_ebpf_common::layout::flow::{self, Meta};
use ballast_ebpf_common::layout::{
    ADDRESS, Address, Config, LAYOUT, NetKey, Vip, VipKey, flag, limits, state, vip_flag,
};
use ballast_ebpf_loader::{Attached, Error, Program, Programs, Sizes, bpffs, requirements};
use ballast_model::Protocol;

pub use describe::{Described, DescribedReal};

use self::room::{Places, Spans};
use self::service::{Outcome, Room, Service};
use self::way::Ways;
use super::{Forward, L4Config, L4Service, Net, XdpOptions};
use crate::hub::random_bits;
use crate::table::RouteTable;

/// Why the balancer in the kernel does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum L4Error {
    /// The programs, an interface, or the kernel.
    #[error(transparent)]
    Xdp(#[from] Error),
    /// A bug: what was to be done has panicked.
    #[error("the balancer in the kernel is in an unknown state")]
    Broken,
    /// There is no room for it.
    #[error(
        "`{service}`: no room for more {what}: `xdp` says how much there is (after `ballast ingress detach`)"
    )]
    Full {
        /// For which service.
        service: String,
        /// Of what.
        what: &'static str,
    },
}

/// What a service is found under.
type Place = (Net, Option<u16>, bool);

fn place(spec: &L4Service) -> Place {
    (spec.vip, spec.port, spec.protocol == Protocol::Udp)
}

/// The balancer in the kernel.
#[derive(Debug)]
pub struct Balancer {
    inner: Mutex<Inner>,
    detach_on_stop: bool,
    folder: PathBuf,
}

#[derive(Debug)]
struct Inner {
    programs: Programs,
    attached: BTreeMap<String, Attached>,
    options: XdpOptions,
    services: BTreeMap<Place, Service>,
    /// What an earlier life has left and nobody has asked for yet.
    left: BTreeMap<VipKeyBytes, (VipKey, Vip)>,
    room: Room,
    ways: Ways,
    /// Addresses of translations that the filter lets through.
    sources: BTreeSet<[u32; 4]>,
}

/// Orders keys.
type VipKeyBytes = ([u32; 4], u16, u8);

impl Balancer {
    /// Loads the programs and takes up the maps that are there.
    ///
    /// # Errors
    /// [`Error`]: the kernel or this process cannot; it says what is missing.
    pub fn load(options: &XdpOptions) -> Result<Self, L4Error> {
        requirements()?;
        let folder = bpffs::folder(options.pin.as_deref())?;
        let sizes = Sizes {
            ring: options.services.saturating_mul(options.ring),
            vips: options.services.saturating_add(1).next_power_of_two(),
            flow_lines: (options.flows / 4).next_power_of_two(),
            translations: options.translations.next_power_of_two(),
            ..Sizes::default()
        };
        let programs = Programs::load(&folder, sizes)?;
        let maps = &programs.maps;
        let end = u32::try_from(maps.backends.len()).unwrap_or(limits::BACKENDS_MAX);
        let room = Room {
            rings: Spans::new(maps.ring.len()),
            members: Spans::new(maps.members.len()),
            backends: Places::new(0, end.min(limits::BACKENDS_MAX)),
            indices: Places::new(1, maps.vips_max),
        };
        let mut left = BTreeMap::new();
        if programs.taken_over {
            for (key, vip) in maps.vips()? {
                left.insert((key.address.0, key.port, key.protocol), (key, vip));
            }
        }
        let mut inner = Inner {
            programs,
            attached: BTreeMap::new(),
            options: options.clone(),
            services: BTreeMap::new(),
            left,
            room,
            ways: Ways::default(),
            sources: BTreeSet::new(),
        };
        inner.configure();
        Ok(Self {
            inner: Mutex::new(inner),
            detach_on_stop: options.detach_on_stop,
            folder,
        })
    }

    /// Makes its services those of `config`, with the reals of `table`: attaches to interfaces that
    /// are new, and leaves those that are not named any more.
    ///
    /// # Errors
    /// An interface cannot work, and what it lacks: nothing has changed then. Or there is no room.
    pub fn take(&self, config: &L4Config, table: &RouteTable) -> Result<(), L4Error> {
        let mut inner = self.lock();
        inner.attach(&config.services)?;
        let before = (inner.specs(), inner.options.clone());
        let addresses = addresses_of(&config.services, table);
        let due = inner.ways.due(addresses);
        let found = way::find(&due, true);
        inner.ways.take(found);
        let taken = inner.take(&config.services, config.options.clone(), table);
        if taken.is_err() && !before.0.is_empty() {
            inner.take(&before.0, before.1, table)?;
            inner.detach(&before.0)?;
        }
        taken?;
        inner.drop_left()?;
        inner.detach(&config.services)
    }

    /// Follows a table: what is out is out when it returns.
    pub fn follow(&self, table: &RouteTable) {
        let mut inner = self.lock();
        if let Err(error) = inner.follow(table) {
            let error = crate::chain(&error);
            tracing::error!(error, "the balancer in the kernel does not follow");
        }
    }

    /// Looks after what no table tells: ways to reals, and reals that left and have no flows any
    /// more. Waits for neighbours that do not answer at once if `patient`.
    pub fn look_after(&self, table: &RouteTable, patient: bool) {
        let (due, flows) = {
            let inner = self.lock();
            let specs: Vec<L4Service> = inner.specs();
            let due = inner.ways.due(addresses_of(&specs, table));
            let leaving = inner
                .services
                .values()
                .flat_map(|service| service.reals.values());
            let leaving = leaving.clone().any(|real| real.left);
            let flows = leaving.then(|| Arc::clone(&inner.programs.maps.flows));
            (due, flows)
        };
        // Without the lock: neighbours take their time, and so does a look through all flows.
        let found = way::find(&due, patient);
        let counts = flows.map(|flows| count(&flows));
        let mut inner = self.lock();
        if inner.ways.take(found) {
            for service in inner.services.values_mut() {
                service.waits = true;
            }
            if let Err(error) = inner.follow(table) {
                let error = crate::chain(&error);
                tracing::error!(error, "the balancer in the kernel does not follow");
            }
        }
        if let Some(counts) = counts {
            let Inner {
                services,
                programs,
                room,
                ..
            } = &mut *inner;
            for service in services.values_mut() {
                service.forget(&counts, &programs.maps, room);
            }
        }
    }

    /// Whether a real waits for a way to it.
    pub fn waits(&self) -> bool {
        let inner = self.lock();
        inner.services.values().any(|service| service.waits)
    }

    /// Ends: takes the programs away if it is told to, else leaves them to the next life.
    pub fn stop(&self) {
        if !self.detach_on_stop {
            return;
        }
        self.lock().attached.clear();
        match Programs::remove_all(&self.folder) {
            Ok(()) => tracing::info!("XDP programs detached"),
            Err(error) => {
                let error = crate::chain(&error);
                tracing::error!(error, "XDP programs not detached");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A step that panicked leaves maps that the next one sets right.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes away whatever is pinned where a balancer with these options pins.
///
/// # Errors
/// There is no such place, or it cannot be written.
pub fn detach(options: &XdpOptions) -> Result<(), L4Error> {
    let folder = bpffs::folder(options.pin.as_deref())?;
    Ok(Programs::remove_all(&folder)?)
}

/// Returns the addresses of all reals.
fn addresses_of(services: &[L4Service], table: &RouteTable) -> BTreeSet<IpAddr> {
    let pools = services.iter().filter_map(|spec| table.pool(&spec.pool));
    let members = pools.flat_map(|pool| &pool.members);
    members.map(|member| member.backend.address.ip()).collect()
}

/// Returns how many flows each backend has.
fn count(flows: &ballast_ebpf_loader::Shared<flow::Line>) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for line in 0..flows.len() {
        for way in flows.load(line).ways {
            if way.tag > flow::CLAIMED {
                *counts.entry(Meta(way.meta).backend()).or_default() += 1;
            }
        }
    }
    counts
}

impl Inner {
    fn take(
        &mut self,
        services: &[L4Service],
        options: XdpOptions,
        table: &RouteTable,
    ) -> Result<(), L4Error> {
        self.options = options;
        self.configure();
        self.set_services(services)?;
        self.follow(table)?;
        self.filter()
    }

    fn specs(&self) -> Vec<L4Service> {
        self.services
            .values()
            .map(|service| service.spec.clone())
            .collect()
    }

    /// Writes what holds for all.
    fn configure(&mut self) {
        let maps = &self.programs.maps;
        let there = maps.config.load(0);
        let known = there.layout == LAYOUT;
        let key = match (self.options.key, known) {
            (Some(key), true) if key != there.key => {
                tracing::warn!("`xdp.key` is another than before: flows go by the ring again");
                key
            }
            (Some(key), _) => key,
            (None, true) => there.key,
            (None, false) => [random_bits(), random_bits()],
        };
        let mask = |length: usize| u32::try_from(length - 1).unwrap_or(u32::MAX);
        let kept = there.flags & (flag::NETS | flag::NAT | flag::ENABLED | flag::BLOCK_LIST);
        let mut config = Config::new(key);
        config.flags = flag::FLOW_KEYS | if known { kept } else { 0 };
        config.flow_mask = mask(maps.flows.len());
        config.nat_mask = mask(maps.translations.len());
        config.source_limit = self.options.source_limit;
        config.nat_base = self.options.nat_base;
        config.nat_count = self.options.nat_count;
        maps.config.store(0, config);
    }

    fn set_flags(&mut self, flags: u32) {
        let mut config = self.programs.maps.config.load(0);
        config.flags = flags | flag::FLOW_KEYS | flag::ENABLED;
        self.programs.maps.config.store(0, config);
    }

    /// Attaches to every interface that is not attached to yet.
    fn attach(&mut self, services: &[L4Service]) -> Result<(), L4Error> {
        let names: BTreeSet<&str> = services
            .iter()
            .map(|spec| spec.interface.as_str())
            .collect();
        let mut fresh = Vec::new();
        for name in names {
            if self.attached.contains_key(name) {
                continue;
            }
            let attached = self
                .programs
                .attach(Program::Balance, name, self.options.attach);
            match attached {
                Ok(attached) => fresh.push((name.to_owned(), attached)),
                Err(error) => {
                    // Whole or not at all; those of an earlier life keep what they had.
                    for (name, attached) in fresh {
                        if !attached.replaced
                            && let Err(error) = attached.detach()
                        {
                            tracing::error!(interface = name, %error, "not detached");
                        }
                    }
                    return Err(error.into());
                }
            }
        }
        for (name, attached) in fresh {
            tracing::info!(
                interface = name,
                generic = attached.generic,
                replaced = attached.replaced,
                "XDP balancer attached"
            );
            self.attached.insert(name, attached);
        }
        Ok(())
    }

    /// Leaves interfaces that no service names.
    fn detach(&mut self, services: &[L4Service]) -> Result<(), L4Error> {
        let wanted: BTreeSet<&str> = services
            .iter()
            .map(|spec| spec.interface.as_str())
            .collect();
        for name in self.programs.attached()? {
            if !wanted.contains(name.as_str()) {
                self.attached.remove(&name);
                self.programs.detach(&name)?;
                tracing::info!(interface = name, "XDP balancer detached");
            }
        }
        Ok(())
    }

    /// Makes the services those of `wanted`; their reals come with [`Inner::follow`].
    fn set_services(&mut self, wanted: &[L4Service]) -> Result<(), L4Error> {
        let places: BTreeSet<Place> = wanted.iter().map(place).collect();
        let gone: Vec<Place> = self
            .services
            .keys()
            .filter(|place| !places.contains(place))
            .copied()
            .collect();
        for place in gone {
            if let Some(service) = self.services.remove(&place) {
                let key = service.key(self.address_of(&service.spec));
                self.programs.maps.remove_vip(key)?;
                service.release(&mut self.programs.maps, &mut self.room)?;
            }
        }
        for spec in wanted {
            if let Some(service) = self.services.get_mut(&place(spec)) {
                if service.spec != *spec {
                    service.spec = spec.clone();
                    service.waits = true;
                    service.refresh();
                }
                continue;
            }
            let service = match self.left_of(spec) {
                Some(vip) => {
                    let maps = &self.programs.maps;
                    let service = Service::adopt(spec.clone(), vip, maps, &mut self.room);
                    service.keep(&mut self.room);
                    tracing::info!(service = %spec.name, reals = service.reals.len(), "taken up");
                    service
                }
                None => continue,
            };
            self.services.insert(place(spec), service);
        }
        // New ones last: what was taken up has its places by now.
        for spec in wanted {
            if !self.services.contains_key(&place(spec)) {
                let service = Service::new(spec.clone(), self.options.ring, &mut self.room)?;
                self.services.insert(place(spec), service);
            }
        }
        Ok(())
    }

    /// Returns the entry that an earlier life has left for a service.
    fn left_of(&mut self, spec: &L4Service) -> Option<Vip> {
        // A net's number is that of its address's record, which is looked for by the net.
        if !spec.vip.is_single() {
            return None;
        }
        let protocol = if spec.protocol == Protocol::Udp {
            ballast_ebpf_common::layout::UDP
        } else {
            ballast_ebpf_common::layout::TCP
        };
        let key = VipKey::new(
            Address::from(spec.vip.address),
            spec.port.unwrap_or(0),
            protocol,
        );
        let left = self.left.remove(&(key.address.0, key.port, key.protocol));
        left.map(|(_, vip)| vip)
    }

    /// Removes the entries that an earlier life has left and nobody wants.
    fn drop_left(&mut self) -> Result<(), L4Error> {
        for (key, vip) in std::mem::take(&mut self.left).into_values() {
            if key.protocol == ADDRESS {
                // Written anew with the filter.
                continue;
            }
            self.programs.maps.remove_vip(key)?;
            for at in 0..self.programs.maps.backends.len() {
                let record = self.programs.maps.backends.load(at);
                if record.state != state::FREE && record.vip == vip.index {
                    self.programs.maps.backends.set_state(at, state::FREE);
                }
            }
        }
        Ok(())
    }

    /// Returns the address that a service stands under in the maps.
    fn address_of(&self, spec: &L4Service) -> Address {
        if spec.vip.is_single() {
            return Address::from(spec.vip.address);
        }
        Address::of_net(self.net_number(spec.vip))
    }

    /// Returns the number of a net: the row of the first of its services.
    fn net_number(&self, net: Net) -> u32 {
        let mut own = self.services.values();
        own.find(|service| service.spec.vip == net)
            .map_or(0, |service| service.index)
    }

    fn follow(&mut self, table: &RouteTable) -> Result<(), L4Error> {
        let mut outcome = Outcome::default();
        for service in self.services.values_mut() {
            let pool = table.pool(&service.spec.pool);
            if service.is_behind(pool) {
                service.take_out(pool, &self.programs.maps, &mut outcome);
            }
        }
        let died = std::mem::take(&mut outcome.died);
        if !died.is_empty() {
            let maps = &self.programs.maps;
            reset::tell_clients(Arc::clone(&maps.flows), Arc::clone(&maps.flow_keys), died);
        }
        let places: Vec<Place> = self.services.keys().copied().collect();
        let mut quic = false;
        for place in places {
            let Some(mut service) = self.services.remove(&place) else {
                continue;
            };
            let pool = table.pool(&service.spec.pool);
            let done = if service.is_behind(pool) {
                quic |= service.spec.quic;
                let attached = self.attached.get(&service.spec.interface);
                let ingress = attached.map_or(0, |attached| attached.link.index);
                let room = (&mut self.programs.maps, &mut self.room, &self.ways);
                service.follow(pool, room, ingress, &mut outcome)
            } else {
                Ok(())
            };
            self.services.insert(place, service);
            done?;
        }
        let addresses: Vec<(Place, Address)> = self
            .services
            .iter()
            .map(|(place, service)| (*place, self.address_of(&service.spec)))
            .collect();
        for (place, address) in addresses {
            if let Some(service) = self.services.get_mut(&place) {
                service.serve(address, &mut self.programs.maps, &mut self.room)?;
            }
        }
        if quic {
            self.quic_ids()?;
        }
        if self.nat_sources() != self.sources {
            self.filter()?;
        }
        if outcome.slots > 0 {
            tracing::debug!(slots = outcome.slots, "rings turned");
        }
        Ok(())
    }

    fn quic_ids(&mut self) -> Result<(), L4Error> {
        let mut ids = Vec::new();
        for service in self.services.values() {
            for (address, &server) in &service.spec.server_ids {
                if let Some(real) = service.reals.get(address) {
                    let key = ballast_ebpf_common::layout::quic::QuicKey {
                        vip: service.index,
                        server,
                    };
                    ids.push((key, real.backend));
                }
            }
        }
        Ok(self.programs.maps.set_quic_ids(&ids)?)
    }

    /// Returns the addresses that translated packets leave from, and answers come back to.
    fn nat_sources(&self) -> BTreeSet<[u32; 4]> {
        let services = self.services.values();
        let services = services.filter(|service| service.spec.forward == Forward::Nat);
        let reals = services.flat_map(|service| service.reals.values());
        let backends = &self.programs.maps.backends;
        let sources = reals.map(|real| backends.load(real.backend as usize).source);
        sources.map(|source| source.0).collect()
    }

    /// Writes the records of addresses, the nets, the block list, the filter, and what all packets
    /// are looked at for.
    fn filter(&mut self) -> Result<(), L4Error> {
        let mut flags = 0;
        let mut records: BTreeMap<[u32; 4], (Address, Vip)> = BTreeMap::new();
        let mut nets = BTreeMap::new();
        let mut bits = BTreeSet::new();
        for service in self.services.values() {
            let address = self.address_of(&service.spec);
            let record = records.entry(address.0).or_insert_with(|| {
                let vip = Vip {
                    index: service.index,
                    ..Vip::default()
                };
                (address, vip)
            });
            if service.spec.echo {
                record.1.flags |= vip_flag::ECHO;
            }
            let net = service.spec.vip;
            if net.is_single() {
                bits.insert(address.filter_bit());
            } else {
                let key = NetKey::new(Address::from(net.address), net.prefix);
                nets.insert(net, (key, self.net_number(net)));
                flags |= flag::NETS;
            }
            if service.spec.forward == Forward::Nat {
                flags |= flag::NAT;
            }
        }
        self.sources = self.nat_sources();
        bits.extend(
            self.sources
                .iter()
                .map(|source| Address(*source).filter_bit()),
        );
        if !self.options.block.is_empty() {
            flags |= flag::BLOCK_LIST;
        }
        let maps = &mut self.programs.maps;
        let block = self.options.block.iter();
        let block = block.map(|net| NetKey::new(Address::from(net.address), net.prefix));
        maps.set_blocked(&block.collect::<Vec<_>>())?;
        maps.set_nets(&nets.into_values().collect::<Vec<_>>())?;
        for (key, _) in maps.vips()? {
            if key.protocol == ADDRESS && !records.contains_key(&key.address.0) {
                maps.remove_vip(key)?;
            }
        }
        for (address, vip) in records.into_values() {
            maps.set_vip(VipKey::address(address), vip)?;
        }
        let every = if flags & flag::NETS != 0 { u64::MAX } else { 0 };
        let mut words = [every; limits::FILTER_WORDS];
        for bit in bits {
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        for (at, word) in words.into_iter().enumerate() {
            maps.filter.change(at, word, !word);
        }
        self.set_flags(flags);
        Ok(())
    }
}
