//! The queues that are shared with the kernel, and the names of operations in them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;

use super::arena::Arena;
use super::arenas::{self, Arenas};
use crate::error::RingError;
use crate::options::{Batch, Options};
use crate::sockets::Flight;
use crate::token::{INDEX_BITS, Token};

/// Completions that fit, for each operation that is submitted at a time: one operation of many
/// shots completes often. What does not fit waits in the kernel.
const COMPLETIONS: u32 = 8;
/// How long a ring that is dropped waits for the kernel.
const LONGEST_GOODBYE: Duration = Duration::from_secs(1);

/// Longer waits are not worth an overflow.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// Bytes up to which a send is expected to complete while it is submitted.
const SMALL_SEND: u32 = 16 << 10;
/// How long a completion waits at most for small sends that have not completed at once.
const SENDING: Duration = Duration::from_micros(50);

/// Who an operation is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Socket(Flight, Token),
    Waker,
    /// The cancellation of something.
    Cancel,
}

const WAKER: u64 = 0xFE << INDEX_BITS;
const CANCEL: u64 = 0xFF << INDEX_BITS;

impl Name {
    /// A word: generation, operation, index.
    fn bits(self) -> u64 {
        match self {
            Name::Socket(operation, token) => {
                token.bits() | u64::from(operation.bits()) << INDEX_BITS
            }
            Name::Waker => WAKER,
            Name::Cancel => CANCEL,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a word is taken apart")]
    fn from_bits(bits: u64) -> Name {
        match bits {
            WAKER => Name::Waker,
            CANCEL => Name::Cancel,
            _ => {
                let operation = Flight::from_bits((bits >> INDEX_BITS) as u8);
                Name::Socket(operation, Token::from_bits(bits & !(0xFF << INDEX_BITS)))
            }
        }
    }
}

/// A completion, taken out of the queue.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Done {
    pub name: Name,
    pub result: Result<u32, Errno>,
    /// Further completions of the same operation follow.
    pub more: bool,
    /// The buffer that holds what was received.
    pub buffer: Option<u16>,
}

impl Done {
    fn new(entry: &cqueue::Entry) -> Done {
        let result = u32::try_from(entry.result());
        let name = Name::from_bits(entry.user_data());
        let group = match name {
            Name::Socket(Flight::RECEIVE_MUCH, _) => arenas::LARGE,
            _ => arenas::SMALL,
        };
        Done {
            name,
            result: result.map_err(|_| Errno::from_raw_os_error(-entry.result())),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()).map(|id| arenas::number(group, id)),
        }
    }

    /// Returns the connection, if this is of an accept that was not told of yet.
    ///
    /// # Safety
    /// Each completion is asked once.
    pub unsafe fn connection(&self) -> Option<OwnedFd> {
        let (Name::Socket(Flight::ACCEPT, _), Ok(fd)) = (self.name, self.result) else {
            return None;
        };
        let fd = i32::try_from(fd).ok()?;
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The queue has no room, and the kernel takes nothing before completions are taken out.
#[derive(Debug)]
pub(crate) struct Full;

/// The rings of submissions and completions, and the memory that the kernel receives into.
pub(crate) struct Queue {
    ring: IoUring,
    arenas: Arenas,
    /// Operations whose last completion was not taken out yet.
    flying: usize,
    batch: Option<Batch>,
    /// From Linux 6.12 on.
    knows_min_wait: bool,
    /// Small sends that were pushed and not submitted.
    sends: u32,
}

impl Queue {
    pub fn new(options: &Options) -> Result<Queue, RingError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            // No interrupts, and no work of the kernel's but when we ask for it.
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.entries.next_power_of_two() * COMPLETIONS)
            .build(options.entries)
            .map_err(|error| RingError::at("io_uring_setup", error))?;
        let arenas = Arenas::new(&ring.submitter(), options)
            .map_err(|error| RingError::at("io_uring_register (buffer ring)", error))?;
        let knows_min_wait = ring.params().is_feature_min_timeout();
        let queue = Queue {
            ring,
            arenas,
            flying: 0,
            batch: options.batch,
            knows_min_wait,
            sends: 0,
        };
        Ok(queue)
    }

    pub fn arenas(&self) -> &Arenas {
        &self.arenas
    }

    /// Returns the arena that has a buffer, and its number there.
    pub fn arena_of(&mut self, buffer: u16) -> (&mut Arena, u16) {
        self.arenas.of(buffer)
    }

    /// Returns whether there are large buffers.
    pub fn has_large(&mut self) -> bool {
        self.arenas.has_large(&self.ring.submitter())
    }

    /// Starts to tell when `fd` is readable, again and again.
    pub fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<(), Full> {
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), POLL_IN).multi(true);
        self.push(&poll.build(), Name::Waker)
    }

    pub fn connect(&mut self, fd: &OwnedFd, token: Token) -> Result<(), Full> {
        let poll = opcode::PollAdd::new(Fd(fd.as_raw_fd()), POLL_OUT);
        self.push(&poll.build(), Name::Socket(Flight::CONNECT, token))
    }

    pub fn accept(&mut self, fd: &OwnedFd, token: Token) -> Result<(), Full> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let accept = opcode::AcceptMulti::new(Fd(fd.as_raw_fd())).flags(flags);
        self.push(&accept.build(), Name::Socket(Flight::ACCEPT, token))
    }

    pub fn receive(&mut self, fd: &OwnedFd, token: Token) -> Result<(), Full> {
        let receive = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), arenas::SMALL);
        self.push(&receive.build(), Name::Socket(Flight::RECEIVE, token))
    }

    /// Receives once, into a large buffer; it is chosen when there is something to receive.
    pub fn receive_much(&mut self, fd: &OwnedFd, token: Token) -> Result<(), Full> {
        let receive = opcode::Recv::new(Fd(fd.as_raw_fd()), std::ptr::null_mut(), 0)
            .buf_group(arenas::LARGE)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&receive, Name::Socket(Flight::RECEIVE_MUCH, token))
    }

    /// Sends bytes.
    ///
    /// # Safety
    /// They must be neither moved, changed nor freed until the operation's completion was taken
    /// out.
    pub unsafe fn send(
        &mut self,
        fd: &OwnedFd,
        token: Token,
        bytes: *const u8,
        length: usize,
    ) -> Result<(), Full> {
        // Longer ones are continued.
        let length = u32::try_from(length).unwrap_or(1 << 30);
        let send = opcode::Send::new(Fd(fd.as_raw_fd()), bytes, length).flags(libc::MSG_NOSIGNAL);
        self.push(&send.build(), Name::Socket(Flight::SEND, token))?;
        self.sends += u32::from(length <= SMALL_SEND);
        Ok(())
    }

    /// Sends bytes that lie in several places.
    ///
    /// # Safety
    /// As of [`Queue::send`]: for the bytes, and for the message that says where they are.
    pub unsafe fn send_message(
        &mut self,
        fd: &OwnedFd,
        token: Token,
        message: *const libc::msghdr,
        length: usize,
    ) -> Result<(), Full> {
        const NO_SIGNAL: u32 = libc::MSG_NOSIGNAL as u32;
        let send = opcode::SendMsg::new(Fd(fd.as_raw_fd()), message).flags(NO_SIGNAL);
        self.push(&send.build(), Name::Socket(Flight::SEND, token))?;
        self.sends += u32::from(length <= SMALL_SEND as usize);
        Ok(())
    }

    /// Cancels one operation; its own completion says how it ended.
    pub fn cancel(&mut self, operation: Flight, token: Token) -> Result<(), Full> {
        let name = Name::Socket(operation, token).bits();
        let cancel = opcode::AsyncCancel::new(name)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&cancel, Name::Cancel)
    }

    /// An operation that names memory comes from an unsafe function, whose caller vouches for it.
    fn push(&mut self, entry: &squeue::Entry, name: Name) -> Result<(), Full> {
        let entry = entry.clone().user_data(name.bits());
        // SAFETY: no operation but sends names memory of the user's, and their callers vouch for it; the
        // descriptors are open now, and the kernel holds them itself from the submission on.
        let mut pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // What fails here is that completions must be taken out first.
            let _busy = self.ring.submit();
            // SAFETY: as above.
            pushed = unsafe { self.ring.submission().push(&entry) };
        }
        pushed.map_err(|_| Full)?;
        if name != Name::Cancel {
            self.flying += 1;
        }
        Ok(())
    }

    /// Submits what was pushed, and waits for a completion, or for the batch, or for `timeout`.
    pub fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let timespec = Timespec::from(timeout);
        let (want, company) = self.company(timeout);
        let mut arguments = SubmitArgs::new().min_wait_usec(company);
        if want > 0 {
            arguments = arguments.timespec(&timespec);
        }
        self.sends = 0;
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        let pushed = u32::try_from(self.ring.submission().len()).expect("at most 2^15");
        // SAFETY: the arguments and the time in them live through the call.
        let result = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter(pushed, want, flags, Some(&arguments))
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // The time is over, a signal came, or completions must be taken out first.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Returns how many completions to wait for, and for how many microseconds before one of them
    /// is enough.
    ///
    /// A small send completes while it is submitted, and would end the wait at once, only to begin
    /// another one; so it is not counted. Should it not complete, the time bounds the mistake.
    fn company(&self, timeout: Duration) -> (u32, u32) {
        if timeout.is_zero() {
            return (0, 0);
        }
        let (completions, wait) = match self.batch {
            Some(batch) => (batch.completions.max(1), batch.wait),
            None if self.sends > 0 => (1, SENDING),
            None => (1, Duration::ZERO),
        };
        // The kernel would wait for the whole of it, whatever the timeout says.
        let wait = u32::try_from(wait.min(timeout).as_micros()).unwrap_or(u32::MAX);
        if !self.knows_min_wait || wait == 0 {
            return (1, 0);
        }
        (completions.saturating_add(self.sends), wait)
    }

    /// Takes completions out of the queue, at most as many as fit into it at a time.
    pub fn take(&mut self, into: &mut Vec<Done>) {
        let completions = self.ring.completion();
        for entry in completions {
            let done = Done::new(&entry);
            if !done.more && done.name != Name::Cancel {
                self.flying -= 1;
            }
            if let Some(buffer) = done.buffer {
                self.arenas.of(buffer).0.taken();
            }
            into.push(done);
        }
    }

    /// Cancels everything, and returns whether the kernel has done with all memory.
    pub fn quiesce(&mut self) -> bool {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        let deadline = Instant::now() + LONGEST_GOODBYE;
        let mut done = Vec::new();
        while self.flying > 0 && Instant::now() < deadline {
            // Each time anew: what was pushed meanwhile is to be cancelled, too.
            let _full = self.push(&cancel, Name::Cancel);
            if self.enter(Some(Duration::from_millis(10))).is_err() {
                break;
            }
            self.take(&mut done);
            for done in done.drain(..) {
                // SAFETY: each is looked at once, and closed if it is a connection.
                drop(unsafe { done.connection() });
            }
        }
        self.flying == 0
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.quiesce() {
            // SAFETY: nothing is in flight, as was just seen, and nothing is begun any more.
            unsafe { self.arenas.release(&self.ring.submitter()) };
        }
    }
}

const POLL_IN: u32 = libc::POLLIN as u32;
const POLL_OUT: u32 = libc::POLLOUT as u32;
