//! The object: loaded with the maps that are there, attached, replaced in place.

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use ballast_ebpf_common::layout::{Backend, Config, LAYOUT, maps, state};

use crate::maps::{Maps, Sizes};
use crate::netlink::{self, Link};
use crate::shared::Shared;
use crate::{Error, offload};

/// The object that the repository keeps: see `fingerprint.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/ballast.bpf.o");
/// Names another object to be used in its place: for tests of one that other tools have built.
const OTHER_OBJECT: &str = "BALLAST_BPF_OBJECT";
/// What pinned links are called: then the interface.
const LINK: &str = "link-";
/// The oldest kernel with XDP links, which are what lets a program be replaced.
const KERNEL: (u32, u32) = (5, 9);
/// `CAP_NET_ADMIN`.
const CAP_NET_ADMIN: u64 = 1 << 12;
/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// `CAP_BPF`.
const CAP_BPF: u64 = 1 << 39;
/// An IPv6 packet of the least size that every way must take.
const MTU_MIN: u32 = 1_280;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The balancer.
    Balance,
    /// The decapsulator of a real's node.
    Decap,
    /// Lets everything pass: the other end of a veth needs one.
    Pass,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Balance => maps::PROGRAM_BALANCE,
            Self::Decap => maps::PROGRAM_DECAP,
            Self::Pass => maps::PROGRAM_PASS,
        }
    }
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// In the driver if it can, else in the stack, which is said.
    #[default]
    Any,
    /// In the driver, or not at all.
    Native,
    /// In the stack: several times slower, on every interface.
    Generic,
}

/// A program that is attached.
#[derive(Debug)]
pub struct Attached {
    /// The interface.
    pub link: Link,
    /// Whether it runs in the stack and not in the driver.
    pub generic: bool,
    /// Whether a program was attached already and has been replaced in place.
    pub replaced: bool,
    pinned: PinnedLink,
}

/// The loaded object.
#[derive(Debug)]
pub struct Programs {
    /// Its maps.
    pub maps: Maps,
    /// Whether these were there before: with flows, services and backends.
    pub taken_over: bool,
    object: Ebpf,
    folder: PathBuf,
}

/// Returns the object, for those who run programs without attaching them.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Looks whether this process and kernel can do it at all.
///
/// # Errors
/// [`Error::NotPermitted`], [`Error::Kernel`].
pub fn requirements() -> Result<(), Error> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let effective = effective.unwrap_or(0);
    if effective & (CAP_BPF | CAP_SYS_ADMIN) == 0 {
        return Err(Error::NotPermitted("CAP_BPF"));
    }
    if effective & CAP_NET_ADMIN == 0 {
        return Err(Error::NotPermitted("CAP_NET_ADMIN"));
    }
    let name = rustix::system::uname();
    let found = name.release().to_string_lossy().into_owned();
    let mut numbers = found.split(['.', '-']).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL {
        return Err(Error::Kernel { found });
    }
    Ok(())
}

impl Programs {
    /// Loads the object with what is pinned in `folder`, and pins there what is not. Maps of
    /// another layout are removed first, which loses every flow and is said.
    ///
    /// # Errors
    /// [`Error`]: the kernel refuses something.
    pub fn load(folder: &Path, sizes: Sizes) -> Result<Self, Error> {
        let taken_over = match pinned_layout(folder) {
            Some(LAYOUT) => true,
            Some(0) | None => false,
            Some(other) => {
                tracing::warn!(
                    found = other,
                    wanted = LAYOUT,
                    "pinned maps have another layout: they are replaced, and their flows are lost"
                );
                false
            }
        };
        if !taken_over {
            remove(folder, |name| maps::ALL.contains(&name))?;
        }
        let mut loader = EbpfLoader::new();
        for name in maps::ALL {
            loader.map_pin_path(name, folder.join(name));
        }
        for (name, entries) in sizes.entries() {
            loader.map_max_entries(name, entries);
        }
        let other = std::env::var_os(OTHER_OBJECT);
        let loaded = match other {
            Some(path) => loader.load_file(path),
            None => loader.load(OBJECT),
        };
        let mut object = loaded.map_err(|source| Error::Load(Box::new(source)))?;
        Ok(Self {
            maps: Maps::of(&mut object)?,
            taken_over,
            object,
            folder: folder.to_owned(),
        })
    }

    /// Attaches a program to an interface. One of an earlier life is replaced in place: every
    /// packet meets the old or the new one.
    ///
    /// # Errors
    /// [`Error::Requirement`] if the interface cannot work, and what it lacks; others if the kernel
    /// refuses.
    pub fn attach(
        &mut self,
        program: Program,
        interface: &str,
        mode: Mode,
    ) -> Result<Attached, Error> {
        let link = netlink::link(interface)?;
        check(&link, program)?;
        let pin = self.folder.join(format!("{LINK}{interface}"));
        let xdp = program_of(&mut self.object, program)?;
        let refused = |source: Box<dyn std::error::Error + Send + Sync>| Error::Attach {
            interface: interface.to_owned(),
            source,
        };
        if let Some(replaced) = replace(xdp, &pin) {
            match replaced {
                Ok(pinned) => {
                    return Ok(Attached {
                        generic: link.generic_xdp,
                        link,
                        replaced: true,
                        pinned,
                    });
                }
                // Its interface is gone, and the one of that name is another.
                Err(error) => {
                    tracing::debug!(%error, interface, "pinned link is of no use");
                    std::fs::remove_file(&pin).map_err(|error| refused(error.into()))?;
                }
            }
        }
        if link.has_xdp {
            return Err(requirement(
                interface,
                "another XDP program is attached to it (`ip link set dev … xdp off` removes it)",
            ));
        }
        let (id, generic) = match mode {
            Mode::Native => (xdp.attach(interface, XdpMode::Driver), false),
            Mode::Generic => (xdp.attach(interface, XdpMode::Skb), true),
            Mode::Any => match xdp.attach(interface, XdpMode::Driver) {
                Ok(id) => (Ok(id), false),
                Err(error) => {
                    let why = chain(&error);
                    let attached = xdp.attach(interface, XdpMode::Skb);
                    if attached.is_ok() {
                        tracing::warn!(
                            interface,
                            why,
                            "its driver does not run XDP programs: the balancer runs in the \
                             network stack, several times slower"
                        );
                    }
                    (attached, true)
                }
            },
        };
        let id = id.map_err(|error| refused(Box::new(error)))?;
        let owned = xdp
            .take_link(id)
            .map_err(|error| refused(Box::new(error)))?;
        let owned = FdLink::try_from(owned).map_err(|error| refused(Box::new(error)))?;
        let pinned = owned.pin(&pin).map_err(|error| refused(Box::new(error)))?;
        Ok(Attached {
            link,
            generic,
            replaced: false,
            pinned,
        })
    }

    /// Returns the interfaces that something is attached to by a link that is pinned here.
    ///
    /// # Errors
    /// [`Error::BpfFs`].
    pub fn attached(&self) -> Result<Vec<String>, Error> {
        let names = entries(&self.folder)?;
        let links = names.iter().filter_map(|name| name.strip_prefix(LINK));
        Ok(links.map(str::to_owned).collect())
    }

    /// Takes the program of an earlier life off an interface.
    ///
    /// # Errors
    /// [`Error::BpfFs`].
    pub fn detach(&self, interface: &str) -> Result<(), Error> {
        let link = format!("{LINK}{interface}");
        remove(&self.folder, |name| name == link)
    }

    /// Takes everything away that is pinned in a folder: programs end, maps and flows are gone.
    ///
    /// # Errors
    /// [`Error::BpfFs`].
    pub fn remove_all(folder: &Path) -> Result<(), Error> {
        // Links first: a program without its maps pinned still has them.
        remove(folder, |name| name.starts_with(LINK))?;
        remove(folder, |name| maps::ALL.contains(&name))
    }
}

impl Attached {
    /// Takes the program off its interface.
    ///
    /// # Errors
    /// The pinned link cannot be removed.
    pub fn detach(self) -> io::Result<()> {
        // Dropped, the link detaches.
        self.pinned.unpin().map(drop)
    }
}

fn program_of(object: &mut Ebpf, program: Program) -> Result<&mut Xdp, Error> {
    let name = program.name();
    let failed = |source| Error::Program {
        name,
        source: Box::new(source),
    };
    let found = object.program_mut(name).ok_or(Error::NoProgram(name))?;
    let xdp: &mut Xdp = found.try_into().map_err(failed)?;
    match xdp.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(xdp),
        Err(error) => Err(failed(error)),
    }
}

/// Puts a program in the place of the one of a pinned link, if there is one.
fn replace(xdp: &mut Xdp, pin: &Path) -> Option<Result<PinnedLink, ProgramError>> {
    let pinned = PinnedLink::from_pin(pin).ok()?;
    let mut put = || -> Result<(), ProgramError> {
        let link = PinnedLink::from_pin(pin).map_err(link_error)?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(link_error)?;
        let id = xdp.attach_to_link(link)?;
        // The link stays pinned: this descriptor of it need not.
        drop(xdp.take_link(id)?);
        Ok(())
    };
    Some(put().map(|()| pinned))
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        _ => ProgramError::NotAttached,
    }
}

/// Looks whether an interface can work.
fn check(link: &Link, program: Program) -> Result<(), Error> {
    let name = link.name.as_str();
    if link.mtu < MTU_MIN {
        let mtu = link.mtu;
        return Err(requirement(
            name,
            &format!("its MTU is {mtu}; {MTU_MIN} is the least (ip link set dev {name} mtu 1500)"),
        ));
    }
    if link.mac.is_none() {
        return Err(requirement(
            name,
            "it has no MAC address: Ethernet is needed",
        ));
    }
    if link.kind != "veth" || program == Program::Pass {
        return Ok(());
    }
    check_veth(link, program)
}

/// A veth hands what is sent back to its other end, which must take it.
fn check_veth(link: &Link, program: Program) -> Result<(), Error> {
    let name = link.name.as_str();
    let Some(peer) = link.peer.and_then(|peer| netlink::link_at(peer).ok()) else {
        if program == Program::Balance {
            tracing::warn!(
                interface = name,
                "its other end is in another network namespace and cannot be looked at: it needs \
                 an XDP program of its own (one that passes everything), and must not leave \
                 checksums to hardware (ethtool -K … tx off)"
            );
        }
        return Ok(());
    };
    let other = peer.name.as_str();
    if program == Program::Balance && !peer.has_xdp {
        return Err(requirement(
            name,
            &format!(
                "it is a veth, and its other end `{other}` has no XDP program: what is sent back \
                 would vanish (attach one that passes everything)"
            ),
        ));
    }
    if offload::sends_unsummed(other).unwrap_or(false) {
        return Err(requirement(
            name,
            &format!(
                "it is a veth, and its other end `{other}` leaves checksums to hardware that is \
                 not there (ethtool -K {other} tx off)"
            ),
        ));
    }
    if !peer.has_xdp && !offload::merges(other).unwrap_or(true) {
        return Err(requirement(
            name,
            &format!(
                "it is a veth, and its other end `{other}` has neither an XDP program nor GRO \
                 (ethtool -K {other} gro on)"
            ),
        ));
    }
    Ok(())
}

fn requirement(interface: &str, requirement: &str) -> Error {
    Error::Requirement {
        interface: interface.to_owned(),
        requirement: requirement.to_owned(),
    }
}

/// Returns the layout of the maps that are pinned in a folder; none if there are none, or not all.
fn pinned_layout(folder: &Path) -> Option<u32> {
    let whole = maps::ALL.iter().all(|name| folder.join(name).exists());
    if !whole {
        return None;
    }
    let data = MapData::from_pin(folder.join(maps::CONFIG)).ok()?;
    let Ok(Map::Array(data)) = Map::from_map_data(data) else {
        return Some(u32::MAX);
    };
    let config: Shared<Config> = Shared::of(data.fd(), 1).ok()?;
    Some(config.load(0).layout)
}

/// Returns the records of a pinned map of backends that are somebody's: for those who look on.
///
/// # Errors
/// There is none.
pub fn pinned_backends(path: &Path) -> Result<Vec<Backend>, Error> {
    let failed = |source: aya::maps::MapError| Error::Map {
        name: maps::BACKENDS,
        source: source.into(),
    };
    let data = MapData::from_pin(path).map_err(failed)?;
    let length = data.info().map_err(failed)?.max_entries() as usize;
    let shared: Shared<Backend> = Shared::of(data.fd(), length).map_err(|source| Error::Map {
        name: maps::BACKENDS,
        source: source.into(),
    })?;
    let all = (0..length).map(|at| shared.load(at));
    Ok(all.filter(|backend| backend.state != state::FREE).collect())
}

fn entries(folder: &Path) -> Result<Vec<String>, Error> {
    let refused = |source| Error::BpfFs {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

fn remove(folder: &Path, which: impl Fn(&str) -> bool) -> Result<(), Error> {
    for name in entries(folder)? {
        if which(&name) {
            std::fs::remove_file(folder.join(&name)).map_err(|source| Error::BpfFs {
                path: folder.join(&name),
                source,
            })?;
        }
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
