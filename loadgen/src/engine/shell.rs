//! The engine's core on a ring: sockets, clock, pacing.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ballast_ring::{
    Backend, Batch, ConnectOptions, Handler, Io, IoError, Options, Ring, RingError, Token,
};

use super::core::{Core, nanos};
use super::wire::Wire;
use crate::control::Control;
use crate::plan::{Lane, Pacing, Protocol};
use crate::record::ErrorClass;
use crate::recorder::Recorder;
use crate::run::LoadError;

/// Between two looks at whether the run is to be stopped, and two ticks of the recorder.
const TICK: Duration = Duration::from_millis(50);
/// Buffers into which answers are received, of all connections together: two for each, within these
/// bounds.
const BUFFERS: (usize, usize) = (64, 1024);
/// Bytes of one: several small answers, or a part of a large one.
const BUFFER_BYTES: u32 = 8 * 1024;
/// Slots of the ring beside two for each connection: one that closes keeps its slot until the
/// kernel has done with it.
const SPARE_SLOTS: u32 = 256;
/// The part of the requests in flight for whose answers a closed loop waits before it looks at
/// them: one wake-up is then shared by as many.
const BATCH_SHARE: u32 = 8;
/// The most it waits for.
const MOST_BATCH: u32 = 16;
/// How long it waits for them.
const BATCH_WAIT: Duration = Duration::from_micros(100);

/// The numbers of sockets and connections.
#[derive(Debug)]
struct Names {
    token_of: Vec<Option<Token>>,
    connection_of: Vec<u32>,
}

/// A ring's sockets, by the numbers of their connections.
struct Sockets<'a> {
    io: &'a mut Io,
    names: &'a mut Names,
}

impl Wire for Sockets<'_> {
    fn connect(&mut self, connection: u32, address: SocketAddr) -> Result<(), ErrorClass> {
        let token = self
            .io
            .connect(address, &ConnectOptions::default())
            .map_err(|error| class(&error))?;
        let names = &mut *self.names;
        if names.connection_of.len() <= token.index() {
            names.connection_of.resize(token.index() + 1, u32::MAX);
        }
        names.connection_of[token.index()] = connection;
        names.token_of[connection as usize] = Some(token);
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &[u8]) {
        if let Some(token) = self.names.token_of[connection as usize] {
            // If it cannot go out, the end of the connection is about to be told.
            self.io.send(token, bytes);
        }
    }

    fn unsent(&self, connection: u32) -> usize {
        self.names.token_of[connection as usize].map_or(0, |token| self.io.unsent(token))
    }

    fn close(&mut self, connection: u32) {
        if let Some(token) = self.names.token_of[connection as usize].take() {
            self.io.close(token);
        }
    }

    fn reset(&mut self, connection: u32) {
        if let Some(token) = self.names.token_of[connection as usize].take() {
            self.io.reset(token);
        }
    }
}

fn class(error: &IoError) -> ErrorClass {
    match error {
        IoError::Full { .. } | IoError::Descriptors(_) => ErrorClass::Descriptors,
        IoError::Ports(_) => ErrorClass::Ports,
        IoError::Os(error) => ErrorClass::of(error),
    }
}

/// What the ring tells.
struct Shell {
    core: Core,
    names: Names,
    birth: Instant,
    /// Whether sends go out while a batch of events is handled, and not all at its end: then the
    /// time of the batch is too early for its later ones.
    sends_at_once: bool,
}

impl Shell {
    fn ns(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.birth))
    }

    fn now(&self, io: &Io) -> u64 {
        self.ns(if self.sends_at_once {
            Instant::now()
        } else {
            io.now()
        })
    }

    fn connection(&self, token: Token) -> u32 {
        self.names.connection_of[token.index()]
    }

    fn split<'a>(&'a mut self, io: &'a mut Io) -> (&'a mut Core, Sockets<'a>) {
        let names = &mut self.names;
        (&mut self.core, Sockets { io, names })
    }
}

impl Handler for Shell {
    fn connected(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        let (now_ns, connection) = (self.now(io), self.connection(token));
        if result.is_ok() {
            io.receive(token);
        }
        let (core, mut wire) = self.split(io);
        match result {
            Ok(()) => core.connected(&mut wire, connection, now_ns),
            Err(error) => {
                let class = ErrorClass::of(&error);
                core.recorder()
                    .reason(class, format_args!("connecting: {error}"));
                core.connect_failed(&mut wire, connection, class, now_ns);
            }
        }
    }

    fn received(&mut self, io: &mut Io, token: Token, data: &mut [u8]) {
        let (now_ns, connection) = (self.now(io), self.connection(token));
        let (core, mut wire) = self.split(io);
        core.received(&mut wire, connection, data, now_ns);
    }

    fn ended(&mut self, io: &mut Io, token: Token, result: io::Result<()>) {
        let (now_ns, connection) = (self.now(io), self.connection(token));
        let (core, mut wire) = self.split(io);
        let result = result.map_err(|error| {
            let class = ErrorClass::of(&error);
            core.recorder().reason(class, error);
            class
        });
        core.ended(&mut wire, connection, result, now_ns);
    }
}

/// Returns how the ring is to be set up for a lane.
fn options(lane: &Lane, backend: Backend) -> Options {
    let connections = u32::try_from(lane.connections()).unwrap_or(u32::MAX);
    let depth = match lane.plan.protocol {
        Protocol::Http1 { pipeline } => pipeline,
        _ => 1,
    };
    let completions = (connections.saturating_mul(depth) / BATCH_SHARE).min(MOST_BATCH);
    // In an open loop each answer is looked at when it comes: its time is what is measured.
    let is_closed = matches!(lane.plan.pacing, Pacing::Closed { .. });
    Options {
        backend,
        buffers: buffers(lane.connections()),
        buffer_bytes: BUFFER_BYTES,
        sockets: connections.saturating_mul(2).saturating_add(SPARE_SLOTS),
        batch: (is_closed && completions > 1).then_some(Batch {
            completions,
            wait: BATCH_WAIT,
        }),
        ..Options::default()
    }
}

fn buffers(connections: usize) -> u16 {
    let count = connections.saturating_mul(2).clamp(BUFFERS.0, BUFFERS.1);
    u16::try_from(count.next_power_of_two()).expect("the bounds are powers of two that fit")
}

/// Returns why there is no engine on io_uring here, if there is none.
///
/// # Errors
/// What is missing: the permission, the kernel's version, locked memory.
pub fn probe() -> Result<(), RingError> {
    let options = Options {
        backend: Backend::IoUring,
        buffers: buffers(BUFFERS.1),
        buffer_bytes: BUFFER_BYTES,
        ..Options::default()
    };
    Ring::new(&options).map(drop)
}

/// Runs one lane of a plan over plain HTTP/1.1 on the calling thread until it is done. Its
/// connections are opened from now on, its requests are due from `zero` on.
///
/// # Errors
/// [`LoadError::Ring`] if there is no such ring here, [`LoadError::Start`] if the kernel refuses
/// to wait.
pub fn run(
    lane: &Lane,
    zero: Instant,
    recorder: Recorder,
    control: &Control,
    backend: Backend,
) -> Result<Recorder, LoadError> {
    let mut ring = Ring::new(&options(lane, backend)).map_err(LoadError::Ring)?;
    let birth = Instant::now().min(zero);
    let mut shell = Shell {
        core: Core::new(lane, nanos(zero.saturating_duration_since(birth)), recorder),
        names: Names {
            token_of: vec![None; lane.connections()],
            connection_of: Vec::new(),
        },
        birth,
        sends_at_once: ring.backend() == Backend::Epoll,
    };
    let zero_ns = shell.ns(zero);
    let now_ns = shell.ns(Instant::now());
    let (core, mut wire) = shell.split(ring.io());
    core.open_all(&mut wire, now_ns);
    let mut tick_ns = now_ns;
    loop {
        let now_ns = shell.ns(Instant::now());
        let (core, mut wire) = shell.split(ring.io());
        core.poll(&mut wire, now_ns);
        if now_ns >= tick_ns {
            tick_ns = now_ns + nanos(TICK);
            tick(core, control, now_ns.saturating_sub(zero_ns));
        }
        if core.is_done(now_ns) || control.aborted() {
            tick(core, control, now_ns.saturating_sub(zero_ns));
            let mut recorder = shell.core.into_recorder();
            recorder.finish(now_ns.saturating_sub(zero_ns));
            return Ok(recorder);
        }
        let until_ns = core.next_ns().min(tick_ns);
        let until = birth + Duration::from_nanos(until_ns);
        ring.turn(&mut shell, Some(until))
            .map_err(LoadError::Start)?;
    }
}

fn tick(core: &mut Core, control: &Control, since_zero_ns: u64) {
    if control.stopped() {
        core.stop();
    }
    let (done, failed) = core.progress();
    control.add(done, failed);
    core.recorder().tick(since_zero_ns);
}
