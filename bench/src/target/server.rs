//! The loop of a target: one thread on epoll.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::connection::{Connection, Gone};
use super::{Behaviour, Seen, Shared};

/// How soon the end of a target is noticed.
const STOP_CHECK: Duration = Duration::from_millis(20);
/// Events taken at once: with more, a stall would begin late.
const EVENTS: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// What the listener is known by.
const LISTENER: u64 = u64::MAX;
/// Requests that memory is laid out for beforehand, so that none waits for a page.
const RECORDS: usize = 1 << 20;

pub(super) struct Server {
    behaviour: Behaviour,
    shared: Arc<Shared>,
    listener: TcpListener,
    epoll: OwnedFd,
    response: Vec<u8>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Responses that are held back: when they are due, where they go, when they were read.
    held: BinaryHeap<Reverse<(Instant, usize, Vec<u64>)>>,
    /// Delays that were drawn.
    drawn: u64,
    /// When requests were read that each connection has not been answered, the oldest first.
    waiting: Vec<VecDeque<u64>>,
    seen: Vec<Seen>,
    zero: Instant,
    first: Option<Instant>,
    stalled: usize,
}

impl Server {
    pub fn new(mut behaviour: Behaviour, shared: Arc<Shared>) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(behaviour.listen.unwrap_or(any)).context("listening")?;
        listener.set_nonblocking(true).context("the listener")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN).context("epoll")?;
        behaviour.stalls.sort_by_key(|stall| stall.at);
        let body = "x".repeat(behaviour.body_bytes);
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let records = if behaviour.records { RECORDS } else { 0 };
        Ok(Self {
            behaviour,
            shared,
            listener,
            epoll,
            response: response.into_bytes(),
            connections: Vec::new(),
            free: Vec::new(),
            held: BinaryHeap::new(),
            drawn: 0,
            waiting: Vec::new(),
            seen: Vec::with_capacity(records),
            zero: Instant::now(),
            first: None,
            stalled: 0,
        })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().context("the target's address")
    }

    pub fn run(mut self) -> Result<Vec<Seen>> {
        if let Some(core) = self.behaviour.core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            rustix::thread::sched_setaffinity(None, &set).context("pinning the target")?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; READ_BYTES];
        while !self.shared.stop.load(Ordering::Relaxed) {
            events.clear();
            let until = self.held.peek().map(|Reverse((due, ..))| *due);
            let wait = until.map_or(STOP_CHECK, |due| {
                due.saturating_duration_since(Instant::now())
                    .min(STOP_CHECK)
            });
            let wait = Timespec::try_from(wait).context("a wait")?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll"),
            }
            for event in &events {
                self.event(*event, &mut buffer)?;
            }
            self.release();
        }
        Ok(self.seen)
    }

    fn event(&mut self, event: epoll::Event, buffer: &mut [u8]) -> Result<()> {
        if event.data.u64() == LISTENER {
            return self.accept();
        }
        let index = usize::try_from(event.data.u64()).context("a connection's number")?;
        let flags = event.flags;
        let mut done = Ok(());
        if flags.contains(epoll::EventFlags::OUT) {
            done = self.write(index);
        }
        if done.is_ok() && flags.intersects(!epoll::EventFlags::OUT) {
            done = self.read(index, buffer);
        }
        if done.is_err() {
            self.close(index);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        // Level-triggered: who is not taken now is told of again.
        let Ok((stream, _)) = self.listener.accept() else {
            return Ok(());
        };
        stream.set_nonblocking(true).context("a connection")?;
        stream.set_nodelay(true).context("a connection")?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.waiting.push(VecDeque::new());
            self.connections.len() - 1
        });
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).context("epoll")?;
        self.connections[index] = Some(Connection::new(stream));
        Ok(())
    }

    fn close(&mut self, index: usize) {
        if self.connections[index].take().is_some() {
            self.waiting[index].clear();
            self.held.retain(|Reverse((_, held, _))| *held != index);
            self.free.push(index);
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) -> Result<(), Gone> {
        let connection = self.connections[index].as_mut().ok_or(Gone)?;
        let count = connection.read(buffer)?;
        if count == 0 {
            return Ok(());
        }
        let read = self.now();
        self.stall();
        if self.behaviour.delay.is_zero() {
            return self.answer(index, std::iter::repeat_n(read, count));
        }
        let due = Instant::now() + self.delay();
        self.held.push(Reverse((due, index, vec![read; count])));
        Ok(())
    }

    fn delay(&mut self) -> Duration {
        self.drawn += 1;
        // Weyl's sequence is even over any stretch of it, and needs no state.
        let draw = self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        let uniform = draw as f64 / (1_u64 << 53) as f64;
        let share = 1.0 + self.behaviour.jitter * (2.0 * uniform - 1.0);
        self.behaviour.delay.mul_f64(share)
    }

    /// Does nothing for as long as the plan has it.
    fn stall(&mut self) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        while let Some(stall) = self.behaviour.stalls.get(self.stalled) {
            if now < first + stall.at {
                return;
            }
            std::thread::sleep(stall.lasts);
            self.stalled += 1;
        }
    }

    /// Answers what was held back long enough.
    fn release(&mut self) {
        while let Some(Reverse((due, ..))) = self.held.peek() {
            if Instant::now() < *due {
                return;
            }
            if let Some(Reverse((_, index, read))) = self.held.pop()
                && self.answer(index, read.into_iter()).is_err()
            {
                self.close(index);
            }
        }
    }

    fn answer(&mut self, index: usize, read: impl Iterator<Item = u64>) -> Result<(), Gone> {
        let connection = self.connections[index].as_mut().ok_or(Gone)?;
        let before = self.waiting[index].len();
        self.waiting[index].extend(read);
        connection.owe(self.waiting[index].len() - before);
        self.write(index)
    }

    fn write(&mut self, index: usize) -> Result<(), Gone> {
        let connection = self.connections[index].as_mut().ok_or(Gone)?;
        let (out, more) = connection.write(&self.response)?;
        let answered = self.now();
        for read_ns in self.waiting[index].drain(..out) {
            if self.behaviour.records {
                self.seen.push(Seen {
                    read_ns,
                    answered_ns: answered,
                });
            }
        }
        let sum = self.shared.answered.load(Ordering::Relaxed) + out as u64;
        self.shared.answered.store(sum, Ordering::Relaxed);
        // Asked for only while it is needed: telling the kernel each time would cost a call.
        if self.connections[index]
            .as_mut()
            .is_some_and(|it| it.awaits(more))
        {
            let connection = self.connections[index].as_ref().ok_or(Gone)?;
            let flags = if more {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, connection.stream(), data, flags).map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
