//! The general engine: every protocol, on tokio-uring or, where io_uring is not allowed, on tokio's
//! epoll.
//!
//! One thread, one lane. A dispatcher releases requests when they are due; each connection (each
//! stream, of HTTP/2) is a task that takes them up. Both drivers run the same protocols:
//! [`stream`] makes one type of their sockets.
//!
//! - [`work`]: what is due and what was done
//! - [`stream`], [`uring`], [`tls`]: connections
//! - [`serial`] with [`websocket`] and [`echo`]; [`http1`], with the hot engine's
//!   renderer and reader; [`http2`] with [`grpc`] and [`request`]; [`udp`]
//! - [`timer`]: due times, think time, time limits
//! - [`failure`]: classes of errors
//!
//! Deliberately absent: retries, other than of what a closed HTTP/2 connection never saw; resumed
//! TLS sessions; HTTP/2 push; streaming gRPC; compressed messages.

mod echo;
mod failure;
mod grpc;
mod http1;
mod http2;
mod request;
mod serial;
mod stream;
mod timer;
mod tls;
mod udp;
mod uring;
mod websocket;
mod work;

pub use udp::DATAGRAMS_IN_FLIGHT;

use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::LoadError;
use crate::control::Control;
use crate::plan::{Lane, Protocol};
use crate::recorder::Recorder;

use self::http2::Connection;
use self::stream::Dialer;
use self::tls::{TlsError, TlsSetup};
use self::uring::Buffers;
use self::work::{Slot, Work};

/// Entries of the submission queue, at least and at most. Each socket has a read and a write in
/// flight; what does not fit is submitted in several goes.
const ENTRIES: (u32, u32) = (64, 4096);
/// Completions that are kept for each entry of the submission queue, so that none overflows.
const COMPLETIONS: u32 = 4;

/// What the general engine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, through tokio-uring.
    TokioUring,
    /// epoll, through tokio.
    Epoll,
}

/// Returns why [`Driver::TokioUring`] cannot run here, if it cannot.
///
/// # Errors
/// What the kernel says: `EPERM` where io_uring is forbidden, `ENOSYS` where there is none,
/// `EINVAL` before Linux 6.0, `ENOMEM` under too low a limit of locked memory.
pub fn probe() -> io::Result<()> {
    runtime(1).map(drop)
}

/// Runs one lane on this thread until it is done; returns `recorder` with what was measured.
///
/// `zero` is the start of the schedule: connections are opened before it if there is time.
///
/// # Errors
/// [`LoadError::Start`] if the driver, a timer or TLS cannot be set up.
pub fn run(
    lane: &Lane,
    zero: Instant,
    recorder: Recorder,
    driver: Driver,
    control: &Control,
) -> Result<Recorder, LoadError> {
    let sockets = lane.connections();
    match driver {
        Driver::TokioUring => {
            let runtime = runtime(sockets).map_err(LoadError::Start)?;
            runtime.block_on(async {
                let buffers = Buffers::register(sockets);
                drive(lane, zero, recorder, Some(buffers), control).await
            })
        }
        Driver::Epoll => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(LoadError::Start)?;
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, drive(lane, zero, recorder, None, control))
        }
    }
}

/// Completions are only looked for where this thread enters the kernel anyway, and no other thread
/// submits. (With `DEFER_TASKRUN`, the next step, tokio-uring 0.5 hangs.)
fn runtime(sockets: usize) -> io::Result<tokio_uring::Runtime> {
    let entries = u32::try_from(sockets.saturating_mul(2))
        .unwrap_or(u32::MAX)
        .clamp(ENTRIES.0, ENTRIES.1)
        .next_power_of_two();
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun()
        .setup_single_issuer()
        .setup_cqsize(entries * COMPLETIONS);
    let mut builder = tokio_uring::builder();
    builder.entries(entries).uring_builder(&ring);
    tokio_uring::Runtime::new(&builder)
}

async fn drive(
    lane: &Lane,
    zero: Instant,
    recorder: Recorder,
    buffers: Option<Buffers>,
    control: &Control,
) -> Result<Recorder, LoadError> {
    let protocol = lane.plan.protocol;
    let tls = lane.plan.targets.iter().map(|target| {
        let tls = target.tls.as_ref();
        tls.map(|tls| TlsSetup::new(tls, protocol)).transpose()
    });
    let tls = tls
        .collect::<Result<_, TlsError>>()
        .map_err(|error| LoadError::Start(io::Error::other(error)))?;
    let buffers = buffers.filter(|_| protocol != Protocol::TcpConnect);
    let dialer = Rc::new(Dialer::new(buffers, tls, lane.plan.churn.reset));
    let work = Rc::new(Work::new(lane.clone(), zero, recorder).map_err(LoadError::Start)?);
    let slots: Vec<_> = work.slots().into_iter().map(Rc::new).collect();
    let tasks: Vec<_> = slots
        .iter()
        .flat_map(|slot| start(&work, &dialer, slot.clone()))
        .collect();
    let ended = async {
        for task in tasks {
            task.await.map_err(|_| LoadError::Panicked)?;
        }
        Ok(())
    };
    let result = tokio::select! {
        biased;
        result = ended => result,
        Err(error) = work.dispatch() => Err(error),
        () = work.churn(&slots) => Ok(()),
        () = work.watch(control) => Ok(()),
    };
    work.tell(control);
    result.map(|()| work.take_recorder())
}

/// Starts the tasks of one connection.
fn start(work: &Rc<Work>, dialer: &Rc<Dialer>, slot: Rc<Slot>) -> Vec<JoinHandle<()>> {
    let (work, dialer) = (work.clone(), dialer.clone());
    match work.plan().protocol {
        Protocol::Http1 { .. } => vec![spawn_local(http1::serve(work, dialer, slot))],
        Protocol::Http2 { streams } | Protocol::Grpc { streams } => {
            let connection = Rc::new(Connection::new(work, dialer, slot));
            (0..streams.max(1))
                .map(|number| {
                    let connection = connection.clone();
                    spawn_local(async move {
                        if number == 0 {
                            connection.prepare().await;
                        }
                        http2::serve(connection).await;
                    })
                })
                .collect()
        }
        Protocol::WebSocket => vec![spawn_local(serial::serve::<websocket::Socket>(
            work, dialer, slot,
        ))],
        Protocol::TcpEcho => vec![spawn_local(serial::serve::<echo::Echo>(work, dialer, slot))],
        Protocol::TcpConnect => vec![spawn_local(serial::connect(work, dialer, slot))],
        Protocol::UdpEcho => vec![spawn_local(udp::serve(work, dialer, slot))],
    }
}
