//! Waiting for events to the microsecond.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use crate::error::RingError;

/// The event of the timer; no socket has this name, for there are at most 2^24.
pub(crate) const TIMER: u64 = u64::MAX - 1;
/// Longer waits are not worth an overflow.
const LONGEST: Duration = Duration::from_hours(24);

/// How to wait for a time that milliseconds do not tell: an open loop would be late by half of one.
pub(crate) enum Wait {
    /// `epoll_pwait2`, from Linux 5.11 on.
    Precise,
    /// A timer among what is watched, where that is not known: older kernels, some sandboxes, and
    /// valgrind, under which instructions are counted. It costs a call for each wait.
    Timer {
        timer: OwnedFd,
        /// What the kernel writes down, used again.
        raw: Vec<libc::epoll_event>,
    },
}

impl Wait {
    /// Returns what the kernel knows.
    pub fn new(epoll: &OwnedFd) -> Result<Wait, RingError> {
        let now = Timespec::default();
        match epoll::wait(
            epoll,
            spare_capacity(&mut Vec::with_capacity(1)),
            Some(&now),
        ) {
            Err(Errno::NOSYS | Errno::PERM) => Wait::timer(epoll),
            _ => Ok(Wait::Precise),
        }
    }

    fn timer(epoll: &OwnedFd) -> Result<Wait, RingError> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|errno| RingError::at("timerfd_create", errno.into()))?;
        // By the edge: to set it anew empties it, so that it is never read.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(epoll, &timer, EventData::new_u64(TIMER), flags)
            .map_err(|errno| RingError::at("epoll_ctl", errno.into()))?;
        Ok(Wait::Timer {
            timer,
            raw: Vec::new(),
        })
    }

    /// Waits for events, of which `events` takes as many as it has room for.
    pub fn wait(
        &mut self,
        epoll: &OwnedFd,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        events.clear();
        let timespec = timeout.map(|timeout| {
            Timespec::try_from(timeout.min(LONGEST)).expect("a day is representable")
        });
        let result = match self {
            Wait::Precise => {
                epoll::wait(epoll, spare_capacity(events), timespec.as_ref()).map(|_| ())
            }
            Wait::Timer { timer, raw } => {
                let hurry = timeout.is_some_and(|timeout| timeout.is_zero());
                // Zero is never.
                let value = timespec.unwrap_or_default();
                let interval = Timespec::default();
                let at = Itimerspec {
                    it_interval: interval,
                    it_value: value,
                };
                rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &at)?;
                raw.resize(events.capacity().max(1), NOTHING);
                coarse(epoll, raw, events, if hurry { 0 } else { -1 })
            }
        };
        match result {
            Ok(()) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

const NOTHING: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

/// Waits by `epoll_wait`.
fn coarse(
    epoll: &OwnedFd,
    raw: &mut [libc::epoll_event],
    events: &mut Vec<Event>,
    milliseconds: i32,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;

    let most = i32::try_from(raw.len()).unwrap_or(i32::MAX);
    // SAFETY: there is room for `most` events, and it lives through the call.
    let count =
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), raw.as_mut_ptr(), most, milliseconds) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    };
    events.extend(raw[..count].iter().map(|event| Event {
        flags: EventFlags::from_bits_retain(event.events),
        data: EventData::new_u64(event.u64),
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::epoll::CreateFlags;

    use super::*;

    #[test]
    fn both_ways_wait_for_so_long_and_for_events() {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("descriptors");
        let ways = [
            Wait::new(&epoll).expect("one is known"),
            Wait::timer(&epoll).expect("timers are known"),
        ];
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        let eventfd = eventfd.expect("descriptors");
        epoll::add(&epoll, &eventfd, EventData::new_u64(7), EventFlags::IN).expect("is watched");
        for mut way in ways {
            let mut events = Vec::with_capacity(4);
            let mut wait = |events: &mut Vec<Event>, micros: Option<u64>| {
                let before = Instant::now();
                way.wait(&epoll, events, micros.map(Duration::from_micros))
                    .expect("waits");
                before.elapsed()
            };
            wait(&mut events, Some(0));
            assert!(events.is_empty());
            for micros in [100, 2_300, 300] {
                assert!(wait(&mut events, Some(micros)) >= Duration::from_micros(micros));
                assert!(events.iter().all(|event| event.data.u64() == TIMER));
            }
            rustix::io::write(&eventfd, &1_u64.to_ne_bytes()).expect("is counted");
            for micros in [None, Some(0), Some(10_000_000)] {
                assert!(wait(&mut events, micros) < Duration::from_secs(5));
                assert!(events.iter().any(|event| event.data.u64() == 7));
            }
            rustix::io::read(&eventfd, &mut [0; 8]).expect("is there");
        }
    }
}
