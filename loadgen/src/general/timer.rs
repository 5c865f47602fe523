//! Waiting: to the microsecond where requests are due, cheaply where they time out.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

/// A timer of the kernel's: tokio's own tick is a millisecond, which is twenty requests at
/// 20,000 a second, and tokio-uring has no operation for it.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Must be called within the runtime.
    #[allow(
        deprecated,
        reason = "deprecated for types that may close their descriptor early, which OwnedFd \
                  cannot; the replacement is unsafe"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// Sets it off at `at`, and never before; what it was set to is forgotten.
    fn set(&self, at: Instant) -> io::Result<()> {
        let span = at
            .saturating_duration_since(Instant::now())
            // Zero would switch it off.
            .max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(span.subsec_nanos()),
            },
        };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    async fn fired(&self) -> io::Result<()> {
        // Not read: the descriptor is watched by its edges, and setting it again resets it.
        self.0.readable().await?.clear_ready();
        Ok(())
    }

    /// Waits until `at`, or for a while if the timer was set before; callers look at the clock.
    pub async fn wait(&self, at: Instant) -> io::Result<()> {
        self.set(at)?;
        self.fired().await
    }
}

/// Sleepers of a closed loop, on one [`Timer`].
pub struct Pauses {
    timer: Timer,
    sleepers: RefCell<BinaryHeap<Reverse<Sleeper>>>,
    set_to: Cell<Option<Instant>>,
    ended: Cell<bool>,
}

struct Sleeper {
    until: Instant,
    waker: Waker,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}
impl Eq for Sleeper {}
impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

impl Pauses {
    pub fn new(timer: Timer) -> Self {
        Self {
            timer,
            sleepers: RefCell::default(),
            set_to: Cell::new(None),
            ended: Cell::new(false),
        }
    }

    /// Returns at `until`, or when [`Pauses::end`] is called. For one task.
    pub async fn until(&self, until: Instant) {
        let mut sleeps = false;
        poll_fn(|context| {
            if self.ended.get() || Instant::now() >= until {
                return Poll::Ready(());
            }
            if !sleeps {
                sleeps = true;
                let waker = context.waker().clone();
                self.sleepers
                    .borrow_mut()
                    .push(Reverse(Sleeper { until, waker }));
                self.arm();
            }
            Poll::Pending
        })
        .await;
    }

    fn arm(&self) {
        let Some(first) = self.sleepers.borrow().peek().map(|first| first.0.until) else {
            return;
        };
        if self.set_to.get().is_none_or(|at| first < at) && self.timer.set(first).is_ok() {
            self.set_to.set(Some(first));
        }
    }

    /// Wakes sleepers whose time has come, for ever.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            self.timer.fired().await?;
            self.set_to.set(None);
            let now = Instant::now();
            loop {
                let mut sleepers = self.sleepers.borrow_mut();
                match sleepers.peek() {
                    Some(first) if first.0.until <= now => {
                        let Reverse(sleeper) = sleepers.pop().expect("it was seen");
                        drop(sleepers);
                        sleeper.waker.wake();
                    }
                    _ => break,
                }
            }
            self.arm();
        }
    }

    /// Wakes every sleeper, and lets nobody sleep any more.
    pub fn end(&self) {
        self.ended.set(true);
        let sleepers = std::mem::take(&mut *self.sleepers.borrow_mut());
        for Reverse(sleeper) in sleepers {
            sleeper.waker.wake();
        }
    }
}

/// A limit that is set for each request and hardly ever reached, so that it costs next to nothing
/// to set: the timer below is only moved when it fires.
///
/// For one task, and for one length of time.
pub struct Deadline {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    registered: bool,
}

impl Deadline {
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: Box::pin(tokio::time::sleep(limit)),
            registered: false,
        }
    }

    /// Returns when something that begins now times out.
    pub fn starting_now(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// Returns whether `until` has passed; wakes the task then, if not. `until` must not go back.
    pub fn poll(&mut self, until: Instant, context: &mut std::task::Context<'_>) -> bool {
        loop {
            if self.registered && !self.sleep.is_elapsed() {
                return false;
            }
            self.registered = true;
            if self.sleep.as_mut().poll(context).is_pending() {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
            self.sleep.as_mut().reset(until.into());
            self.registered = false;
        }
    }

    /// Returns what `future` gives, or none if it takes too long.
    pub async fn within<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let until = self.starting_now();
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            if self.poll(until, context) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }
}
